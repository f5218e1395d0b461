"""Stamps never repeat and never step back, whatever the clock does; pacing is bounded and never eases as the file fills."""

from __future__ import annotations

from collections.abc import Callable

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
