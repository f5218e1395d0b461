"""What a pool offers of the histories of its sessions; a part of `Pool`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history import HistoryStats
from isochrone.store.history_keeper import (
    HistoryGivenUp,
    HistoryKeeper,
    HistoryReleased,
    Rewinding,
    VolumeImages,
)
from isochrone.store.volume_set import NO_DOCUMENTS


class PoolHistories:
    """Images of every past instant of a session's volumes, and what they cost."""

    _histories: HistoryKeeper

    def history_begin(
        self, session: int, numbers: Sequence[int], documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> None:
        """Keep what a session commits to some volumes from now on, beginning with what they are now.

        Images of them exist from `committed_through_ns(session)` on. Volumes that are kept already stay as they are. Logged
        and written as one with `documents`, as `create_copies` does. A volume that is deleted or gets another size is not
        kept from then on.

        Raises:
            NotFoundError: there is no such volume, or document to be deleted.
            RefusedError: a volume is read-only. BusyError: a limit of the pool is reached.
            PoolFullError: no room for table pages. In all cases nothing was changed.
        """
        self._histories.begin(session, numbers, documents)

    def history_end(self, session: int, number: int) -> None:
        """Keep no more of a volume, which leaves the session; what there is stays until it is released as old.

        Nothing happens when the volume is not kept.
        """
        self._histories.end(session, number)

    def history_drop(self, session: int, documents: Mapping[str, bytes | None] = NO_DOCUMENTS) -> None:
        """Give up all that is kept of a session, at once; its tracks come back bit by bit, with the next syncs.

        Images of it that are being made fail. Nothing but the documents is changed when there is no history.
        """
        self._histories.drop(session, documents)

    def history(self, session: int) -> HistoryStats | None:
        """Return what is kept of a session, in numbers; None when nothing is."""
        return self._histories.stats(session)

    @property
    def histories(self) -> tuple[int, ...]:
        """Sessions that have a history; a session may have ended before it."""
        return self._histories.sessions()

    @property
    def on_history_given_up(self) -> Callable[[HistoryGivenUp], None]:
        """Called when history had to go because the pool was full; set it to be told. It must not touch the pool."""
        return self._histories.on_given_up

    @on_history_given_up.setter
    def on_history_given_up(self, call: Callable[[HistoryGivenUp], None]) -> None:
        self._histories.on_given_up = call

    def history_release(self, session: int, through_ns: int) -> HistoryReleased:
        """Give up a step's worth of the oldest history, none behind `through_ns`; call again while it is not done.

        A time behind the history's end counts as its end. Nothing goes while an image is being made of it. Written with
        the next log_write.

        Raises:
            NotFoundError: the session has no history.
            PoolFullError: no room for the table pages of the bases; nothing was changed.
        """
        return self._histories.release(session, through_ns)

    def history_image(
        self,
        session: int,
        at_ns: int,
        names: Mapping[int, str],
        kind: VolumeKind,
        documents: Mapping[str, bytes | None] = NO_DOCUMENTS,
    ) -> VolumeImages:
        """Yield blocking calls, as `sync` does, that make the image of volumes of a session at a time; return the volumes.

        For use with `yield from`, or a driver that takes the value of StopIteration. Commits go on between the calls. The
        image exists when the generator ends, and is logged as one with `documents`; before that there is no trace of
        it. Close a generator that is not driven to its end.

        Args:
            at_ns: any instant from the history's first to its last, both included.
            names: of the volumes to be made, as `kind` demands, by number of the volume they are to show.

        Raises:
            NotFoundError: the session has no history. RefusedError: there is no image of the volumes at that time.
            ConflictError: a name is taken, or the history was given up meanwhile. BusyError: a limit is reached.
            PoolFullError: no room for table pages. In all cases nothing was changed.
        """
        return self._histories.image(session, at_ns, names, kind, documents)

    def history_rewind(
        self, session: int, at_ns: int, documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> Rewinding:
        """Yield calls as `history_image` does, that make all kept volumes what they were; return the tracks changed since.

        `committed_through_ns` is that time then. Entries that are staged with a later time are the caller's to discard,
        before. History behind it stays, and images of it can be made, until something is committed. Volumes that are not
        kept any more, or were not yet at that time, stay as they are.

        The changed tracks (by volume number, ascending) are those that differ, and those that history has an entry of
        behind the time; so they are the same when a rewind is repeated because its caller died before it had made use of
        them. Raises as `history_image` does.
        """
        return self._histories.rewind(session, at_ns, documents)
