"""Automatic resume: when a suspended session begins again without being told to, and what it waits for until then.

A suspension by command is an operator's and ends by command. Any other protects the applications from trouble at the other
site, so beginning again must not bring the trouble back: it is tried with a back-off that doubles from attempt to attempt,
only when every primary can be told and the pool has room, and only while the host-impact budget lasts: the time during which
acknowledgements of applications were held by this session's pacing, in the last hour. Once every pair has been DUPLEX for a
while the back-off begins anew.

Both outlive the controller, so that one that dies again and again gets no more than one that lives: attempts are kept with
the resume itself, held time once a slice. What was held after it was kept last is not lost: primaries tell totals.

Times are host time in nanoseconds. Nothing here acts: the session asks with every tick.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from isochrone.model.states import SuspendCause
from isochrone.session.document import HeldDocument
from isochrone.session.settings import SessionSettings

BUDGET_PERIOD_NS: Final = 3600 * 1_000_000_000
"""The host-impact budget is for each period of this length."""
_SLICES: Final = 60
_SLICE_NS: Final = BUDGET_PERIOD_NS // _SLICES


class HeldTime:
    """How long a primary held acknowledgements in the last BUDGET_PERIOD_NS, to a slice of a sixtieth."""

    def __init__(self, kept: HeldDocument | None = None) -> None:
        """`kept` is what `to_keep` returned in an earlier life."""
        self._slices: deque[tuple[int, int]] = deque(kept.slices if kept else (), maxlen=_SLICES + 1)
        self._noted_ns: int | None = kept.noted_ns if kept else None
        self._noted_total_ns = kept.total_ns if kept else 0
        self._kept = kept

    def note(self, now_ns: int, total_ns: int) -> None:
        """Take what the primary says: `total_ns`, its holds since it started, added up over writes.

        Several writes are held at a time; the time during which any was is at most what has gone by since the last note. A
        total that is lower than before is that of a primary that was restarted.
        """
        grown_ns = total_ns - self._noted_total_ns if total_ns >= self._noted_total_ns else total_ns
        if self._noted_ns is not None and grown_ns:
            self._add(now_ns, max(0, min(grown_ns, now_ns - self._noted_ns)))
        self._noted_ns = now_ns
        self._noted_total_ns = total_ns

    def _add(self, now_ns: int, held_ns: int) -> None:
        begin_ns = now_ns - now_ns % _SLICE_NS
        if self._slices and self._slices[-1][0] == begin_ns:
            held_ns += self._slices.pop()[1]
        self._slices.append((begin_ns, held_ns))

    def to_keep(self) -> HeldDocument | None:
        """Return what is to be kept now because more was held, None when that can wait: once a slice is enough."""
        kept = self._kept
        if self._noted_ns is None or not self._noted_total_ns:
            return None
        if kept and (
            kept.total_ns == self._noted_total_ns or kept.noted_ns // _SLICE_NS == self._noted_ns // _SLICE_NS
        ):
            return None
        self._kept = HeldDocument(
            noted_ns=self._noted_ns, total_ns=self._noted_total_ns, slices=tuple(self._slices)
        )
        return self._kept

    def slices(self, now_ns: int) -> list[tuple[int, int]]:
        """Return (end of its being counted, held) of what is counted now, oldest first."""
        counted = [(begin_ns + _SLICE_NS + BUDGET_PERIOD_NS, held_ns) for begin_ns, held_ns in self._slices]
        return [(until_ns, held_ns) for until_ns, held_ns in counted if until_ns > now_ns]


@dataclass(frozen=True, slots=True)
class Budget:
    """The host-impact budget at a moment.

    Attributes:
        held_ns: used, over all primaries.
        limit_ns: allowed.
        free_at_ns: when it will not be used up any more, if nothing is held; 0 when it is not now.
    """

    held_ns: int
    limit_ns: int
    free_at_ns: int


def budget(primaries: list[HeldTime], limit_ns: int, now_ns: int) -> Budget:
    """Add up what all primaries held."""
    slices = sorted(part for one in primaries for part in one.slices(now_ns))
    held_ns = sum(part[1] for part in slices)
    left_ns, free_at_ns = held_ns, 0
    for until_ns, part_ns in slices:
        if left_ns < max(1, limit_ns):
            break
        left_ns -= part_ns
        free_at_ns = until_ns
    return Budget(held_ns, limit_ns, free_at_ns)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What will become of a suspension.

    Attributes:
        due: resume now.
        at_ns: when it is expected to resume, 0 when that is not a matter of time.
        attempt: number of the attempt to come; 0 when there will be none.
        waits_for: in words; "" when for time alone.
    """

    due: bool = False
    at_ns: int = 0
    attempt: int = 0
    waits_for: str = ""


class AutoResume:
    """The back-off of one session.

    Attributes:
        attempts: made since it was DUPLEX for long, also in earlier lives of the controller.
    """

    def __init__(self, settings: SessionSettings, attempts: int = 0) -> None:
        self._settings = settings
        self.attempts = attempts
        self._duplex_since_ns: int | None = None

    def running(self, now_ns: int, *, is_duplex: bool) -> None:
        """The session is ACTIVE: once it has been DUPLEX for long enough, earlier attempts are forgotten."""
        if not is_duplex:
            self._duplex_since_ns = None
        elif self._duplex_since_ns is None:
            self._duplex_since_ns = now_ns
        elif now_ns - self._duplex_since_ns >= self._settings.auto_resume_reset_ns:
            self.attempts = 0

    def resumed(self) -> None:
        """An attempt is made."""
        self.attempts += 1
        self._duplex_since_ns = None

    @property
    def wait_ns(self) -> int:
        """From a suspension to the next attempt."""
        settings = self._settings
        doublings = min(self.attempts, 63)
        return min(settings.auto_resume_ns_min << doublings, settings.auto_resume_ns_max)

    def outlook(
        self,
        cause: SuspendCause,
        since_ns: int,
        obstacles: list[str],
        impact: Budget,
        now_ns: int,
        not_before_ns: int = 0,
    ) -> Outlook:
        """Decide about a suspension that began at `since_ns`; `obstacles` says what else is in the way now.

        Until `not_before_ns` it is not known whether `impact` is all that primaries have to say.
        """
        if cause is SuspendCause.COMMAND:
            return Outlook(waits_for="a command: it was suspended by one")
        attempt = self.attempts + 1
        if obstacles:
            return Outlook(attempt=attempt, waits_for="; ".join(obstacles))
        at_ns = max(since_ns + self.wait_ns, impact.free_at_ns, not_before_ns)
        if impact.free_at_ns:
            used = f"{impact.held_ns / 1e9:.0f} s of {impact.limit_ns / 1e9:.0f} s in the last hour"
            return Outlook(at_ns=at_ns, attempt=attempt, waits_for=f"host-impact budget used up: {used}")
        return Outlook(due=now_ns >= at_ns, at_ns=at_ns, attempt=attempt)
