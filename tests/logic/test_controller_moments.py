"""Instants as people give them, and what they are told when there is no image of one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from isochrone.api.requests import MomentRequest, RecoverRequest
from isochrone.controller.capture_reports import Now
from isochrone.controller.history_reports import history_report, history_summary
from isochrone.controller.moments import asked_ns, instant_to_recover, unreachable
from isochrone.link.messages import NamedInstant
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.report.history_text import history_view
from isochrone.session.history_window import Gap, Reach
from support.cores import SECOND_NS
from support.history_sites import Sites
from support.reports import rendered

WALL = datetime(2026, 11, 20, 10, 31, 2, tzinfo=UTC)
NOW = Now(500 * SECOND_NS, int(WALL.timestamp()) * SECOND_NS)


@pytest.fixture(scope="module")
def sites() -> Sites:
    sites = Sites()
    for time_ns, text in ((7, "twice"), (8, "once"), (9, "twice")):
        sites.session.history.was_named(0, NamedInstant(time_ns, text))
    return sites


@pytest.mark.parametrize(
    ("request_", "time_ns"),
    [
        (MomentRequest(), None),
        (MomentRequest(at_ns=123), 123),
        (MomentRequest(at=WALL - timedelta(microseconds=1_500_001)), 500 * SECOND_NS - 1_500_001_000),
        (MomentRequest(before_s=1.5), 500 * SECOND_NS - 1_500_000_000),
        (MomentRequest(before_s=1000), 0),
        (MomentRequest(instant="once"), 8),
    ],
)
def test_an_instant_may_be_given_in_several_ways(
    sites: Sites, request_: MomentRequest, time_ns: int | None
) -> None:
    assert asked_ns(request_, sites.session, NOW) == time_ns


def test_a_name_that_nobody_gave_is_told_with_those_there_are(sites: Sites) -> None:
    with pytest.raises(NotFoundError, match="its newest are: 'twice', 'once', 'twice'"):
        asked_ns(MomentRequest(instant="never"), sites.session, NOW)


def test_a_name_that_two_instants_have_is_told_with_their_times(sites: Sites) -> None:
    with pytest.raises(ConflictError, match=r"has 2 instants called 'twice'.*\(7\); .*\(9\)"):
        asked_ns(MomentRequest(instant="twice"), sites.session, NOW)


@pytest.mark.parametrize(
    "fields", [{"at_ns": 1, "before_s": 1}, {"at": "2026-11-20T10:31:02", "at_ns": None}]
)
def test_an_instant_that_is_given_twice_or_without_its_offset_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MomentRequest.model_validate(fields)


def test_a_recovery_does_not_drain_into_the_past() -> None:
    with pytest.raises(ValidationError, match="give one of them"):
        RecoverRequest(drain=True, at_ns=5)


@pytest.mark.parametrize(
    ("reach", "at_ns", "words"),
    [
        (Reach(None, 900), 5, ["keeps no history", "--history 24h", "Nearest with an image: "]),
        (Reach(100, 900), 5, ["does not go back so far", "(100)"]),
        (Reach(100, 900), 950, ["later than what is committed", "(900)"]),
        (Reach(100, 900, (Gap(200, 300),)), 250, ["a gap after", "(200) until", "(200) and", "(300)"]),
        (Reach(100, 900, (Gap(200, None),)), 250, ["a gap after", "Nearest with an image: ", "(200)"]),
    ],
)
def test_a_refusal_names_the_reason_and_the_nearest_instants(
    sites: Sites, reach: Reach, at_ns: int, words: list[str]
) -> None:
    text = unreachable(sites.session, reach, at_ns, NOW).message
    for word in words:
        assert word in text


def test_a_recovery_may_be_asked_for_again_and_goes_to_the_same_instant() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.wait_committed(sites.write("a", 0, 2))
    request = RecoverRequest(at_ns=at_ns)
    assert instant_to_recover(sites.session, request, NOW) == at_ns
    sites.session.recover(drain=False, allow_incomplete=False, at_ns=at_ns)
    near = RecoverRequest(at_ns=at_ns + 1000)
    assert instant_to_recover(sites.session, near, NOW) == at_ns
    with pytest.raises(ConflictError, match=r"is recovered to .* already.*session image s --at"):
        instant_to_recover(sites.session, RecoverRequest(at_ns=at_ns + SECOND_NS), NOW)
    assert instant_to_recover(sites.session, RecoverRequest(), NOW) is None


def test_a_history_is_reported_as_it_is() -> None:
    sites = Sites()
    at_ns = sites.write("a", 0, 1)
    sites.session.history.was_named(0, NamedInstant(at_ns, "here"))
    sites.wait_committed(at_ns)
    report = history_report(sites.session, NOW)
    assert report.first is not None
    assert report.first.time_ns <= at_ns <= report.through.time_ns
    assert [(one.text, one.source, one.reachable) for one in report.instants] == [("here", "p1", True)]
    assert [one.volume for one in report.volumes] == ["a"]
    assert report.summary is not None
    assert (report.summary.record_count, report.summary.held_bytes) == (1, 4096)
    assert "here" in rendered(history_view(report))


def test_no_history_is_reported_as_none() -> None:
    sites = Sites(history_ns=0)
    assert history_summary(sites.session, NOW) is None
    report = history_report(sites.session, NOW)
    assert (report.first, report.summary) == (None, None)
    assert "is off; begin one with" in rendered(history_view(report))
