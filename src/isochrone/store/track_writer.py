"""Payload to fresh tracks, also on a device that fails here and there (S6).

A write that fails is tried again in halves until the tracks that cannot be written are known, so that one bad spot costs
one track. Such a track is set aside: it is not handed out before the pool is opened anew, and its data goes to another
one. What no attempt could store is told to the caller, track by track; everything else is stored.

A device without space ("no space for a while") is not a bad spot: nothing is set aside, and no other track is tried.
Attempts are counted, for each of them may take a dying device its own time-out: past the limit the rest is told as not
stored without having been tried.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

import numpy as np

from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.disk import File
from isochrone.store.entries import EntryMask
from isochrone.store.runs import pairs_of

PHYSICAL_TRACKS_TRIED_MAX: Final = 4
"""Physical tracks that one track's data is offered to before it counts as not stored."""
FAILED_WRITES_MAX: Final = 64
"""Failed writes after which one call gives the rest up."""

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, eq=False)
class Unwritten:
    """What could not be written.

    Attributes:
        failed: shape (tracks,): which of them.
        error: the device's last word.
    """

    failed: EntryMask
    error: OSError


class TrackWriter:
    """Writes to the tracks of one pool."""

    def __init__(self, tracks: File, allocator: Allocator, track_size_bytes: int) -> None:
        self._tracks = tracks
        self._allocator = allocator
        self._shift = track_size_bytes.bit_length() - 1

    def write(self, physicals: TrackNumbers, payload: memoryview) -> Unwritten | None:
        """Write payload by one call per run of neighbouring tracks; returns what could not be written, None if all was.

        Args:
            physicals: tracks taken for the payload, in order; where data went elsewhere, changed in place.
        """
        start = 0
        runs = pairs_of(physicals).tolist()
        for index, (first, count) in enumerate(runs):
            stop = start + count
            try:
                self._tracks.pwrite(
                    payload[start << self._shift : stop << self._shift], first - 1 << self._shift
                )
            except OSError as error:
                salvage = _Salvage(self._tracks, self._allocator, self._shift, physicals, payload, error)
                return salvage.run(start, [count for _, count in runs[index:]])
            start = stop
        return None


class _Salvage:
    """The rest of one call after a write has failed."""

    def __init__(
        self,
        tracks: File,
        allocator: Allocator,
        shift: int,
        physicals: TrackNumbers,
        payload: memoryview,
        error: OSError,
    ) -> None:
        self._tracks = tracks
        self._allocator = allocator
        self._shift = shift
        self._physicals = physicals
        self._payload = payload
        self._error = error
        self._failures_left = FAILED_WRITES_MAX

    def run(self, start: int, counts: list[int]) -> Unwritten | None:
        """Write the runs of `counts` neighbouring tracks that begin at index `start`."""
        failed = np.zeros(len(self._physicals), np.bool_)
        starts = np.cumsum([start, *counts[:-1]]).tolist()
        todo = list(zip(starts, counts, strict=True))[::-1]
        while todo:
            at, count = todo.pop()
            if self._failures_left <= 0:
                failed[at : at + count] = True
            elif self._try(at, count):
                continue
            elif count > 1:
                half = count // 2
                todo += [(at + half, count - half), (at, half)]
            elif not self._write_elsewhere(at):
                failed[at] = True
        return Unwritten(failed, self._error) if failed.any() else None

    def _try(self, at: int, count: int) -> bool:
        piece = self._payload[at << self._shift : at + count << self._shift]
        try:
            self._tracks.pwrite(piece, int(self._physicals[at]) - 1 << self._shift)
        except OSError as error:
            self._error = error
            self._failures_left -= 1
            return False
        return True

    def _write_elsewhere(self, at: int) -> bool:
        """Set the track at index `at` aside and write its data to others; False when none takes it."""
        for _ in range(PHYSICAL_TRACKS_TRIED_MAX - 1):
            if self._error.errno in _NO_SPACE or not self._allocator.free_count:
                return False
            if not self._allocator.quarantine(int(self._physicals[at])):
                return False
            self._physicals[at] = self._allocator.take(1)[0]
            if self._try(at, 1):
                return True
        return False
