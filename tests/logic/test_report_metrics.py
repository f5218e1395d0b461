from __future__ import annotations

import re

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from isochrone.report.metrics import FAMILIES, Family, exposition
from isochrone.report.models import StatusReport
from isochrone.report.times import NOT_MEASURED
from support.reports import EMPTY, SESSION, STATUS

UNITS = ("_bytes", "_seconds", "_total", "_info", "_state", "_role", "_ratio", "_tracks", "_tracks_remaining")
UNITLESS = {
    "connections",
    "epoch",
    "image_complete",
    "blocked",
    "link_up",
    "spill_failed",
    "quiesced",
    "held_writes",
    "active_regions",
}


def samples(status: StatusReport) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = exposition(status)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(status: StatusReport, name: str, **labels: str) -> float | None:
    return samples(status).get((name, tuple(sorted(labels.items()))))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_metric_is_named_with_its_unit_and_explained(family: Family) -> None:
    noun, _, what = family.name.removeprefix("isochrone_").partition("_")
    assert re.fullmatch(r"isochrone(_[a-z]+)+", family.name), noun
    assert family.name.endswith(UNITS) or what in UNITLESS
    assert family.text.endswith(".")


def test_no_metric_is_there_twice() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("status", [STATUS, EMPTY], ids=["busy", "empty"])
def test_every_metric_is_exposed_even_without_a_sample(status: StatusReport) -> None:
    body, content_type = exposition(status)
    described = set(re.findall(r"^# HELP (\S+)", body.decode(), re.MULTILINE))
    assert described == {family.name for family in FAMILIES}
    assert content_type.startswith("text/plain")


def test_openmetrics_is_spoken_to_those_who_ask_for_it() -> None:
    body, content_type = exposition(STATUS, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_lags_are_in_seconds() -> None:
    assert value(STATUS, "isochrone_session_consistency_lag_seconds", session="bank") == pytest.approx(0.016)
    assert value(STATUS, "isochrone_capture_pacing_delay_seconds", session="ledger") == pytest.approx(0.0035)


def test_a_lag_that_nobody_measured_has_no_sample() -> None:
    unmeasured = STATUS.model_copy(
        update={"sessions": (SESSION.model_copy(update={"consistency": NOT_MEASURED}),)}
    )
    assert value(unmeasured, "isochrone_session_consistency_lag_seconds", session="bank") is None


def test_exactly_one_state_is_the_present_one() -> None:
    states = {
        labels: sample
        for (name, labels), sample in samples(STATUS).items()
        if name == "isochrone_pair_state" and ("volume", "db-copy") in labels
    }
    assert len(states) == 5
    assert [dict(labels)["state"] for labels, sample in states.items() if sample == 1] == ["COPY"]


def test_the_registry_of_the_process_is_left_alone() -> None:
    exposition(STATUS)
    assert not [metric.name for metric in REGISTRY.collect() if metric.name.startswith("isochrone")]
