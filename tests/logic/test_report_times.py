from __future__ import annotations

from datetime import UTC, datetime

import pytest

from isochrone.report.times import NS_PER_MS, NS_PER_S, TimePoint, duration_text, wall_text

WALL_NS = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * NS_PER_S


def test_lag_is_the_distance_from_now() -> None:
    point = TimePoint.measure(5 * NS_PER_S, now_ns=5 * NS_PER_S + 34 * NS_PER_MS, wall_now_ns=WALL_NS)
    assert point.lag_ms == 34.0
    assert point.wall == "2026-01-31T11:59:59.966Z"


def test_a_time_that_stands_still_falls_behind_with_the_clock() -> None:
    lags = [
        TimePoint.measure(NS_PER_S, now_ns=now_s * NS_PER_S, wall_now_ns=WALL_NS).lag_ms
        for now_s in (1, 2, 11)
    ]
    assert lags == [0.0, 1000.0, 10_000.0]


def test_what_was_never_measured_has_no_lag_and_no_moment() -> None:
    point = TimePoint.measure(0, now_ns=NS_PER_S, wall_now_ns=WALL_NS)
    assert (point.time_ns, point.lag_ms, point.wall) == (0, None, None)


def test_a_time_that_will_not_move_again_has_a_moment_but_no_lag() -> None:
    point = TimePoint.measure(NS_PER_S, now_ns=2 * NS_PER_S, wall_now_ns=WALL_NS, moving=False)
    assert point.lag_ms is None
    assert point.wall == "2026-01-31T11:59:59.000Z"


def test_a_time_ahead_of_an_estimated_now_is_no_negative_lag() -> None:
    assert TimePoint.measure(3, now_ns=2, wall_now_ns=WALL_NS).lag_ms == 0.0


def test_wall_text_drops_what_is_below_milliseconds() -> None:
    assert wall_text(WALL_NS) == "2026-01-31T12:00:00.000Z"
    assert wall_text(WALL_NS + 1_999_999) == "2026-01-31T12:00:00.001Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0, "0.0 ms"),
        (3.21, "3.2 s"),
        (245, "4 min 05 s"),
        (7800, "2 h 10 min"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
    ],
)
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
