"""What a session has received lately and how its copies get on: rates and estimates, measured, never guessed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

SAMPLE_INTERVAL_NS: Final = 1_000_000_000
SAMPLES_MAX: Final = 6
"""Rates are over the last SAMPLES_MAX - 1 intervals."""


class Meter:
    """The rate of a counter, from samples of it."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES_MAX)

    def sample(self, now_ns: int, value: int) -> None:
        """Take `value` at `now_ns`."""
        self._samples.append((now_ns, value))

    def clear(self) -> None:
        """Begin anew."""
        self._samples.clear()

    def rate_per_s(self) -> float | None:
        """Return the change per second over the samples; None with fewer than two."""
        if len(self._samples) < 2:
            return None
        (first_ns, first), (last_ns, last) = self._samples[0], self._samples[-1]
        return (last - first) * 1e9 / (last_ns - first_ns)


@dataclass(frozen=True, slots=True)
class PairCopy:
    """One pair's present copy.

    Attributes:
        source: number of its primary, which copies its pairs one after the other.
        tracks_to_copy: what it began with, as far as it was seen from here.
        tracks_remaining: tracks whose image is still to be read.
    """

    source: int
    priority: int
    tracks_remaining: int
    tracks_to_copy: int = 0


class SessionProgress:
    """Samples of one session, taken by its shell at SAMPLE_INTERVAL_NS.

    A primary copies its pairs in order of priority and then of size, so the rate that is measured is the primary's, and
    a pair is done once those before it are.

    Attributes:
        records, received_bytes: rates of what was received.
        copies: by secondary volume, of pairs that are being copied.
    """

    def __init__(self) -> None:
        self.records = Meter()
        self.received_bytes = Meter()
        self.copies: dict[str, PairCopy] = {}
        self._sources: dict[int, _SourceCopy] = {}
        self._sampled_at_ns = 0

    def is_due(self, now_ns: int) -> bool:
        """Whether it is time for a sample."""
        return now_ns - self._sampled_at_ns >= SAMPLE_INTERVAL_NS

    def sample(self, now_ns: int, *, record_count: int, byte_count: int, copies: dict[str, PairCopy]) -> None:
        """Take the session's counters, and each pair that is being copied."""
        self._sampled_at_ns = now_ns
        self.records.sample(now_ns, record_count)
        self.received_bytes.sample(now_ns, byte_count)
        before, self.copies = self.copies, {}
        totals: dict[int, int] = {}
        for name, copy in copies.items():
            known = before.get(name)
            tracks_to_copy = max(copy.tracks_remaining, known.tracks_to_copy if known else 0)
            self.copies[name] = replace(copy, tracks_to_copy=tracks_to_copy)
            totals[copy.source] = totals.get(copy.source, 0) + copy.tracks_remaining
        for source in self._sources.keys() - totals.keys():
            del self._sources[source]
        for source, total in totals.items():
            self._sources.setdefault(source, _SourceCopy()).sample(now_ns, total)

    def tracks_per_s(self) -> float:
        """Return the images that all primaries have read in a second lately."""
        return sum(source.tracks_per_s() or 0.0 for source in self._sources.values())

    def pair_estimate_s(self, name: str) -> float | None:
        """Return the time until pair `name` has been copied at the present rate; None when that is not known."""
        own = self.copies.get(name)
        if own is None or not own.tracks_remaining:
            return None
        order = (-own.priority, own.tracks_remaining, name)
        ahead = sum(
            copy.tracks_remaining
            for other, copy in self.copies.items()
            if copy.source == own.source and (-copy.priority, copy.tracks_remaining, other) <= order
        )
        rate = self._sources[own.source].tracks_per_s()
        return ahead / rate if rate else None

    def estimate_s(self) -> float | None:
        """Return the time until every pair has been copied; None when nothing is, or some rate is not known."""
        estimates = [source.estimate_s() for source in self._sources.values() if source.tracks_remaining]
        known = [estimate for estimate in estimates if estimate is not None]
        return max(known) if known and len(known) == len(estimates) else None


class _SourceCopy:
    """All that one primary still has to copy for the session."""

    def __init__(self) -> None:
        self.tracks_remaining = 0
        self._meter = Meter()

    def sample(self, now_ns: int, tracks_remaining: int) -> None:
        if tracks_remaining > self.tracks_remaining:  # a new copy, or a part of it again
            self._meter.clear()
        self.tracks_remaining = tracks_remaining
        self._meter.sample(now_ns, tracks_remaining)

    def tracks_per_s(self) -> float | None:
        rate = self._meter.rate_per_s()
        return -rate if rate is not None and rate < 0 else None

    def estimate_s(self) -> float | None:
        rate = self.tracks_per_s()
        return self.tracks_remaining / rate if rate else None
