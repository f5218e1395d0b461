"""Rates and estimates are measured, never guessed."""

import pytest

from isochrone.controller.session_progress import (
    SAMPLE_INTERVAL_NS,
    SAMPLES_MAX,
    Meter,
    PairCopy,
    SessionProgress,
)

SECOND_NS = 1_000_000_000


def test_a_rate_needs_two_samples() -> None:
    meter = Meter()
    assert meter.rate_per_s() is None
    meter.sample(0, 0)
    assert meter.rate_per_s() is None
    meter.sample(2 * SECOND_NS, 100)
    assert meter.rate_per_s() == 50.0


def test_a_rate_forgets_what_is_long_past() -> None:
    meter = Meter()
    meter.sample(0, 1_000_000)
    for second in range(1, SAMPLES_MAX + 1):
        meter.sample(second * SECOND_NS, 1_000_000)
    assert meter.rate_per_s() == 0.0


def sampled(*remaining: int) -> SessionProgress:
    """One pair, sampled once a second."""
    progress = SessionProgress()
    for second, tracks in enumerate(remaining):
        copies = {"data": PairCopy(0, 0, tracks)}
        progress.sample(second * SECOND_NS, record_count=0, byte_count=0, copies=copies)
    return progress


def test_a_copy_is_estimated_from_its_present_rate() -> None:
    progress = sampled(1000, 900, 800)
    assert progress.copies["data"].tracks_to_copy == 1000
    assert progress.tracks_per_s() == 100.0
    assert (progress.pair_estimate_s("data"), progress.estimate_s()) == (8.0, 8.0)


@pytest.mark.parametrize("remaining", [(1000,), (1000, 1000), (1000, 0)])
def test_without_a_rate_or_anything_left_there_is_no_estimate(remaining: tuple[int, ...]) -> None:
    progress = sampled(*remaining)
    assert (progress.pair_estimate_s("data"), progress.estimate_s()) == (None, None)


def test_a_copy_that_begins_anew_is_counted_anew() -> None:
    progress = sampled(1000, 10, 5000)
    assert progress.copies["data"].tracks_to_copy == 5000
    assert progress.estimate_s() is None


def test_a_pair_waits_for_those_that_its_primary_copies_before_it() -> None:
    progress = SessionProgress()
    for second, tracks in enumerate((1000, 900)):
        copies = {
            "urgent": PairCopy(0, 5, tracks),
            "small": PairCopy(0, 0, 100),
            "big": PairCopy(0, 0, 500),
            "elsewhere": PairCopy(1, 0, 2 * tracks),
        }
        progress.sample(second * SECOND_NS, record_count=0, byte_count=0, copies=copies)
    assert [progress.pair_estimate_s(name) for name in copies] == [9.0, 10.0, 15.0, 9.0]
    assert progress.estimate_s() == 15.0


def test_while_one_primary_stands_still_there_is_no_estimate_of_the_whole() -> None:
    progress = SessionProgress()
    for second, tracks in enumerate((1000, 900)):
        copies = {"a": PairCopy(0, 0, tracks), "b": PairCopy(1, 0, 7)}
        progress.sample(second * SECOND_NS, record_count=0, byte_count=0, copies=copies)
    assert (progress.pair_estimate_s("a"), progress.pair_estimate_s("b")) == (9.0, None)
    assert progress.estimate_s() is None


def test_a_copy_that_is_over_is_forgotten() -> None:
    progress = sampled(1000)
    assert not progress.is_due(SAMPLE_INTERVAL_NS - 1)
    assert progress.is_due(SAMPLE_INTERVAL_NS)
    progress.sample(SECOND_NS, record_count=0, byte_count=0, copies={})
    assert (progress.copies, progress.estimate_s()) == ({}, None)
