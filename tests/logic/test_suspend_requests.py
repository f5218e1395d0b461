"""From what an operator types to the time at which a session suspends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from isochrone.api.requests import SuspendRequest
from isochrone.cli.session_suspend import _after_s
from isochrone.controller.capture_reports import Now
from isochrone.controller.suspending import host_time_ns
from isochrone.model.errors import RefusedError

NS = 1_000_000_000
MOMENT = datetime(2026, 11, 20, 10, 31, 2, 500_000, tzinfo=UTC)


def test_a_moment_of_the_wall_is_the_host_time_as_far_from_now() -> None:
    now = Now(host_ns=77 * NS, wall_ns=round(MOMENT.timestamp() * NS))
    assert host_time_ns(MOMENT + timedelta(seconds=3), now) == 80 * NS
    there = MOMENT.astimezone(timezone(timedelta(hours=5)))
    assert host_time_ns(there, now) == 77 * NS
    assert host_time_ns(MOMENT - timedelta(days=1), now) == 0


def test_a_moment_is_taken_with_its_offset_only() -> None:
    assert SuspendRequest.model_validate({"at": "2026-11-20T10:31:02.5Z"}).at == MOMENT
    with pytest.raises(ValidationError, match="timezone"):
        SuspendRequest.model_validate({"at": "2026-11-20T10:31:02.5"})


@pytest.mark.parametrize("body", [{"drain": True, "cancel": True}, {"after_s": 1.0, "drain": True}])
def test_only_one_time_may_be_given(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        SuspendRequest.model_validate(body)


@pytest.mark.parametrize(("text", "seconds"), [("+30s", 30), ("+5m", 300), ("+1.5h", 5400), ("+0s", 0)])
def test_a_time_from_now_has_a_unit(text: str, seconds: float) -> None:
    assert _after_s(text) == seconds


@pytest.mark.parametrize("text", ["+-30", "+s", "+5y", "+"])
def test_a_time_from_now_that_cannot_be_read_says_how_to_write_one(text: str) -> None:
    with pytest.raises(RefusedError, match=r"\+30s"):
        _after_s(text)
