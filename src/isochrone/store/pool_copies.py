"""Point-in-time copies of an open pool: made, given up, compared and measured. A part of `Pool`, to keep files readable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from isochrone.model.errors import RefusedError
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.differences import TrackRuns, difference_pieces, joined
from isochrone.store.documents import Documents
from isochrone.store.establish import Extent, establish
from isochrone.store.log import Log
from isochrone.store.restore import restore
from isochrone.store.space import SpaceSteps, VolumeSpace, space_steps
from isochrone.store.state import PoolState
from isochrone.store.tables import VolumeTable
from isochrone.store.volume import Volume, VolumeParts
from isochrone.store.volume_set import NO_DOCUMENTS, CopyItem, VolumeSet


class PoolCopies:
    """What a pool does with copies. Its attributes are the pool's."""

    _state: PoolState
    _log: Log
    _parts: VolumeParts
    _documents: Documents
    _volumes: VolumeSet

    def create_copies(
        self, items: Sequence[CopyItem], documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> list[Volume]:
        """Add volumes that read as their sources do now, all at this instant (S5), and change documents with them.

        Only pointers are copied. Logged and written as one: a crash leaves all or nothing of it. Call `sync` before
        telling anybody. A value of None deletes a document.

        Raises:
            NotFoundError: a source, or a document to be deleted, does not exist.
            RefusedError: a name does not fit its kind; ConflictError: it is taken.
            BusyError: a limit of the pool is reached; PoolFullError: there is no room for table pages that staged
                entries need now. In all cases nothing was changed.
        """
        return self._volumes.create_copies(items, documents)

    def copy_volume(self, source: str, name: str) -> Volume:
        """Add a writable volume that reads as `source` does now; raises as `create_copies` does."""
        return self.create_copies([CopyItem(source, name, VolumeKind.COPY)])[0]

    def establish(
        self,
        source: str | int,
        target: str,
        extents: Sequence[Extent] | None = None,
        documents: Mapping[str, bytes | None] = NO_DOCUMENTS,
    ) -> None:
        """Make `target`, or ranges of it, read as `source` does now, by pointers (S5); whole, it takes its size as well.

        What the target held there is gone. Only what differs is touched: made again, it costs what has changed since.
        Source and target may be one volume, and the ranges overlap in the source. Logged, durable and with documents as
        `create_copies`.

        Args:
            source: name, or number of a hidden volume.
            extents: ranges of tracks; None for the whole.

        Raises:
            NotFoundError: a volume, or a document to be deleted, does not exist.
            RefusedError: the target is read-only, a range is not within its volume, two overlap in the target, or they
                are too many.
            BusyError: a limit of the pool is reached; PoolFullError: there is no room for table pages that must be
                copied. In all cases nothing was changed.
        """
        names = (source, target)
        establish(self._parts, self._volumes, self._documents, names, extents, documents)

    def restore(
        self, pairs: Sequence[tuple[str, str]], documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> None:
        """Make the second volume of each pair read as the first does now, with its size: all of them, or none.

        Raises as `establish` of whole volumes does; RefusedError also when a target is there twice, or is a source.
        """
        restore(self._parts, self._volumes, self._documents, pairs, documents)

    def delete_volumes(
        self, volumes: Sequence[str | int], documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> None:
        """Remove volumes (by name, or number) and their data, and change documents with them, as `create_copies` does.

        What was staged for them is dropped when it is committed. NotFoundError when one does not exist: nothing
        was changed.
        """
        self._volumes.delete(volumes, documents)

    def delete_volume(self, name: str) -> None:
        """Remove a volume and its data. Logged and written at once. NotFoundError when there is none."""
        self._volumes.delete([name])

    def diff(
        self, a: str | int, b: str | int, first_track: int = 0, end_track: int | None = None
    ) -> TrackRuns:
        """Return the runs of tracks from `first_track` to `end_track - 1` that may differ between two volumes.

        By pointers: what is not named is equal, what is named may be equal by chance. Beyond its end a volume counts as
        unmapped; None is the end of the longer one. In one step: about 3 ms for each GiB that differs at 4 KiB tracks, so
        ask for a part at a time, or use `diff_pieces`.

        Raises:
            NotFoundError: a volume does not exist.
            RefusedError: the range is not within the longer one.
        """
        return joined(self.diff_pieces(a, b, first_track, end_track))

    def diff_pieces(
        self, a: str | int, b: str | int, first_track: int = 0, end_track: int | None = None
    ) -> Iterator[TrackRuns]:
        """Return an iterator over what `diff` returns, a bounded number of runs at a time; those of two pieces may touch.

        The pool may go on between pieces: each is as of when it is asked for, and pages that only then begin to differ
        are left out. Raises as `diff` does, at once.
        """
        one, other = self._table(a), self._table(b)
        track_count = max(one.track_count, other.track_count)
        end = track_count if end_track is None else end_track
        if not 0 <= first_track <= end <= track_count:
            raise RefusedError(
                f"tracks {first_track} to {end} are not within {one.name} or {other.name}: the longer one has {track_count}",
                first_track=first_track,
                end_track=end,
            )
        return difference_pieces(self._state.arena, one, other, first_track, end)

    def space(self, volumes: str | int | Sequence[str | int]) -> VolumeSpace:
        """Return what a volume takes, exactly, or several together: deleting these gives back `exclusive_bytes`.

        In one step: about 2 ms for each GiB in table pages that no other volume shares, at 4 KiB tracks; less than 1 ms for
        what is shared; and all of what is to be reclaimed is. Raises NotFoundError.
        """
        while self.reclaim():
            pass
        steps = self.space_steps(volumes)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                space: VolumeSpace = stop.value
                return space

    def space_steps(self, volumes: str | int | Sequence[str | int]) -> SpaceSteps:
        """Do the same in steps of a few milliseconds, between which the pool may go on; the result says if it did.

        Then, or while there is something to reclaim, it is true but for that. A volume that is deleted meanwhile counts as
        it was.
        """
        names = [volumes] if isinstance(volumes, str | int) else volumes
        tables = {table.number: table for table in map(self._table, names)}
        return self._space_steps(list(tables.values()))

    def reclaim(self) -> bool:
        """Make some of what was given up free after the next sync, a few milliseconds of it; False when there was nothing.

        Big volumes and copies that are given up (more than RECLAIM_PAGE_COUNT_MAX table pages that nobody shares) still
        count as used. The owner of the pool calls this now and then; whoever needs the room does so at once.
        """
        return self._state.tables.doomed.reclaim()

    @property
    def reclaiming_page_count(self) -> int:
        """Table pages that were given up, of 1,024 tracks at the most, for `reclaim`."""
        return self._state.tables.doomed.page_count

    def _space_steps(self, tables: list[VolumeTable]) -> SpaceSteps:
        place = self._log.place
        space = yield from space_steps(self._state, tables)
        is_exact = self._log.place == place and not self.reclaiming_page_count
        return space if is_exact else replace(space, is_exact=False)

    def _table(self, volume: str | int) -> VolumeTable:
        return self._state.volumes[self._volumes.volume(volume).number]
