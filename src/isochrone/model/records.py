"""Records: captured writes as they travel from a primary to the mover.

A *record* describes one captured write, or one image read by the copier: a run of whole tracks of one volume and the
time of the write. All tracks of one write are in one record and so have one time: a cut at any time takes the whole
write or nothing of it. Records are kept as arrays of a packed numpy layout so that whole batches are handled at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

RECORD_DTYPE: Final = np.dtype(
    [("time_ns", "<u8"), ("volume", "<u4"), ("track", "<u4"), ("track_count", "<u4"), ("kind", "<u4")]
)
"""One record, 24 bytes, little endian; the same bytes in memory and on the link (docs/formats.md)."""

RECORD_STRUCT: Final = Struct("<QIIII")
"""The same layout for the capture path, which packs one record at a time."""

RecordArray = NDArray[np.void]
"""Array of shape (n,) and dtype RECORD_DTYPE."""

TRACK_COUNT_MAX: Final = 1 << 20
"""Most tracks in one record."""


MIXED_VOLUMES: Final = -1
"""In the place of a batch's volume: its records may be of several."""


def count_through(records: RecordArray, time_ns: int) -> int:
    """Return how many of `records`, whose times are non-decreasing, have a time <= `time_ns`, to the nanosecond.

    The one place where a time is looked up in an array: numpy would compare 64-bit unsigned times with a Python integer
    as floats, and those tell times of today apart by 256 ns only. A negative time is before all.
    """
    if time_ns < 0:
        return 0
    return int(np.searchsorted(records["time_ns"], np.uint64(time_ns), side="right"))


class RecordKind(IntFlag):
    """What a record carries. ZERO tracks have no payload: they read as zeros after it."""

    ZERO = 0
    DATA = 1
    IMAGE = 2
    """Set when the copier read it rather than an application wrote it; the mover orders both alike."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records captured together on one volume, in time order, with their payload; or several such, joined.

    Attributes:
        volume: number of the volume at its primary controller, or MIXED_VOLUMES.
        first_time_ns: time of the first record.
        last_time_ns: time of the last record; `first_time_ns <= last_time_ns`.
        record_count: number of records.
        headers: `record_count` packed records (RECORD_DTYPE).
        payload: track images of the DATA records, in order, back to back.
    """

    volume: int
    first_time_ns: int
    last_time_ns: int
    record_count: int
    headers: bytes
    payload: bytes

    @property
    def size_bytes(self) -> int:
        """Memory the batch is charged for in the side file."""
        return len(self.headers) + len(self.payload)
