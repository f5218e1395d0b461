"""A file of history: pieces of kept entries that will not change any more, written once.

A history of many millions of entries is neither rewritten with each checkpoint nor kept in memory: what has come together is
*sealed* into a file by a checkpoint, which the root then names; from then on a piece is read when somebody needs it. The
file goes when no piece of it is wanted and a root that does not name it is durable.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError
from isochrone.model.records import RECORD_DTYPE
from isochrone.store.disk import Disk, File
from isochrone.store.kept_entries import Piece
from isochrone.store.parts import open_part
from isochrone.store.staging import Chunk

HISTORY_FILE_PREFIX: Final = "history-"

_MAGIC: Final = b"ISOCHIST"
_HEADER: Final = Struct("<8s16sQQ")
"""magic, pool uuid, number of the file, piece count."""
_PIECE: Final = Struct("<QIIQQQQ")
"""offset, records, tracks, entries, oldest_ns, newest_ns, xxh3 of the piece."""
_CHECKSUM: Final = Struct("<Q")
_TRACK_BYTES: Final = 4


class PieceEntry(NamedTuple):
    """What the index of a file says of a piece."""

    offset: int
    record_count: int
    track_count: int
    entry_count: int
    oldest_ns: int
    newest_ns: int
    checksum: int


def history_file_name(number: int) -> str:
    """Return the name of a file in the pool's folder."""
    return f"{HISTORY_FILE_PREFIX}{number:012}"


class HistoryFile:
    """One file, written or about to be.

    Attributes:
        number: never used for another file.
        index: what it holds.
        checksum: xxh3 of header and index; the root repeats it.
    """

    def __init__(self, disk: Disk, uuid: bytes, number: int) -> None:
        self._disk = disk
        self._uuid = uuid
        self.number = number
        self.name = history_file_name(number)
        self.index: list[PieceEntry] = []
        self.checksum = 0

    def write(self, file: File, pieces: list[Chunk]) -> None:
        """Write all of it; the caller makes it durable, and its name."""
        self.index.clear()
        offset = _HEADER.size + len(pieces) * _PIECE.size + _CHECKSUM.size
        for chunk in pieces:
            records, tracks = chunk.records.tobytes(), chunk.physicals.astype("<u4", copy=False).tobytes()
            times = chunk.records["time_ns"]
            self.index.append(
                PieceEntry(
                    offset,
                    len(chunk.records),
                    len(chunk.physicals),
                    chunk.entry_count,
                    int(times.min()),
                    int(times.max()),
                    xxh3_64_intdigest(records + tracks),
                )
            )
            file.pwritev([records, tracks], offset)
            offset += len(records) + len(tracks)
        head = _HEADER.pack(_MAGIC, self._uuid, self.number, len(self.index))
        head += b"".join(_PIECE.pack(*entry) for entry in self.index)
        self.checksum = xxh3_64_intdigest(head)
        file.pwrite(head + _CHECKSUM.pack(self.checksum), 0)

    def load(self, checksum: int) -> None:
        """Read header and index, as a root names it; DamagedError when they are not what was written."""
        file = open_part(self._disk, self.name)
        try:
            magic, uuid, number, count = _HEADER.unpack(file.pread(_HEADER.size, 0))
            if (magic, uuid, number) != (_MAGIC, self._uuid, self.number):
                raise self._damaged(0, "it does not begin like the file that the root names")
            size = _HEADER.size + count * _PIECE.size
            if size + _CHECKSUM.size > file.size_bytes():
                raise self._damaged(_HEADER.size, "its index goes beyond its end")
            head = file.pread(size + _CHECKSUM.size, 0)
        finally:
            file.close()
        if xxh3_64_intdigest(head[:size]) != checksum or head[size:] != _CHECKSUM.pack(checksum):
            raise self._damaged(size, "the checksum of its index does not match")
        self.checksum = checksum
        self.index = [PieceEntry(*entry) for entry in _PIECE.iter_unpack(head[_HEADER.size : size])]

    def read(self, place: int) -> Chunk:
        """Return the piece at `place`, in any thread. Raises DamagedError, or OSError."""
        entry = self.index[place]
        record_bytes = entry.record_count * RECORD_DTYPE.itemsize
        file = open_part(self._disk, self.name)
        try:
            data = file.pread(record_bytes + entry.track_count * _TRACK_BYTES, entry.offset)
        finally:
            file.close()
        if xxh3_64_intdigest(data) != entry.checksum:
            raise self._damaged(entry.offset, "a piece contradicts its checksum")
        records = np.frombuffer(data, RECORD_DTYPE, entry.record_count)
        return Chunk(records, np.frombuffer(data, "<u4", entry.track_count, record_bytes).astype(np.uint32))

    def piece(self, place: int) -> Piece:
        """Return the piece at `place`, to be read when it is looked into."""
        if place >= len(self.index):
            raise self._damaged(0, f"the root names piece {place} of {len(self.index)}")
        entry = self.index[place]
        return Piece.at(
            (self, place),
            entry.record_count,
            entry.track_count,
            entry.entry_count,
            entry.oldest_ns,
            entry.newest_ns,
        )

    def _damaged(self, offset: int, what: str) -> DamagedError:
        return DamagedError(
            f"{self.name}, byte {offset}: {what}; the history of a session cannot be trusted, nor which tracks are free: "
            "recover the pool's volumes from the other site and keep the folder for inspection",
            file=self.name,
            offset=offset,
        )
