"""Committed entries that are kept: a long sequence in the order of commits, held as pieces of bounded size.

Entries are as compact as they were staged (24 bytes a record, 4 bytes a track with payload). Small commits share a piece, so
that a piece costs nothing to speak of beside what is in it. What is in a piece never changes: it only grows at its end, so a
checkpoint or a thread may go on looking at what was there.

Times nearly ascend, but not quite: several sources are committed one after the other, and what a source sent late comes
behind later entries. So what is up to a time is found by looking at times, never by counting.

A checkpoint seals pieces into a file (see `history_file`); then they take no memory, and do not grow any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import RECORD_DTYPE, RecordArray
from isochrone.store.allocator import TrackNumbers
from isochrone.store.staging import Chunk, data_track_counts

PIECE_ENTRY_COUNT_MAX: Final = 1 << 15
"""A piece takes more entries until it has this many, or this many records; a single record may have more."""


def pick(chunk: Chunk, mask: NDArray[np.bool_]) -> Chunk:
    """Return the records of `chunk` in `mask` (shape (records,)) with their tracks, in order."""
    physicals = np.repeat(mask, data_track_counts(chunk.records))
    words = _words(chunk.records).reshape(-1, 3)[mask]
    return Chunk(words.reshape(-1).view(RECORD_DTYPE), chunk.physicals[physicals])


class SealedPlace(Protocol):
    """A file that pieces were sealed into."""

    number: int

    def read(self, place: int) -> Chunk:
        """Return the piece at a place, in any thread. Raises DamagedError, or OSError."""
        ...


class Piece:
    """Some kept entries in order.

    Attributes:
        record_count, entry_count, track_count: records, tracks that they cover, and tracks that hold payload.
        oldest_ns, newest_ns: least and greatest time.
        place: the file that it is in, or is being written to, and where in it; None while it is in memory only and may grow.
    """

    def __init__(self, chunk: Chunk, entry_count: int) -> None:
        """Take over a chunk of at least one record; its arrays are not copied."""
        self._content: Chunk | None = chunk
        self.record_count = len(chunk.records)
        self.entry_count = entry_count
        self.track_count = len(chunk.physicals)
        self.oldest_ns, self.newest_ns = _span(chunk.records)
        self.place: tuple[SealedPlace, int] | None = None

    @classmethod
    def at(
        cls,
        place: tuple[SealedPlace, int],
        record_count: int,
        track_count: int,
        entry_count: int,
        oldest_ns: int,
        newest_ns: int,
    ) -> Piece:
        """Return a piece that is in a file."""
        piece = cls.__new__(cls)
        piece._content = None
        piece.record_count, piece.track_count, piece.entry_count = record_count, track_count, entry_count
        piece.oldest_ns, piece.newest_ns = oldest_ns, newest_ns
        piece.place = place
        return piece

    @property
    def chunk(self) -> Chunk:
        """What is in it now; read from its file when it is not in memory: raises DamagedError, or OSError."""
        return self.part(0, 0, self.record_count, self.track_count)

    def part(self, record_start: int, track_start: int, record_end: int, track_end: int) -> Chunk:
        """Return records and tracks between places that were ends of it once, in any thread. Raises as `chunk` does."""
        content = self._content
        if content is None:
            assert self.place is not None
            content = self.place[0].read(self.place[1])
        return Chunk(content.records[record_start:record_end], content.physicals[track_start:track_end])

    def forget_content(self) -> None:
        """It is in its file, durable: memory is not needed for it any more."""
        self._content = None

    def has_room(self, chunk: Chunk, entry_count: int) -> bool:
        """Whether `append` may take `chunk`."""
        return (
            self.place is None
            and self.entry_count + entry_count <= PIECE_ENTRY_COUNT_MAX
            and self.record_count + len(chunk.records) <= PIECE_ENTRY_COUNT_MAX
        )

    def append(self, chunk: Chunk, entry_count: int) -> None:
        """Add a copy of what is in `chunk`, at least one record."""
        content = self._content
        assert content is not None
        record_end = self.record_count + len(chunk.records)
        track_end = self.track_count + len(chunk.physicals)
        if record_end > len(content.records) or track_end > len(content.physicals):
            content = self._content = Chunk(
                _grown(_words(content.records), 3 * self.record_count, 3 * PIECE_ENTRY_COUNT_MAX).view(
                    RECORD_DTYPE
                ),
                _grown(content.physicals, self.track_count, PIECE_ENTRY_COUNT_MAX),
            )
        _words(content.records[self.record_count : record_end])[:] = _words(chunk.records)
        content.physicals[self.track_count : track_end] = chunk.physicals
        oldest_ns, newest_ns = _span(chunk.records)
        self.oldest_ns, self.newest_ns = min(self.oldest_ns, oldest_ns), max(self.newest_ns, newest_ns)
        self.record_count, self.track_count = record_end, track_end
        self.entry_count += entry_count


class KeptEntries:
    """Kept entries of one history, in the order in which they were committed.

    Attributes:
        pieces: none is empty.
        record_count, entry_count, track_count: of all pieces.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.record_count = 0
        self.entry_count = 0
        self.track_count = 0

    def add(self, chunk: Chunk) -> None:
        """Append entries; `chunk` may be changed or kept by nobody else from now on."""
        for part, entry_count in _bounded(chunk):
            if self.pieces and self.pieces[-1].has_room(part, entry_count):
                self.pieces[-1].append(part, entry_count)
            else:
                self.pieces.append(Piece(part, entry_count))
            self._count(len(part.records), entry_count, len(part.physicals))

    def through(self, time_ns: int, first_piece: int = 0) -> Iterator[Chunk]:
        """Yield what has a time <= time_ns, piece by piece from `first_piece` on, in order."""
        for piece in self.pieces[first_piece:]:
            early = early_part(piece, time_ns)
            if early is not None:
                yield early

    def take_through(self, time_ns: int) -> list[Chunk]:
        """Remove and return what has a time <= time_ns."""
        taken: list[Chunk] = []
        kept: list[Piece] = []
        for piece in self.pieces:
            if piece.oldest_ns > time_ns:
                kept.append(piece)
            elif piece.newest_ns <= time_ns:
                taken.append(piece.chunk)
            else:
                early, late = _parts(piece, time_ns)
                taken.append(early)
                kept.append(Piece(late, late.entry_count))
        self._keep(kept)
        return taken

    def take_after(self, time_ns: int) -> list[Piece]:
        """Remove and return what has a time > time_ns."""
        taken: list[Piece] = []
        kept: list[Piece] = []
        for piece in self.pieces:
            if piece.oldest_ns > time_ns:
                taken.append(piece)
            elif piece.newest_ns <= time_ns:
                kept.append(piece)
            else:
                early, late = _parts(piece, time_ns)
                kept.append(Piece(early, early.entry_count))
                taken.append(Piece(late, late.entry_count))
        self._keep(kept)
        return taken

    def take_first(self, record_count: int) -> list[Chunk]:
        """Remove and return the first `record_count` records, or all when there are fewer."""
        taken: list[Chunk] = []
        kept: list[Piece] = []
        left = record_count
        for piece in self.pieces:
            if left >= piece.record_count:
                taken.append(piece.chunk)
            elif left > 0:
                first = np.arange(piece.record_count) < left
                taken.append(pick(piece.chunk, first))
                rest = pick(piece.chunk, ~first)
                kept.append(Piece(rest, rest.entry_count))
            else:
                kept.append(piece)
            left -= min(left, piece.record_count)
        self._keep(kept)
        return taken

    def take_all(self) -> list[Piece]:
        """Remove and return everything."""
        taken = self.pieces
        self._keep([])
        return taken

    def extend(self, pieces: list[Piece]) -> None:
        """Append pieces as they are."""
        self.pieces += pieces
        for piece in pieces:
            self._count(piece.record_count, piece.entry_count, piece.track_count)

    def time_of(self, record_count: int) -> int:
        """Return a time up to which there are about `record_count` records, at least one, not more than times demand.

        There are that many. It is the last of the first piece if that has nearly as many and nothing in the next one is as
        old: whole pieces are not split.
        """
        first, *others = self.pieces[:2]
        is_apart = all(other.oldest_ns >= first.newest_ns for other in others)
        if is_apart and record_count // 2 < first.record_count <= record_count:
            return first.newest_ns
        found = 0
        times: list[NDArray[np.uint64]] = []
        for piece in self.pieces:
            times.append(piece.chunk.records["time_ns"])
            found += piece.record_count
            if found >= record_count:
                break
        return int(np.partition(np.concatenate(times), record_count - 1)[record_count - 1])

    def tracks(self) -> Iterator[TrackNumbers]:
        """Yield the tracks of all entries, each counted once by being here, in bounded arrays."""
        for piece in self.pieces:
            yield piece.chunk.physicals

    def _keep(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.record_count = sum(piece.record_count for piece in pieces)
        self.entry_count = sum(piece.entry_count for piece in pieces)
        self.track_count = sum(piece.track_count for piece in pieces)

    def _count(self, record_count: int, entry_count: int, track_count: int) -> None:
        self.record_count += record_count
        self.entry_count += entry_count
        self.track_count += track_count


def early_part(piece: Piece, time_ns: int) -> Chunk | None:
    """Return what of a piece has a time <= time_ns, None when nothing has."""
    if piece.oldest_ns > time_ns:
        return None
    return piece.chunk if piece.newest_ns <= time_ns else early_of(piece.chunk, time_ns)


def early_of(chunk: Chunk, time_ns: int) -> Chunk:
    """Return what of a chunk has a time <= time_ns."""
    early = chunk.records["time_ns"] <= time_ns
    return chunk if early.all() else pick(chunk, early)


def _bounded(chunk: Chunk) -> list[tuple[Chunk, int]]:
    """Return a chunk in parts that a piece may hold, each with its number of entries; none is empty."""
    entry_count = chunk.entry_count
    if entry_count <= PIECE_ENTRY_COUNT_MAX:
        return [(chunk, entry_count)] if entry_count else []
    counts = chunk.records["track_count"]
    ends = np.cumsum(counts, dtype=np.int64)
    tracks = np.concatenate([[0], np.cumsum(data_track_counts(chunk.records), dtype=np.int64)])
    starts = np.flatnonzero(np.diff((ends - counts) // PIECE_ENTRY_COUNT_MAX, prepend=-1)).tolist()
    parts = []
    for start, stop in zip(starts, [*starts[1:], len(counts)], strict=True):
        part = Chunk(chunk.records[start:stop], chunk.physicals[tracks[start] : tracks[stop]])
        parts.append((part, part.entry_count))
    return parts


def _parts(piece: Piece, time_ns: int) -> tuple[Chunk, Chunk]:
    chunk = piece.chunk
    early = chunk.records["time_ns"] <= time_ns
    return pick(chunk, early), pick(chunk, ~early)


def _span(records: RecordArray) -> tuple[int, int]:
    times = records["time_ns"]
    return int(times.min()), int(times.max())


def _words(records: RecordArray) -> NDArray[np.uint64]:
    """Return contiguous records as three words each, which numpy copies ten times as fast."""
    return records.view(np.uint64)


def _grown(array: NDArray[Any], used: int, count: int) -> NDArray[Any]:
    """Return an array of `count` items that begins with the first `used`; nobody who looks at the old one is disturbed.

    What is not used yet is not touched, and takes no memory.
    """
    if count <= len(array):
        return array
    grown: NDArray[Any] = np.empty(count, array.dtype)
    grown[:used] = array[:used]
    return grown


assert RECORD_DTYPE.itemsize == 3 * np.dtype(np.uint64).itemsize
