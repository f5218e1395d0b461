"""Recovery to an instant of the history, behind the committed image.

::

    recover --at T, C > T:  [ snapshots of the image at C; RECOVERY, to T ]   one record of the pool's log: done or not
                            everything received is dropped                    it is later than T
                            the volumes become what they were at T            may be repeated: it gives the same again
                            marks of every track that changed since T         before the volumes are in service
                            ENDED

A crash at any step repeats the steps behind the first, to the same T. The marks keep promise 2: what a primary was told is
hardened, and holds no marks of any more, may be later than T, and gone here. So a resync in either direction copies it,
because the side that gives in tells its marks.

Should the history be given up for want of space before the volumes have gone back, they stay at C, and the session says so:
an instant that is consistent, though not the one wanted. Nothing gives history up while it has another choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from isochrone.model.errors import ConflictError, IsochroneError, NotFoundError, RefusedError
from isochrone.model.names import NAME_LENGTH_MAX
from isochrone.model.volume_kind import SNAPSHOT_MARK, VolumeKind
from isochrone.session.document import SessionDocument
from isochrone.store.history import HistoryStats
from isochrone.store.pool import Pool
from isochrone.store.volume_set import CopyItem

REWIND_RETRY_NS: Final = 1_000_000_000
"""Between two tries, when something was in the way that may pass: no room, say."""

KeepImage = Callable[[str, Sequence[str], Mapping[str, bytes]], None]
"""Make snapshots of volumes as the copy of a name, in one record of the log with some documents. Raises IsochroneError."""


def keep_in(pool: Pool) -> KeepImage:
    """Return what makes snapshots that nobody lists as a copy: for a pool without a catalogue of copies."""

    def keep(copy: str, volumes: Sequence[str], documents: Mapping[str, bytes]) -> None:
        items = [
            CopyItem(volume, f"{volume}{SNAPSHOT_MARK}{copy}", VolumeKind.SNAPSHOT) for volume in volumes
        ]
        pool.create_copies(items, documents)

    return keep


def kept_name(document: SessionDocument, volumes: Iterable[str]) -> str:
    """Return a name for the snapshots of the image that a rewind leaves: one that no snapshot among `volumes` has.

    Also not one of volumes of another session, which had this one's name before: it names a copy as a whole.
    """
    taken = {volume.rpartition(SNAPSHOT_MARK)[2] for volume in volumes if SNAPSHOT_MARK in volume}
    head = f"before-{document.epoch + 1}-"
    for tail in (document.name, document.session_id[:12]):
        name = f"{head}{tail}"[:NAME_LENGTH_MAX].rstrip("._-")
        if name not in taken:
            return name
    return f"{head}{document.session_id}"


def refuse_unkept(document: SessionDocument, history: HistoryStats | None, at_ns: int) -> None:
    """Raise ConflictError unless the history has every pair at `at_ns`."""
    if history is None:
        raise ConflictError(
            f"session {document.name!r} keeps no history, so it can only be recovered to what is received and not committed "
            "yet; recover without a time",
            session=document.name,
        )
    if at_ns < history.first_ns:
        raise ConflictError(
            f"the history of session {document.name!r} begins at {history.first_ns}: give a time from then on",
            session=document.name,
        )
    since = {stay.number: stay.from_ns for stay in history.volumes if stay.until_ns is None}
    for pair in document.pairs:
        from_ns = since.get(-1 if pair.secondary_number is None else pair.secondary_number)
        if from_ns is None or from_ns > at_ns:
            when = "has no history yet" if from_ns is None else f"has a history since {from_ns} only"
            raise ConflictError(
                f"pair {pair.secondary_volume!r} of session {document.name!r} {when}: give a later time, or take it out "
                f"first with `isochrone session remove {document.name} {pair.secondary_volume}`",
                session=document.name,
                volume=pair.secondary_volume,
            )


def is_final(error: IsochroneError | OSError) -> bool:
    """Whether a rewind that failed so cannot succeed later: the history that it needs is gone."""
    return isinstance(error, NotFoundError) or type(error) is RefusedError
