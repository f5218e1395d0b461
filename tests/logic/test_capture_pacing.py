"""Pacing curves, what they are measured against, and what is measured of them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.capture.delays import WINDOW_NS, DelayMeter, DelaySummary
from isochrone.capture.forecast import FILL_SMOOTHING_NS, FillForecast
from isochrone.capture.pacing import CURVES, pace_delay_ns
from isochrone.model.choices import PaceLevel

MIB = 1 << 20
SECOND_NS = 1_000_000_000

levels = st.sampled_from(sorted(CURVES))


def test_every_level_but_off_has_a_curve() -> None:
    assert set(CURVES) == set(PaceLevel) - {PaceLevel.OFF}
    assert all(0 < curve.start < curve.full <= 1 for curve in CURVES.values())


@pytest.mark.parametrize(
    ("fill", "delay"),
    [(0, 0), (0.499, 0), (0.5, 0), (0.7, 250), (0.9, 1000), (0.95, 1000), (1, 1000), (5, 1000)],
)
def test_the_default_grows_with_the_square_of_the_excess_up_to_the_maximum(fill: float, delay: int) -> None:
    assert pace_delay_ns(fill, CURVES[PaceLevel.STEADY], 1000) == pytest.approx(delay, abs=1)


@given(levels, st.integers(0, 10**12), st.lists(st.floats(0, 2), min_size=2))
def test_a_fuller_side_file_is_never_paced_less_and_never_beyond_what_the_operator_chose(
    level: PaceLevel, delay_ns_max: int, fills: list[float]
) -> None:
    delays = [pace_delay_ns(fill, CURVES[level], delay_ns_max) for fill in sorted(fills)]
    assert delays == sorted(delays)
    assert 0 <= delays[0] <= delays[-1] <= delay_ns_max


@given(st.floats(0, 2))
def test_a_firmer_level_never_delays_less(fill: float) -> None:
    gentle, steady, firm = (
        pace_delay_ns(fill, CURVES[level], 10**9)
        for level in (PaceLevel.GENTLE, PaceLevel.STEADY, PaceLevel.FIRM)
    )
    assert gentle <= steady <= firm


# Percentiles


@given(st.lists(st.tuples(st.integers(0, 10**11), st.integers(1, 50)), min_size=1, max_size=60))
def test_percentiles_are_never_below_the_true_ones_and_at_most_an_eighth_above(
    delays: list[tuple[int, int]],
) -> None:
    meter = DelayMeter()
    for delay_ns, count in delays:
        meter.add(delay_ns, count, 0)
    every = sorted(delay_ns for delay_ns, count in delays for _ in range(count))
    summary = meter.summary(0)
    assert summary.write_count == len(every)
    for told_ns, share in ((summary.p50_ns, 0.5), (summary.p99_ns, 0.99)):
        true_ns = every[max(0, -(-int(share * 100) * len(every) // 100) - 1)]
        assert true_ns <= told_ns <= max(true_ns * 9 // 8 + 1, 1)
        assert told_ns <= every[-1]


def test_delays_are_forgotten_after_two_windows() -> None:
    meter = DelayMeter()
    meter.add(1000, 3, WINDOW_NS)
    assert meter.summary(WINDOW_NS + 1).write_count == 3
    meter.add(2000, 1, 2 * WINDOW_NS + 1)
    assert meter.summary(2 * WINDOW_NS + 2) == DelaySummary(4, meter.summary(2 * WINDOW_NS + 2).p50_ns, 2000)
    assert meter.summary(3 * WINDOW_NS + 2).write_count == 1
    assert meter.summary(9 * WINDOW_NS) == DelaySummary()


# Forecast


def filled(
    forecast: FillForecast, bytes_per_s: float, seconds: int, *, used_bytes: float = 0, jitter: float = 0
) -> int:
    """Let the use grow; return what is used then."""
    rng = Random(1)
    for step in range(seconds * 10):
        at_ns = int(step * SECOND_NS / 10)
        forecast.sample(max(0, int(used_bytes + rng.uniform(-jitter, jitter))), at_ns)
        used_bytes += bytes_per_s / 10
    return int(used_bytes)


def test_a_steady_rate_is_foretold_within_a_tenth() -> None:
    forecast = FillForecast()
    used_bytes = filled(forecast, 10 * MIB, 5 * FILL_SMOOTHING_NS // SECOND_NS)
    assert forecast.full_in_s(used_bytes, used_bytes + 600 * MIB) == pytest.approx(60, rel=0.1)


@pytest.mark.parametrize("bytes_per_s", [0, -2 * MIB])
def test_nothing_is_said_while_it_is_not_filling(bytes_per_s: int) -> None:
    forecast = FillForecast()
    used_bytes = filled(forecast, bytes_per_s, 60, used_bytes=500 * MIB)
    assert forecast.full_in_s(used_bytes, 1000 * MIB) is None


def test_nothing_is_said_of_an_empty_side_file_or_of_days() -> None:
    forecast = FillForecast()
    used_bytes = filled(forecast, 1000, 60)
    assert forecast.full_in_s(used_bytes, 1000 * MIB) is None
    assert forecast.full_in_s(500 * MIB, 1000 * MIB) is None
    filled(forecast, 0, 1, used_bytes=0)
    assert forecast.full_in_s(0, 1000) is None
