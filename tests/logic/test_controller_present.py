"""One moment by two clocks."""

from __future__ import annotations

import itertools

from isochrone.controller.capture_reports import Now
from isochrone.controller.present import READ_COUNT, read_now


def test_a_pause_between_two_readings_does_not_shift_one_clock_against_the_other() -> None:
    host_ns = iter((1_000, 901_000, 902_000, 902_010, 903_000, 990_000))
    wall_ns = iter((5_900_900, 5_902_005, 5_980_000))
    assert read_now(lambda: next(host_ns), lambda: next(wall_ns)) == Now(902_005, 5_902_005)


def test_clocks_are_read_a_bounded_number_of_times() -> None:
    readings = itertools.count(1)
    read_now(lambda: next(readings), lambda: 7)
    assert next(readings) == 2 * READ_COUNT + 1
