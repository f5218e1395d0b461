"""Stamps never repeat and never step back, whatever the clock does; pacing is bounded and never eases as the file fills."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.capture.pacing import PACE_FILL_FULL, PACE_FILL_START, pace_delay_ns
from isochrone.capture.stamper import Stamper


def clock_of(*reads: int) -> Callable[[], int]:
    left = iter(reads)
    return lambda: next(left)


def test_stamps_are_host_time_while_it_moves() -> None:
    stamper = Stamper(clock_of(10, 20, 35))
    assert [stamper.stamp() for _ in range(3)] == [10, 20, 35]


def test_stamps_rise_by_one_while_the_clock_stands_still() -> None:
    stamper = Stamper(clock_of(10, 10, 10, 12, 14))
    assert [stamper.stamp() for _ in range(5)] == [10, 11, 12, 13, 14]


def test_no_stamp_is_at_or_below_the_high_water_mark_of_an_earlier_life() -> None:
    assert Stamper(clock_of(5), floor_ns=100).stamp() == 101
    assert Stamper(clock_of(100), floor_ns=100).stamp() == 101
    assert Stamper(clock_of(101), floor_ns=100).stamp() == 101


def test_every_later_stamp_exceeds_a_promise_and_every_earlier_one_does_not() -> None:
    stamper = Stamper(lambda: 10)
    before, promise, after = stamper.stamp(), stamper.promise(), stamper.stamp()
    assert before < promise < after


def test_the_high_water_mark_is_the_last_stamp_or_promise() -> None:
    stamper = Stamper(lambda: 10)
    assert stamper.stamp() == stamper.last_ns
    assert stamper.promise() == stamper.last_ns


@pytest.mark.parametrize(
    ("used", "delay"),
    [(0, 0), (499, 0), (500, 0), (700, 250), (900, 1000), (950, 1000), (1000, 1000), (5000, 1000)],
)
def test_the_delay_grows_with_the_square_of_the_excess_up_to_the_maximum(used: int, delay: int) -> None:
    assert (PACE_FILL_START, PACE_FILL_FULL) == (0.5, 0.9)
    assert pace_delay_ns(used, 1000, 1000) == pytest.approx(delay, abs=1)


def test_a_fuller_side_file_is_never_paced_less_and_never_beyond_what_the_operator_chose() -> None:
    delays = [pace_delay_ns(used, 1000, 777) for used in range(1200)]
    assert delays == sorted(delays)
    assert (min(delays), max(delays)) == (0, 777)


def test_no_delay_is_made_when_the_operator_allows_none() -> None:
    assert pace_delay_ns(1000, 1000, 0) == 0
