"""Rates and estimates are measured, never guessed."""

from isochrone.controller.session_progress import SAMPLE_INTERVAL_NS, SAMPLES_MAX, Meter, SessionProgress

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
    progress = SessionProgress()
    for second, tracks in enumerate(remaining):
        progress.sample(second * SECOND_NS, record_count=0, byte_count=0, remaining={"data": tracks})
    return progress


def test_a_copy_is_estimated_from_its_present_rate() -> None:
    copy = sampled(1000, 900, 800).copies["data"]
    assert copy.tracks_to_copy == 1000
    assert copy.estimate_s(800) == 8.0


def test_a_copy_that_stands_still_has_no_estimate() -> None:
    copy = sampled(1000, 1000).copies["data"]
    assert copy.estimate_s(1000) is None
    assert copy.estimate_s(0) is None


def test_a_copy_that_begins_anew_is_counted_anew() -> None:
    copy = sampled(1000, 10, 5000).copies["data"]
    assert copy.tracks_to_copy == 5000
    assert copy.estimate_s(5000) is None


def test_a_copy_that_is_over_is_forgotten() -> None:
    progress = sampled(1000)
    assert not progress.is_due(SAMPLE_INTERVAL_NS - 1)
    assert progress.is_due(SAMPLE_INTERVAL_NS)
    progress.sample(SECOND_NS, record_count=0, byte_count=0, remaining={})
    assert progress.copies == {}
