"""Volumes: reads and writes of bytes, mapped to tracks.

The way of a write of one whole track, the case that decides how fast the product is: page number, entry,
count, then either `pwrite` in place (owned alone), or a track from the window, `pwrite`, and one packed entry
appended to the log's list. Scalars are read through memoryviews, which cost a third of numpy's scalar
indexing. Everything else goes through arrays and pays for some numpy calls per request.

Payload is written before the entry that points at it exists; the entry reaches the log file with
`Pool.log_write`, which the caller makes before it acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import RefusedError
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.allocator import TrackNumbers
from isochrone.store.arena import PAGE_ENTRY_COUNT, PAGE_MASK, PAGE_SHIFT
from isochrone.store.disk import Buffer, File, WritableBuffer
from isochrone.store.hashing import TrackHashes, hash_tracks
from isochrone.store.health import Health
from isochrone.store.log import Log
from isochrone.store.log_records import (
    MAP_ENTRY,
    MAP_ENTRY_TRACK_COUNT_MAX,
    UNMAP,
    RecordType,
    map_entries,
)
from isochrone.store.runs import Run, runs_of
from isochrone.store.state import PoolState
from isochrone.store.tables import VolumeTable
from isochrone.store.track_errors import track_read_error

_ZERO_BYTES: Final = bytes(1 << 20)
_ONES: Final = np.ones(PAGE_ENTRY_COUNT, np.uint16).tobytes()
_PACK: Final = MAP_ENTRY.pack
_LIST_COUNT_MAX: Final = 64
"""Up to this many tracks a Python list is compared faster than numpy arrays are set up."""


@dataclass(frozen=True, slots=True)
class ZeroResult:
    """What `Volume.zero` changed.

    Attributes:
        edges: (track, 1, image) of partly zeroed tracks, as `Volume.write` returns them.
        runs: (first track, count) of whole tracks that read as zeros now and may not have before.
    """

    edges: list[tuple[int, int, Buffer]] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VolumeParts:
    """What all volumes of a pool work with.

    Attributes:
        reserve: (tracks, pages): makes sure that as many can be taken now, or raises PoolFullError.
        sync: makes everything durable, inline: what is pending becomes free, what is held may be overwritten.
    """

    state: PoolState
    tracks: File
    log: Log
    health: Health
    reserve: Callable[[int, int], None]
    sync: Callable[[], None]


class Volume:
    """One thin volume. Offsets and lengths are bytes, any within its size; RefusedError otherwise.

    Attributes:
        number: never used for another volume of the pool.
        track_count: tracks of the volume; 0 once it is deleted.
    """

    def __init__(self, parts: VolumeParts, table: VolumeTable) -> None:
        state = parts.state
        self._parts = parts
        self._table = table
        self._tables = state.tables
        self._arena = state.arena
        self._allocator = state.allocator
        self._counts = state.allocator.counts_view
        self._window = state.allocator.window
        self._health = parts.health
        self._log = parts.log
        self._add_map = parts.log.add_map
        self._pwrite = parts.tracks.pwrite
        self._pread = parts.tracks.pread
        self._track_size = state.track_size_bytes
        self._offset_mask = state.track_size_bytes - 1
        self._shift = state.track_size_bytes.bit_length() - 1
        self._zero_track = bytes(state.track_size_bytes)
        self.number = table.number
        self.refresh()

    def refresh(self) -> None:
        """Take over a size that changed."""
        self._pages = self._table.pages_view
        self.track_count = self._table.track_count

    @property
    def name(self) -> str:
        """Name of the volume."""
        return self._table.name

    @property
    def kind(self) -> VolumeKind:
        """What the volume is for."""
        return self._table.kind

    @property
    def size_bytes(self) -> int:
        """Size that the volume shows."""
        return self._table.size_bytes

    @property
    def mapped_track_count(self) -> int:
        """Tracks that were written and not unmapped since."""
        return self._table.mapped_track_count

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes; unmapped tracks read as zeros."""
        track = offset >> self._shift
        start = offset & self._offset_mask
        if 0 <= track < self.track_count and 0 < length <= self._track_size - start:
            physical = self._arena.view[
                (self._pages[track >> PAGE_SHIFT] << PAGE_SHIFT) + (track & PAGE_MASK)
            ]
            if physical:
                return self._pread(length, (physical - 1 << self._shift) + start)
            return self._zero_track[:length]
        self._check_range(offset, length)
        if not length:
            return b""
        return b"".join(
            [
                self._pread(count, position) if position >= 0 else bytes(count)
                for _, count, position in self._byte_runs(offset, length)
            ]
        )

    def hash_tracks(self, track: int, track_count: int, seed: int) -> TrackHashes:
        """Return the hashes of whole tracks; unmapped ones hash as zeros."""
        self._check_range(track << self._shift, track_count << self._shift)
        entries = self._tables.lookup(self._table, track, track_count)
        return hash_tracks(self._parts.tracks, self._track_size, entries, seed)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill `buffer` from `offset` on."""
        view = memoryview(buffer)
        self._check_range(offset, len(view))
        if not len(view):
            return
        for start, count, position in self._byte_runs(offset, len(view)):
            if position >= 0:
                self._parts.tracks.preadv([view[start : start + count]], position)
            else:
                view[start : start + count] = bytes(count)

    def write(self, offset: int, data: Buffer) -> tuple[int, int, Buffer]:
        """Store `data`. Returns (first track, track count, image of the whole tracks); aligned, the image is
        `data`.

        Raises:
            RefusedError: beyond the volume.
            PoolFullError: no free track, also after a sync; nothing was changed.
            PoolReadOnlyError: the pool takes no writes.
            TrackReadError: a track that is written in part cannot be read; nothing was changed.
            OSError: the device failed; tracks that were overwritten in place hold old or new content.
        """
        if self._health.reason is not None:
            self._health.check()
        length = len(data)
        track = offset >> self._shift
        if length != self._track_size or offset & self._offset_mask or not 0 <= track < self.track_count:
            return self._write_any(offset, data)
        page = self._pages[track >> PAGE_SHIFT]
        if self._arena.counts_view[page] != 1:
            if not page:
                return self._write_tracks(track, 1, data)
            page = self._own_page(track >> PAGE_SHIFT)
        index = (page << PAGE_SHIFT) + (track & PAGE_MASK)
        physical = self._arena.view[index]
        if physical and self._counts[physical] == 1:
            self._pwrite(data, physical - 1 << self._shift)
            return track, 1, data
        window = self._window
        if not window and not self._allocator.refill():
            return self._write_tracks(track, 1, data)
        fresh = window.pop()
        try:
            self._pwrite(data, fresh - 1 << self._shift)
        except BaseException:
            window.append(fresh)
            raise
        self._counts[fresh] = 1
        self._arena.view[index] = fresh
        self._arena.dirty_view[page] = 1
        self._add_map(_PACK(self.number, track, fresh, 1))
        if physical:
            self._allocator.drop_one(physical)
        else:
            self._table.mapped_track_count += 1
        return track, 1, data

    def zero(self, offset: int, length: int, *, allocate: bool) -> ZeroResult:
        """Make a range read as zeros: unmap whole tracks, or with `allocate` store zeros on tracks of its
        own.

        Raises as `write` does; PoolFullError before anything is changed.
        """
        self._health.check()
        self._check_range(offset, length)
        result = ZeroResult()
        if not length:
            return result
        size = self._track_size
        first, end = -(-offset // size), (offset + length) // size
        edges = self._edges(offset, length)
        if not allocate:
            edges = [edge for edge in edges if self._entry(edge[0] >> self._shift)]
        self._reserve_zero(edges, first, max(end, first), allocate=allocate)
        # All that must be read is read first: an error then has changed nothing.
        images = [self._image_with_zeros(start, count) for start, count in edges]
        for track, image in images:
            result.edges.append(self._write_tracks(track, 1, image))
        if first < end:
            if allocate:
                self._store_zeros(first, end - first)
                result.runs.append((first, end - first))
            else:
                result.runs.extend(self._unmap(first, end - first))
        return result

    def mapped_runs(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (offset, length, mapped) of alternating runs that cover the range."""
        self._check_range(offset, length)
        end = offset + length
        start, was_mapped = offset, False
        runs = (
            self._tables.mapped_runs(self._table, offset >> self._shift, self._tracks_to(end))
            if length
            else ()
        )
        for first, mapped in runs:
            at = max(first << self._shift, offset)
            if mapped != was_mapped and at > start:
                yield start, at - start, was_mapped
                start = at
            was_mapped = mapped
        if start < end:
            yield start, end - start, was_mapped

    def mapped(self) -> NDArray[np.bool_]:
        """Return which tracks are mapped, shape (track_count,)."""
        if not self.track_count:
            return np.zeros(0, np.bool_)
        result = np.zeros(len(self._table.pages) << PAGE_SHIFT, np.bool_)
        for page_index in np.flatnonzero(self._table.pages).tolist():
            start = page_index << PAGE_SHIFT
            result[start : start + PAGE_ENTRY_COUNT] = self._arena.page(self._pages[page_index]) != 0
        return result[: self.track_count]

    def _tracks_to(self, offset: int) -> int:
        """Return the first track that begins at or after `offset`."""
        return (offset + self._offset_mask) >> self._shift

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.track_count << self._shift:
            raise RefusedError(
                f"{length} bytes at {offset} are not within volume {self.name} of {self.size_bytes} bytes",
                volume=self.name,
                offset=offset,
                length=length,
            )

    def _entry(self, track: int) -> int:
        """Return the physical track of one track, 0 when unmapped."""
        entry: int = self._arena.view[(self._pages[track >> PAGE_SHIFT] << PAGE_SHIFT) + (track & PAGE_MASK)]
        return entry

    def _byte_runs(self, offset: int, length: int) -> Iterator[Run]:
        """Yield (start in the range, length, position in the tracks file or -1) that cover the range in
        order.
        """
        first = offset >> self._shift
        end = offset + length
        for index, count, physical in runs_of(
            self._tables.lookup(self._table, first, self._tracks_to(end) - first)
        ):
            run_start = first + index << self._shift
            start = max(run_start, offset)
            stop = min(run_start + (count << self._shift), end)
            position = (physical - 1 << self._shift) + start - run_start if physical else -1
            yield start - offset, stop - start, position

    def _write_any(self, offset: int, data: Buffer) -> tuple[int, int, Buffer]:
        """Write any range: whole tracks as they are, others patched into images of whole tracks."""
        length = len(data)
        self._check_range(offset, length)
        first = offset >> self._shift
        count = self._tracks_to(offset + length) - first
        if not length:
            return first, 0, data
        if not (offset | length) & self._offset_mask:
            return self._write_tracks(first, count, data)
        image = bytearray(count << self._shift)
        start = offset - (first << self._shift)
        if start:
            image[: self._track_size] = self._read_old(first)
        if (start + length) & self._offset_mask and (count > 1 or not start):
            image[-self._track_size :] = self._read_old(first + count - 1)
        image[start : start + length] = data
        return self._write_tracks(first, count, image)

    def _image_with_zeros(self, offset: int, length: int) -> tuple[int, bytearray]:
        """Return the track that a range within one track lies in, and its image with the range zeroed."""
        track, start = offset >> self._shift, offset & self._offset_mask
        image = bytearray(self._read_old(track))
        image[start : start + length] = bytes(length)
        return track, image

    def _read_old(self, track: int) -> bytes:
        """Return what `track` holds, for a change of a part of it. Raises TrackReadError."""
        try:
            return self.read(track << self._shift, self._track_size)
        except OSError as error:
            raise track_read_error(self.name, track, error) from error

    def _write_tracks(self, first: int, count: int, data: Buffer) -> tuple[int, int, Buffer]:
        """Write whole tracks, of any state."""
        page = self._pages[first >> PAGE_SHIFT]
        start = first & PAGE_MASK
        if start + count <= PAGE_ENTRY_COUNT and self._arena.counts_view[page] == 1:
            index = (page << PAGE_SHIFT) + start
            physical = self._owned_run(index, count) if count <= _LIST_COUNT_MAX else 0
            if physical:
                self._pwrite(data, physical - 1 << self._shift)
                return first, count, data
            if self._write_unmapped(first, index, count, data):
                return first, count, data
        entries = self._tables.lookup(self._table, first, count)
        is_fresh = ~self._tables.owned(self._table, first, entries)
        if np.count_nonzero(is_fresh) > self._allocator.free_count and self._allocator.is_holding:
            self._parts.sync()
            is_fresh = ~self._tables.owned(self._table, first, entries)
        tracks = np.flatnonzero(is_fresh) + first
        if len(tracks):
            entries[is_fresh] = self._take(tracks)
        try:
            self._write_runs(entries, memoryview(data))
        except BaseException:
            self._allocator.give_back(entries[is_fresh])
            raise
        if len(tracks):
            self._link(tracks, entries[is_fresh])
        return first, count, data

    def _own_page(self, page_index: int) -> int:
        """Return the page at `page_index`, which is shared or held, made this volume's own. Raises PoolFullError."""
        self._parts.reserve(0, 1)
        return self._tables.own_page(self._table, page_index)

    def _owned_run(self, index: int, count: int) -> int:
        """Return the first physical track of `count` entries of an owned page if they are owned and lie in a
        row.

        0 when they do not.
        """
        entries = self._arena.view[index : index + count].tolist()
        physical: int = entries[0]
        if not physical or entries != list(range(physical, physical + count)):
            return 0
        return physical if self._counts[physical : physical + count].tobytes() == _ONES[: 2 * count] else 0

    def _write_unmapped(self, first: int, index: int, count: int, data: Buffer) -> bool:
        """Write `count` tracks whose entries, from `index` on in an owned page, are all unmapped; False if
        not.
        """
        if self._arena.entries[index : index + count].any():
            return False
        self._parts.reserve(count, 0)
        fresh = self._allocator.take(count)
        physical = int(fresh[0])
        in_a_row = count == 1 or bool((fresh[1:] - fresh[:-1] == 1).all())
        try:
            if in_a_row:
                self._pwrite(data, physical - 1 << self._shift)
            else:
                self._write_runs(fresh, memoryview(data))
        except BaseException:
            self._allocator.give_back(fresh)
            raise
        self._arena.entries[index : index + count] = fresh
        self._arena.dirty_view[index >> PAGE_SHIFT] = 1
        self._table.mapped_track_count += count
        if in_a_row:
            self._add_map(_PACK(self.number, first, physical, count))
        else:
            self._add_map(map_entries(self.number, np.arange(first, first + count), fresh))
        return True

    def _take(self, tracks: NDArray[np.intp]) -> TrackNumbers:
        """Return fresh tracks for `tracks`, with room for the pages that linking them creates."""
        self._parts.reserve(len(tracks), len(self._tables.pages_to_own(self._table, tracks)))
        return self._allocator.take(len(tracks))

    def _link(self, tracks: NDArray[np.intp], fresh: TrackNumbers) -> None:
        """Let ascending `tracks` refer to `fresh` ones, and log it."""
        self._tables.assign(self._table, tracks, fresh)
        self._add_map(map_entries(self.number, tracks, fresh))

    def _write_runs(self, physicals: TrackNumbers, data: memoryview) -> None:
        for index, count, physical in runs_of(physicals):
            piece = data[index << self._shift : index + count << self._shift]
            self._pwrite(piece, physical - 1 << self._shift)

    def _edges(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Return (offset, length) of the parts of a range that cover a track only partly."""
        end = offset + length
        head_end = self._tracks_to(offset) << self._shift
        tail_start = end & ~self._offset_mask
        if head_end > tail_start:
            return [(offset, length)]
        edges = [(offset, head_end - offset), (tail_start, end - tail_start)]
        return [edge for edge in edges if edge[1]]

    def _reserve_zero(self, edges: list[tuple[int, int]], first: int, end: int, *, allocate: bool) -> None:
        """Make sure that all of a zero request can be done before any of it is."""
        tracks = self._count_fresh(edges, first, end, allocate=allocate)
        if tracks > self._allocator.free_count and self._allocator.is_holding:
            self._parts.sync()
            tracks = self._count_fresh(edges, first, end, allocate=allocate)
        pages = 0
        if first < end:
            pages = self._tables.count_pages_to_own(self._table, first, end, creating=allocate)
        if tracks or pages:
            self._parts.reserve(tracks, pages + len(edges))

    def _count_fresh(self, edges: list[tuple[int, int]], first: int, end: int, *, allocate: bool) -> int:
        """Return how many tracks a zero request must redirect to fresh ones, or map."""
        pieces = [(start >> self._shift, 1) for start, _ in edges]
        if allocate:
            pieces += [
                (start, min(PAGE_ENTRY_COUNT, end - start)) for start in range(first, end, PAGE_ENTRY_COUNT)
            ]
        count = 0
        for start, length in pieces:
            owned = self._tables.owned(self._table, start, self._tables.lookup(self._table, start, length))
            count += length - int(np.count_nonzero(owned))
        return count

    def _store_zeros(self, first: int, count: int) -> None:
        step = len(_ZERO_BYTES) >> self._shift
        for start in range(first, first + count, step):
            piece = min(step, first + count - start)
            self._write_tracks(start, piece, memoryview(_ZERO_BYTES)[: piece << self._shift])

    def _unmap(self, first: int, count: int) -> list[tuple[int, int]]:
        """Unmap whole tracks; return the runs that were mapped."""
        runs: list[tuple[int, int]] = []
        start = first
        was_mapped = False
        for at, mapped in self._tables.mapped_runs(self._table, first, first + count):
            if was_mapped:
                runs.append((start, at - start))
            start, was_mapped = at, mapped
        if was_mapped:
            runs.append((start, first + count - start))
        if runs:
            self._tables.clear(self._table, first, count)
            if count <= MAP_ENTRY_TRACK_COUNT_MAX:
                self._add_map(_PACK(self.number, first, 0, count))
            else:
                self._log.append(RecordType.UNMAP, UNMAP.pack(self.number, first, count))
        return runs
