"""What a session has received lately and how its copies get on: rates and estimates, measured, never guessed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class CopyProgress:
    """One pair's present copy.

    Attributes:
        tracks_to_copy: what it began with, as far as it was seen from here.
    """

    tracks_to_copy: int = 0
    meter: Meter = field(default_factory=Meter)

    def sample(self, now_ns: int, tracks_remaining: int) -> None:
        """Take the number of tracks that remain."""
        if tracks_remaining > self.tracks_to_copy:  # a new copy, or a part of it again
            self.tracks_to_copy = tracks_remaining
            self.meter.clear()
        self.meter.sample(now_ns, tracks_remaining)

    def estimate_s(self, tracks_remaining: int) -> float | None:
        """Return the time until nothing remains at the present rate; None when that is not known."""
        rate = self.meter.rate_per_s()
        return tracks_remaining / -rate if tracks_remaining and rate is not None and rate < 0 else None


class SessionProgress:
    """Samples of one session, taken by its shell at SAMPLE_INTERVAL_NS.

    Attributes:
        records, received_bytes: rates of what was received.
        copies: by secondary volume, of pairs that are being copied.
    """

    def __init__(self) -> None:
        self.records = Meter()
        self.received_bytes = Meter()
        self.copies: dict[str, CopyProgress] = {}
        self._sampled_at_ns = 0

    def is_due(self, now_ns: int) -> bool:
        """Whether it is time for a sample."""
        return now_ns - self._sampled_at_ns >= SAMPLE_INTERVAL_NS

    def sample(self, now_ns: int, *, record_count: int, byte_count: int, remaining: dict[str, int]) -> None:
        """Take the session's counters; `remaining` holds the tracks of each pair that is being copied."""
        self._sampled_at_ns = now_ns
        self.records.sample(now_ns, record_count)
        self.received_bytes.sample(now_ns, byte_count)
        for name in self.copies.keys() - remaining.keys():
            del self.copies[name]
        for name, tracks_remaining in remaining.items():
            self.copies.setdefault(name, CopyProgress()).sample(now_ns, tracks_remaining)
