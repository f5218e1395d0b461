"""The copier: images of tracks that the secondary lacks, put into the same ordered stream as writes (S2).

Initial copy and resync are one thing: the tracks to copy are the marked ones. The rule for a write to a track:

1. still to be copied: the write is not sent; the image to come contains it. Its mark stays.
2. copied, or never to be copied: the write is sent after the image, in order of time.

S2's READING and WRITING cases cannot occur: reading an image, stamping it and putting it into the stream is one step
that no write can come between, so an image with time t contains exactly the writes before t.

A track has one of five states, and rule 1 holds in all but the first::

    SUSPECTED --asked--> ASKED --"equal"--> DONE
        ^                 | |                 ^
        +---link lost-----+ +--"differs"--+   |
    any but DONE --written----------------+-> COPY --read--> DONE
    any that is read, and cannot be ------------> UNREADABLE --read after all--> DONE

A suspected track (see change_map.py) is compared before it is sent: its hash goes to the mover, ordered with the records.
"Equal" counts only if nothing was written to the track since it was hashed, and a write says so by making it COPY. Then both
sides hold the same, and the next write is captured like any other: rule 2.

A track that the device cannot read is left out, so that the rest is copied; it is tried again now and then, and read at once
when a write gives it new content. The copy is not complete before it was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.capture.images import Images, runs_of_tracks
from isochrone.model.records import RecordBatch
from isochrone.store.volume import Volume

SCAN_TRACKS: Final = 1 << 16
"""Tracks searched at a time for the next one to copy."""

DONE: Final = 0
COPY: Final = 1
SUSPECTED: Final = 2
ASKED: Final = 3
UNREADABLE: Final = 4
_STATE_COUNT: Final = 5

REREAD_TRACKS_MAX: Final = 8
"""Unreadable tracks tried at a time: each may cost the device seconds."""
REREAD_NS_MIN: Final = 1_000_000_000
REREAD_NS_MAX: Final = 60_000_000_000
"""Between two tries: doubled while nothing can be read, the least again once something can."""

Runs = list[tuple[int, int]]
"""(first track, count), ascending and apart."""


@dataclass(slots=True)
class CompareCount:
    """What comparing has found: tracks compared, and how many of them were equal and not sent."""

    compared: int = 0
    equal: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Tracks whose hashes are on their way to the mover: runs, and 16 bytes a track."""

    runs: Runs
    hashes: bytes


class Copier:
    """What is still to be copied of one volume for one session.

    Attributes:
        to_copy: one byte a track: its state; not DONE means that its writes are not sent.
        compare_count: kept up to date here.
    """

    __slots__ = (
        "_counts",
        "_cursors",
        "_flags",
        "_reread_at_ns",
        "_reread_ns",
        "_track_size_bytes",
        "_unreadable",
        "_volume",
        "compare_count",
        "to_copy",
    )

    def __init__(
        self,
        volume: Volume,
        tracks: NDArray[np.bool_],
        track_size_bytes: int,
        suspected: NDArray[np.bool_] | None = None,
        compare_count: CompareCount | None = None,
    ) -> None:
        """`tracks`, shape (volume.track_count,): which to copy; those also in `suspected` only if they differ."""
        self._volume = volume
        self._track_size_bytes = track_size_bytes
        # All in passes that cost a fraction of a nanosecond a track: applications wait, and a volume may have a billion.
        self.to_copy = bytearray(len(tracks))
        self._flags: NDArray[np.uint8] = np.frombuffer(self.to_copy, dtype=np.uint8)
        self._flags[:] = tracks
        copy_count, suspected_count = int(np.count_nonzero(tracks)), 0
        if suspected is not None:
            both = tracks & suspected
            suspected_count = int(np.count_nonzero(both))
            np.copyto(self._flags, np.uint8(SUSPECTED), where=both)
        self._counts = np.zeros(_STATE_COUNT, np.int64)
        self._counts[DONE] = len(tracks) - copy_count
        self._counts[COPY] = copy_count - suspected_count
        self._counts[SUSPECTED] = suspected_count
        self._cursors = [0] * _STATE_COUNT
        self._reread_at_ns = 0
        self._reread_ns = REREAD_NS_MIN
        self._unreadable: Runs | None = []
        self.compare_count = compare_count or CompareCount()

    @property
    def remaining(self) -> int:
        """Tracks whose image is still to be read, or proved needless."""
        return len(self._flags) - int(self._counts[DONE])

    @property
    def has_images(self) -> bool:
        """Whether `step` has something to read."""
        return bool(self._counts[COPY])

    @property
    def has_suspects(self) -> bool:
        """Whether `ask` has something to hash."""
        return bool(self._counts[SUSPECTED])

    @property
    def unreadable_count(self) -> int:
        """Tracks that could not be read."""
        return int(self._counts[UNREADABLE])

    def unreadable_runs(self, runs_max: int) -> Runs:
        """Return the first runs of tracks that could not be read."""
        if self._unreadable is None:
            self._unreadable = runs_of_tracks(np.flatnonzero(self._flags == UNREADABLE))
        return self._unreadable[:runs_max]

    def sendable_runs(self, track: int, track_count: int) -> Runs:
        """Take note of a written run; return the parts of it that must be sent (rule 2)."""
        flags = self._flags[track : track + track_count]
        if not flags.any():
            return [(track, track_count)]
        if flags.max() > COPY:
            self._enter(np.flatnonzero(flags > COPY) + track, COPY)
        edges = np.flatnonzero(np.diff(flags, prepend=np.uint8(1), append=np.uint8(1)))
        return [(track + int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    # Images

    def step(self, stamp_ns: int, tracks_max: int) -> RecordBatch | None:
        """Read the next images and return them as one batch of records at time `stamp_ns`; None when there is none.

        The caller must put the batch into the stream before it takes another write. A step ends at the first track that
        cannot be read.
        """
        images = Images(self._volume, self._track_size_bytes, stamp_ns)
        for first, count in runs_of_tracks(self._next(COPY, tracks_max)):
            read = images.read(first, count)
            self._enter(slice(first, first + read), DONE)
            if read < count:
                self._give_up(np.array([first + read]), stamp_ns)
                break
        return images.batch()

    def reread(self, stamp_ns: int) -> RecordBatch | None:
        """Try a few unreadable tracks again if it is time to; as `step`."""
        if not self._counts[UNREADABLE] or stamp_ns < self._reread_at_ns:
            return None
        images = Images(self._volume, self._track_size_bytes, stamp_ns)
        for track in self._next(UNREADABLE, REREAD_TRACKS_MAX).tolist():
            if images.read(track, 1):
                self._enter(slice(track, track + 1), DONE)
        batch = images.batch()
        self._reread_ns = min(2 * self._reread_ns, REREAD_NS_MAX) if batch is None else REREAD_NS_MIN
        self._reread_at_ns = stamp_ns + self._reread_ns
        return batch

    def _give_up(self, tracks: NDArray[np.int64], now_ns: int) -> None:
        """Leave out tracks that cannot be read."""
        if not self._counts[UNREADABLE]:
            self._reread_ns = REREAD_NS_MIN
            self._reread_at_ns = now_ns + self._reread_ns
        self._enter(tracks, UNREADABLE)

    # Comparison

    def ask(self, now_ns: int, tracks_max: int, seed: int) -> Asked | None:
        """Hash the next suspected tracks for a query; None when none of them could be read."""
        tracks = self._next(SUSPECTED, tracks_max)
        hashes: list[bytes] = []
        asked = np.ones(len(tracks), np.bool_)
        at = 0
        for first, count in runs_of_tracks(tracks):
            found = self._volume.hash_tracks(first, count, seed)
            hashes += [found[index] for index in range(count) if index not in found.unreadable]
            asked[[at + index for index in found.unreadable]] = False
            at += count
        if not asked.all():
            self._give_up(tracks[~asked], now_ns)
        tracks = tracks[asked]
        self._enter(tracks, ASKED)
        return Asked(runs_of_tracks(tracks), b"".join(hashes)) if len(tracks) else None

    def answered(self, tracks: NDArray[np.int64], differs: NDArray[np.bool_]) -> None:
        """The mover has compared `tracks` with what it holds. Those written since they were asked for stay to be copied."""
        is_asked = self._flags[tracks] == ASKED
        equal = tracks[is_asked & ~differs]
        self._enter(equal, DONE)
        self._enter(tracks[is_asked & differs], COPY)
        self.compare_count.compared += len(tracks)
        self.compare_count.equal += len(equal)

    def ask_again(self, tracks: NDArray[np.int64]) -> None:
        """No answer will come for `tracks`."""
        self._enter(tracks[self._flags[tracks] == ASKED], SUSPECTED)

    # States

    def _enter(self, tracks: NDArray[np.int64] | slice, state: int) -> None:
        """Put `tracks` into `state`."""
        before = np.bincount(self._flags[tracks], minlength=_STATE_COUNT)
        self._counts -= before
        self._counts[state] += before.sum()
        if before[UNREADABLE] or state == UNREADABLE:
            self._unreadable = None
        self._flags[tracks] = state

    def _next(self, state: int, tracks_max: int) -> NDArray[np.int64]:
        """Return the next tracks in `state`, from where the last search for it ended; empty when there are none."""
        total = len(self._flags)
        while self._counts[state]:
            cursor = self._cursors[state]
            tracks = np.flatnonzero(self._flags[cursor : cursor + SCAN_TRACKS] == state)[:tracks_max]
            if len(tracks):
                tracks += cursor
                self._cursors[state] = int(tracks[-1]) + 1
                return tracks
            self._cursors[state] = cursor + SCAN_TRACKS if cursor + SCAN_TRACKS < total else 0
        return np.empty(0, np.int64)
