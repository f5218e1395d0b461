"""Which instants of a session can be reached, and how long its history is kept: decisions over frozen values.

The history goes from the first instant that it covers to the time of the committed image. In between every instant is
exact, also between two groups, but for gaps: while a resync is under way the secondary has no consistent image, because
tracks that were only marked come late. Nor has it while a pair is suspended by itself. Both ends of a gap can be reached.

::

    first ----------- from ]   gap   [ to ------------- through
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isochrone.session.document import SessionDocument
from isochrone.session.history_document import GapDocument

RELEASE_PART: Final = 8
"""When the history takes too much space, one such part of its length is given up at a time."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Times without a consistent image of all volumes.

    Attributes:
        from_ns: the last instant before it.
        to_ns: the first instant after it; None while it is still open.
    """

    from_ns: int
    to_ns: int | None


@dataclass(frozen=True, slots=True)
class Reach:
    """What of the past can be reached.

    Attributes:
        first_ns: the first instant; None when there is no history.
        through_ns: the last one, that of the committed image.
        gaps: ascending and apart.
    """

    first_ns: int | None
    through_ns: int
    gaps: tuple[Gap, ...] = ()

    def holds(self, at_ns: int) -> bool:
        """Whether an image of `at_ns` can be made."""
        if self.first_ns is None:
            return at_ns == self.through_ns
        return self.first_ns <= at_ns <= self.through_ns and self.gap_at(at_ns) is None

    def gap_at(self, at_ns: int) -> Gap | None:
        """Return the gap that `at_ns` lies in, None when it lies in none."""
        for gap in self.gaps:
            if gap.from_ns < at_ns and (gap.to_ns is None or at_ns < gap.to_ns):
                return gap
        return None

    def nearest(self, at_ns: int) -> tuple[int | None, int | None]:
        """Return the nearest instants that can be reached before and after `at_ns`; None where there is none."""
        first_ns = self.through_ns if self.first_ns is None else self.first_ns
        before_ns: int | None = min(at_ns, self.through_ns)
        after_ns: int | None = max(at_ns, first_ns)
        if before_ns is not None and (gap := self.gap_at(before_ns)):
            before_ns = gap.from_ns
        if before_ns is not None and before_ns < first_ns:
            before_ns = None
        if after_ns is not None and (gap := self.gap_at(after_ns)):
            after_ns = gap.to_ns
        if after_ns is not None and after_ns > self.through_ns:
            after_ns = None
        return before_ns, after_ns


def open_gaps(document: SessionDocument, consistency_ns: int) -> list[Gap]:
    """Return the gaps that the session's present state makes: a resync under way, pairs that are behind."""
    gaps = [
        Gap(pair.image_time_ns(consistency_ns), None)
        for pair in document.pairs
        if pair.complete and pair.image_ns and pair.image_time_ns(consistency_ns) < consistency_ns
    ]
    if document.hold_floor_ns is not None:
        gaps.append(Gap(document.hold_floor_ns, None))
    return gaps


def uncovered(stays: Iterable[tuple[int, int | None]]) -> list[Gap]:
    """Return the times at which no volume was kept at all, between stays and behind the last of them.

    Args:
        stays: when each began and ended, None while it lasts.
    """
    gaps: list[Gap] = []
    covered_ns = 0
    for from_ns, until_ns in sorted(stays, key=lambda stay: stay[0]):
        if gaps and gaps[-1].to_ns is None:
            gaps[-1] = Gap(covered_ns, from_ns)
            if from_ns <= covered_ns:
                gaps.pop()
        if until_ns is None:
            return gaps
        covered_ns = max(covered_ns, until_ns)
        gaps.append(Gap(covered_ns, None))
    return gaps


def joined(closed: Iterable[GapDocument], opened: Iterable[Gap]) -> tuple[Gap, ...]:
    """Return all gaps ascending and apart; what comes after one that is open is part of it."""
    gaps: list[Gap] = []
    every = [*(Gap(gap.from_ns, gap.to_ns) for gap in closed), *opened]
    for gap in sorted(every, key=lambda each: each.from_ns):
        last = gaps[-1] if gaps else None
        if last is None or (last.to_ns is not None and gap.from_ns >= last.to_ns):
            gaps.append(gap)
        elif last.to_ns is not None:
            to_ns = None if gap.to_ns is None else max(last.to_ns, gap.to_ns)
            gaps[-1] = Gap(last.from_ns, to_ns)
    return tuple(gaps)


def gap_of_a_resync(document: SessionDocument, limit_ns: int) -> Gap:
    """Return the gap that the end of a hold closes: from the image it kept to the one that comes next.

    Some instants shortly before that one would be whole too. But when the pool was full, what was received under the hold
    may have been thinned out up to J, and nobody remembers that over a restart.

    Args:
        document: with the hold still in force.
        limit_ns: how far the next commit may go, at least: every image of a resynced track is captured and hardened by then.
    """
    from_ns = document.hold_floor_ns or 0
    for pair in document.pairs:
        if pair.complete and pair.image_ns and not pair.suspended:
            from_ns = min(from_ns, pair.image_ns)
    return Gap(from_ns, max(from_ns, limit_ns))


def release_for_time_ns(first_ns: int, newest_ns: int, window_ns: int) -> int | None:
    """Return up to which time the window has passed, None when nothing has to go.

    Args:
        newest_ns: what the window is counted back from: the committed image, or the present once the session has ended.
    """
    through_ns = newest_ns - window_ns
    return through_ns if through_ns > first_ns else None


def release_for_space_ns(first_ns: int, through_ns: int, held_bytes: int, bytes_max: int) -> int | None:
    """Return up to which time to give history up because it takes too much space, None when it does not.

    One part of its length at a time: what a part holds is not known before it is gone.

    Args:
        bytes_max: 0 for no limit.
    """
    if not bytes_max or held_bytes <= bytes_max or first_ns >= through_ns:
        return None
    return first_ns + max(1, (through_ns - first_ns) // RELEASE_PART)
