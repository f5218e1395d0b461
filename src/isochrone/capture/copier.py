"""The copier: images of tracks that the secondary lacks, put into the same ordered stream as writes (S2).

Initial copy and resync are one thing: the tracks to copy are the marked ones. The rule for a write to a track:

1. still to be copied: the write is not sent; the image to come contains it. Its mark stays.
2. copied, or never to be copied: the write is sent after the image, in order of time.

S2's READING and WRITING cases cannot occur: reading an image, stamping it and putting it into the stream is one step
that no write can come between, so an image with time t contains exactly the writes before t.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import RECORD_STRUCT, RecordBatch, RecordKind
from isochrone.store.volume import Volume

SCAN_TRACKS: Final = 1 << 16
"""Tracks searched at a time for the next one to copy."""


_DATA_IMAGE: Final = int(RecordKind.DATA | RecordKind.IMAGE)
_ZERO_IMAGE: Final = int(RecordKind.ZERO | RecordKind.IMAGE)


class Copier:
    """What is still to be copied of one volume for one session.

    Attributes:
        remaining: tracks whose image is still to be read.
        to_copy: one byte a track, 1 = still to be copied; for the capture path's test.
    """

    __slots__ = ("_cursor", "_flags", "_track_size_bytes", "_volume", "remaining", "to_copy")

    def __init__(self, volume: Volume, tracks: NDArray[np.bool_], track_size_bytes: int) -> None:
        """`tracks`, shape (volume.track_count,): which to copy."""
        self._volume = volume
        self._track_size_bytes = track_size_bytes
        self.to_copy = bytearray(tracks.astype(np.uint8).tobytes())
        self._flags: NDArray[np.uint8] = np.frombuffer(self.to_copy, dtype=np.uint8)
        self.remaining = int(np.count_nonzero(self._flags))
        self._cursor = 0

    def sendable_runs(self, track: int, track_count: int) -> list[tuple[int, int]]:
        """Return the parts of a written run that must be sent (rule 2), as (track, count)."""
        flags = self._flags[track : track + track_count]
        if not flags.any():
            return [(track, track_count)]
        edges = np.flatnonzero(np.diff(flags, prepend=np.uint8(1), append=np.uint8(1)))
        return [(track + int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def step(self, stamp_ns: int, tracks_max: int) -> RecordBatch | None:
        """Read the next images and return them as one batch of records at time `stamp_ns`; None when none remain.

        The caller must put the batch into the stream before it takes another write. Raises OSError when a track cannot
        be read; nothing is then counted as copied.
        """
        runs = self._next_runs(tracks_max)
        if not runs:
            return None
        headers: list[bytes] = []
        payload: list[bytes] = []
        number = self._volume.number
        size = self._track_size_bytes
        for first, count in runs:
            for offset, length, mapped in self._volume.mapped_runs(first * size, count * size):
                kind = _ZERO_IMAGE
                if mapped:
                    kind = _DATA_IMAGE
                    payload.append(self._volume.read(offset, length))
                headers.append(RECORD_STRUCT.pack(stamp_ns, number, offset // size, length // size, kind))
        for first, count in runs:
            self._flags[first : first + count] = 0
            self.remaining -= count
        return RecordBatch(number, stamp_ns, stamp_ns, len(headers), b"".join(headers), b"".join(payload))

    def _next_runs(self, tracks_max: int) -> list[tuple[int, int]]:
        """Return runs of tracks to copy from the cursor on, at most `tracks_max` tracks in all."""
        total = len(self._flags)
        while self.remaining:
            window = self._flags[self._cursor : self._cursor + SCAN_TRACKS]
            tracks = np.flatnonzero(window)[:tracks_max]
            if len(tracks):
                tracks += self._cursor
                breaks = np.flatnonzero(np.diff(tracks) != 1) + 1
                starts = tracks[np.concatenate(([0], breaks))]
                ends = tracks[np.concatenate((breaks, [len(tracks)])) - 1] + 1
                self._cursor = int(ends[-1])
                return [(int(a), int(b - a)) for a, b in zip(starts, ends, strict=True)]
            self._cursor += SCAN_TRACKS
            if self._cursor >= total:
                self._cursor = 0
        return []
