"""What delays were applied: percentiles over the last seconds, and their sum since the controller started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW_NS: Final = 5_000_000_000
"""Percentiles are over the delays of the last one to two windows."""
_STEPS: Final = 8
"""Buckets between a delay and twice that: a percentile is at most an eighth too high."""
_BUCKETS: Final = 40 * _STEPS


@dataclass(slots=True)
class DelayTotals:
    """What holding acknowledgements has cost the application since the controller started.

    Attributes:
        write_count: writes that were held.
        held_ns: sum of their holds: the impact on the host, in nanoseconds of waiting.
    """

    write_count: int = 0
    held_ns: int = 0


@dataclass(frozen=True, slots=True)
class DelaySummary:
    """Delays of the last seconds, of writes that were delayed; 0 when none was."""

    write_count: int = 0
    p50_ns: int = 0
    p99_ns: int = 0


class DelayMeter:
    """Delays of one volume for one session. Nothing is done while there are none."""

    __slots__ = ("_begun_ns", "_counts", "_last_counts", "_last_longest_ns", "_longest_ns")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._last_counts: dict[int, int] = {}
        self._longest_ns = 0
        self._last_longest_ns = 0
        self._begun_ns = 0

    def add(self, delay_ns: int, write_count: int, now_ns: int) -> None:
        """`write_count` writes were delayed by `delay_ns`."""
        self._turn(now_ns)
        bucket = _bucket(delay_ns)
        self._counts[bucket] = self._counts.get(bucket, 0) + write_count
        self._longest_ns = max(self._longest_ns, delay_ns)

    def summary(self, now_ns: int) -> DelaySummary:
        """Return the percentiles of the last one to two windows; each is a bound from above within an eighth."""
        self._turn(now_ns)
        counts = dict(self._last_counts)
        for bucket, count in self._counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        total = sum(counts.values())
        if not total:
            return DelaySummary()
        longest_ns = max(self._longest_ns, self._last_longest_ns)
        p50_ns, p99_ns = (min(longest_ns, _percentile(counts, total, share)) for share in (0.5, 0.99))
        return DelaySummary(total, p50_ns, p99_ns)

    def _turn(self, now_ns: int) -> None:
        age_ns = now_ns - self._begun_ns
        if age_ns >= WINDOW_NS and (self._counts or self._last_counts):
            is_last = age_ns < 2 * WINDOW_NS
            self._last_counts = self._counts if is_last else {}
            self._last_longest_ns = self._longest_ns if is_last else 0
            self._counts = {}
            self._longest_ns = 0
            self._begun_ns = now_ns
        elif age_ns >= WINDOW_NS:
            self._begun_ns = now_ns


def _bucket(delay_ns: int) -> int:
    """Return the number of the bucket: one for each eighth of an octave, counted from 1 ns."""
    octave = delay_ns.bit_length() - 1
    if octave < 0:
        return 0
    return min(_BUCKETS - 1, octave * _STEPS + ((delay_ns << 3 >> octave) & (_STEPS - 1)))


def _bucket_end_ns(bucket: int) -> int:
    """Return the largest delay of a bucket."""
    octave, step = divmod(bucket, _STEPS)
    return (((_STEPS + step + 1) << octave) - 1) >> 3


def _percentile(counts: dict[int, int], total: int, share: float) -> int:
    wanted = share * total
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            return _bucket_end_ns(bucket)
    raise AssertionError("a share of the total is at most the total")
