"""Pairs whose secondary does not fit are left out of what their primary is asked for, so that all others go on.

That takes two words: the primary's answer, which shows that a pair does not fit, and another Configure without the pair.
In between records of its volume come, and are dropped (see VolumeLookup). Nothing is forgotten by that: the pair was never
confirmed, so it has no image, and it is copied from the start when it comes back.

There is no ping-pong: a Configure that leaves out more follows only an answer in which a pair was newly found not to fit.
The pair is asked for again when a person changes the session, over a new link, when what is here has changed (looked at
every LOOK_INTERVAL_NS), and every RETRY_INTERVAL_NS, because volumes of the primary change too.

A pair that was confirmed is never left out: its primary would drop the marks that say what its secondary lacks, and an
image of it stands in the session's. Its volumes cannot be exchanged behind the back of a controller that knows the session.
Where it happens nevertheless (the session was deleted at the primary, and the volume after it), the pair is suspended by
itself with the reason (PairSuspension.set_aside): its image stays as it was, all others go on, and a recovery has to be told
that the image is not of one instant. A person takes the pair out. To resize either volume would be no cure: no mark would
say what of the image is lost by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isochrone.link.messages import VolumeInfo
from isochrone.model.errors import ConflictError, IsochroneError
from isochrone.session.document import PairDocument
from isochrone.store.pool import Pool

LOOK_INTERVAL_NS: Final = 1_000_000_000
RETRY_INTERVAL_NS: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Misfit:
    """A pair that is left out, or set aside.

    Attributes:
        reason: for people, with what to do.
        primary_number, size_bytes: the primary's volume when it was found.
        seen: what `misfit_because` said then; "" when it was something else that failed.
        was_confirmed: it cannot be left out, and is set aside.
    """

    reason: str
    primary_number: int
    size_bytes: int
    seen: str
    was_confirmed: bool


class Misfits:
    """Pairs of one primary that are left out on the present link, by primary volume."""

    def __init__(self) -> None:
        self._by_volume: dict[str, Misfit] = {}
        self._looked_ns = 0
        self._found_ns = 0

    def __contains__(self, primary_volume: str) -> bool:
        return primary_volume in self._by_volume

    @property
    def reasons(self) -> dict[str, str]:
        """Why each is left out."""
        return {volume: misfit.reason for volume, misfit in self._by_volume.items()}

    def found(self, misfits: Mapping[str, Misfit], now_ns: int) -> None:
        """Leave these out too."""
        if misfits:
            self._by_volume.update(misfits)
            self._looked_ns = self._found_ns = now_ns

    def clear(self) -> None:
        """Leave nothing out: what did not fit is found anew if it still does not."""
        self._by_volume.clear()

    def is_retry_due(self, pool: Pool, pairs: Iterable[PairDocument], now_ns: int) -> bool:
        """Whether to ask for them again. `pairs` are those of the primary."""
        if not self._by_volume or now_ns - self._looked_ns < LOOK_INTERVAL_NS:
            return False
        self._looked_ns = now_ns
        if now_ns - self._found_ns >= RETRY_INTERVAL_NS:
            return True
        return any(
            misfit_because(pool, pair, misfit.primary_number, misfit.size_bytes) != misfit.seen
            for pair in pairs
            if (misfit := self._by_volume.get(pair.primary_volume)) is not None
        )


def misfit_because(pool: Pool, pair: PairDocument, primary_number: int, size_bytes: int) -> str:
    """Return why a volume of the primary and the pair's secondary cannot be kept alike, "" when they can."""
    if pair.primary_number is not None and pair.primary_number != primary_number:
        return (
            f"volume {pair.primary_volume!r} was deleted and created anew at the primary: "
            "remove the pair and add it again"
        )
    volume = pool.volumes.get(pair.secondary_volume)
    if volume is not None and pair.is_confirmed and volume.size_bytes != size_bytes:
        return (
            f"secondary volume {volume.name!r} has {volume.size_bytes} bytes, its primary {size_bytes}; they were "
            "alike when the pair began: remove the pair and add it again with another secondary"
        )
    if volume is not None and volume.size_bytes != size_bytes:
        return (
            f"secondary volume {volume.name!r} has {volume.size_bytes} bytes, its primary {size_bytes}: "
            "resize one of them, or let the session create the secondary"
        )
    if volume is not None and not pair.is_confirmed and volume.mapped_track_count:
        return (
            f"secondary volume {volume.name!r} holds data already: name another, "
            "or delete it so that the session creates it"
        )
    return ""


def confirmed_pair(pool: Pool, pair: PairDocument, primary_number: int, size_bytes: int) -> PairDocument:
    """Return `pair` tied to its two volumes; the secondary is created if it is missing.

    Raises ConflictError, or what `Pool.create_volume` raises.
    """
    if reason := misfit_because(pool, pair, primary_number, size_bytes):
        raise ConflictError(reason)
    volume = pool.volumes.get(pair.secondary_volume)
    if volume is None:
        volume = pool.create_volume(pair.secondary_volume, size_bytes)
    return pair.model_copy(update={"primary_number": primary_number, "secondary_number": volume.number})


def misfit_of(pool: Pool, pair: PairDocument, info: VolumeInfo, error: IsochroneError) -> Misfit:
    """Return what is to be remembered of a pair that `confirmed_pair` refused with `error`."""
    seen = misfit_because(pool, pair, info.number, info.size_bytes)
    return Misfit(error.message, info.number, info.size_bytes, seen, pair.is_confirmed)
