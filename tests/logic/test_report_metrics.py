from __future__ import annotations

import re

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from isochrone.model.split import Divergence
from isochrone.report.metric_family import Family
from isochrone.report.metrics import FAMILIES, exposition
from isochrone.report.models import StatusReport
from isochrone.report.split_models import SplitReport
from isochrone.report.times import NOT_MEASURED
from support.copy_reports import SUMMARY as COPIES
from support.fake_history_operations import SUMMARY
from support.reports import EMPTY, SESSION, STATUS

UNITS = (
    "_bytes",
    "_seconds",
    "_total",
    "_info",
    "_state",
    "_role",
    "_divergence",
    "_ratio",
    "_tracks",
    "_tracks_remaining",
)
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
    "checkpoint_waits",
    "history_records",
    "history_failing",
    "sets",
    "sets_waiting",
    "volumes",
    "relations",
    "copies",
    "failing",
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


def test_a_checkpoint_that_waits_for_room_can_be_alerted_on() -> None:
    waiting = STATUS.pool.model_copy(update={"checkpoint_waits_because": "no room for the root"})
    assert value(STATUS, "isochrone_pool_checkpoint_waits") == 0
    assert value(STATUS.model_copy(update={"pool": waiting}), "isochrone_pool_checkpoint_waits") == 1


@pytest.mark.parametrize("divergence", Divergence)
def test_who_wrote_since_a_recovery_can_be_alerted_on(divergence: Divergence) -> None:
    split = SplitReport(divergence=divergence, last_common=NOT_MEASURED, sides=(), commands=())
    ended = STATUS.model_copy(update={"sessions": (SESSION.model_copy(update={"split": split}),)})
    found = {
        each: value(ended, "isochrone_session_divergence", session="bank", divergence=each.value)
        for each in Divergence
    }
    assert found == {each: float(each is divergence) for each in Divergence}


def test_a_session_that_was_not_recovered_has_no_divergence() -> None:
    running = STATUS.model_copy(update={"sessions": (SESSION.model_copy(update={"split": None}),)})
    assert not [name for name, _ in samples(running) if name == "isochrone_session_divergence"]


def test_a_history_is_measured_while_there_is_one() -> None:
    settings = SESSION.settings.model_copy(update={"history_s_max": 86_400.0, "history_bytes_max": 20 << 30})
    session = SESSION.model_copy(update={"history": SUMMARY, "settings": settings})
    found = samples(STATUS.model_copy(update={"sessions": (session,)}))
    labels = (("session", SESSION.name),)
    assert {
        name.removeprefix("isochrone_session_history_"): value
        for (name, its), value in found.items()
        if "_history_" in name and its == labels
    } == {
        "seconds": 3600,
        "limit_seconds": 86_400,
        "bytes": 1200 * 4096,
        "metadata_bytes": 1200 * 28,
        "limit_bytes": 20 << 30,
        "records": 1200,
        "given_up_lag_seconds": 4000,
        "failing": 0,
    }
    assert not any("_history_" in name for name, _ in samples(STATUS))


def test_copies_schedules_and_a_filling_pool_are_counted() -> None:
    status = STATUS.model_copy(
        update={"copies": COPIES, "pool": STATUS.pool.model_copy(update={"warning_percent": 90})}
    )
    assert value(status, "isochrone_copy_sets") == 1
    assert value(status, "isochrone_copy_sets_waiting") == 1
    assert value(status, "isochrone_schedule_failing", schedule="daily") == 1
    assert value(status, "isochrone_schedule_last_run_age_seconds", schedule="daily") == 28_800
    assert value(status, "isochrone_pool_warning_ratio") == 0.9
    assert value(EMPTY, "isochrone_pool_warning_ratio") is None
