"""Images of tracks: what a volume holds now, as records of one time."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import RECORD_STRUCT, RecordBatch, RecordKind
from isochrone.store.volume import Volume

_DATA_IMAGE: Final = int(RecordKind.DATA | RecordKind.IMAGE)
_ZERO_IMAGE: Final = int(RecordKind.ZERO | RecordKind.IMAGE)


class Images:
    """A batch of images being read, all at time `stamp_ns`."""

    def __init__(self, volume: Volume, track_size_bytes: int, stamp_ns: int) -> None:
        self._volume = volume
        self._size = track_size_bytes
        self._stamp_ns = stamp_ns
        self._headers: list[bytes] = []
        self._payload: list[bytes] = []

    def read(self, first: int, count: int) -> int:
        """Add tracks from `first` on, at most `count`; return how many: fewer when the next one cannot be read."""
        read = 0
        for _, length, mapped in self._volume.mapped_runs(first * self._size, count * self._size):
            wanted = length // self._size
            got = self._read_mapped(first + read, wanted) if mapped else wanted
            if not mapped:
                self._add(first + read, wanted, _ZERO_IMAGE)
            read += got
            if got < wanted:
                break
        return read

    def _read_mapped(self, first: int, count: int) -> int:
        """Add mapped tracks; after an error one by one, up to the one that has it."""
        try:
            content = self._volume.read(first * self._size, count * self._size)
        except OSError:
            if count == 1:
                return 0
            for index in range(count):
                if not self._read_mapped(first + index, 1):
                    return index
            return count
        self._payload.append(content)
        self._add(first, count, _DATA_IMAGE)
        return count

    def _add(self, first: int, count: int, kind: int) -> None:
        self._headers.append(RECORD_STRUCT.pack(self._stamp_ns, self._volume.number, first, count, kind))

    def batch(self) -> RecordBatch | None:
        """Return what was read; None when nothing was."""
        if not self._headers:
            return None
        headers, payload = b"".join(self._headers), b"".join(self._payload)
        time_ns = self._stamp_ns
        return RecordBatch(self._volume.number, time_ns, time_ns, len(self._headers), headers, payload)


def runs_of_tracks(tracks: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return ascending `tracks` as runs (first, count)."""
    if not len(tracks):
        return []
    breaks = np.flatnonzero(np.diff(tracks) != 1) + 1
    starts = tracks[np.concatenate(([0], breaks))]
    ends = tracks[np.concatenate((breaks, [len(tracks)])) - 1] + 1
    return [(int(a), int(b - a)) for a, b in zip(starts, ends, strict=True)]
