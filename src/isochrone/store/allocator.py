"""Physical tracks: which are free, how often each is referred to, and which wait to become free.

A track is in one of three states (P10.4: linked + free + pending + quarantined = total):

- **in use**: that many table pages and staged entries refer to it as its count says; 1 means owned alone;
- **pending**: nothing refers to it any more, but what freed it is not durable yet. Were it handed out now, a
  power loss could bring back the old table, which would then point at somebody else's data;
- **free**: in the map, or taken out of the map into the *window*.

Beside these there are tracks **in quarantine**: the device could not write them. They are free again when the pool is
opened anew.

A track in use may be **held**: all but one of those that shared it have given it up, but that is not durable yet
(see `holds`). Writes go to a fresh track meanwhile.

A cursor sweeps the map (next fit), so that consecutive allocations are neighbours wherever the pool has room:
payload that arrives together goes out in few writes. Single tracks come from the window, a short list
refilled in one vectorised step; taking one is a list pop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import InternalError
from isochrone.store.holds import HELD, REFERENCES, Holds

WINDOW_TRACK_COUNT: Final = 1024
"""Tracks that the window is refilled with: amortises one refill (about 20 us) over as many writes."""

_SCAN_TRACK_COUNT_MIN: Final = 64

QUARANTINED_PART: Final = 64
"""At most one track in QUARANTINED_PART is set aside: a device that fails everywhere must not use up the pool."""
QUARANTINED_COUNT_MIN: Final = 8
"""But in a small pool that many."""

_ONE: Final = np.uint16(1)

TrackNumbers = NDArray[np.uint32]
"""Array of shape (n,): physical track numbers, 1 to track_count."""


@dataclass(slots=True, eq=False)
class Batch:
    """What a sync makes durable the giving up of.

    Attributes:
        freed: tracks that nothing refers to any more.
        held_end: tracks that were held up to this place in the order of holding.
    """

    freed: list[TrackNumbers]
    held_end: int


class Allocator:
    """The tracks of one pool.

    Attributes:
        track_count: tracks are numbered 1 to track_count; 0 means "unmapped" and is never free.
        counts: references per track, shape (track_count + 1,), uint16, and the bit HELD; exactly 1 means that it
            may be overwritten in place. No overflow: REFERENCE_COUNT_MAX bounds what all volumes together refer to.
        counts_view: the same memory for scalar access (a third of the cost of numpy indexing).
        window: free tracks taken out of the map, in descending order; `window.pop()` allocates one, and its
            taker sets the track's count to 1. The list object never changes.
        pending_count: tracks that wait for `release`.
        quarantined_count: tracks that the device could not write.
    """

    def __init__(self, track_count: int) -> None:
        self.track_count = track_count
        self.counts: NDArray[np.uint16] = np.zeros(track_count + 1, np.uint16)
        self.counts_view = self.counts.data
        self.window: list[int] = []
        self.pending_count = 0
        self.quarantined_count = 0
        self._pending: list[TrackNumbers] = []
        self._holds = Holds()
        self._map_bytes = bytearray(track_count + 1)
        self._map: NDArray[np.bool_] = np.frombuffer(self._map_bytes, np.bool_)
        self._map_free_count = 0
        self._cursor = 1

    @property
    def free_count(self) -> int:
        """Tracks that can be allocated at once."""
        return self._map_free_count + len(self.window)

    @property
    def used_count(self) -> int:
        """Tracks that tables or staged entries refer to."""
        return self.track_count - self.free_count - self.pending_count - self.quarantined_count

    def rebuild(self) -> None:
        """Make every track free whose count is 0. For a pool whose whole state is durable: nothing is
        pending, nor held.
        """
        np.equal(self.counts, 0, out=self._map)
        self._map[0] = False
        self._map_free_count = int(np.count_nonzero(self._map))
        self.window.clear()
        self._pending.clear()
        self.pending_count = 0
        self.quarantined_count = 0
        self._holds.clear()
        self._cursor = 1

    def refill(self) -> bool:
        """Fill the empty window from the map. False when no track is free."""
        tracks = self._sweep(min(WINDOW_TRACK_COUNT, self._map_free_count))
        self.window.extend(tracks[::-1].tolist())
        return bool(self.window)

    def take(self, count: int) -> TrackNumbers:
        """Allocate `count` tracks, in ascending order per sweep of the map, each with a count of 1.

        The caller has made sure that `free_count >= count`; InternalError otherwise.
        """
        if count > self.free_count:
            raise InternalError(f"{count} tracks taken of {self.free_count} free: please report this")
        tracks = self._sweep(min(count, self._map_free_count))
        missing = count - len(tracks)
        if missing:
            from_window = [self.window.pop() for _ in range(missing)]
            tracks = np.concatenate([tracks, np.array(from_window, np.uint32)])
        self.counts[tracks] = 1
        return tracks

    def give_back(self, tracks: TrackNumbers) -> None:
        """Return tracks that were taken but that nothing ever referred to."""
        self.counts[tracks] = 0
        self._map[tracks] = True
        self._map_free_count += len(tracks)

    def quarantine(self, track: int) -> bool:
        """Do not hand a track that was taken, and that nothing refers to, out again; False when too many are set aside."""
        if self.quarantined_count >= max(QUARANTINED_COUNT_MIN, self.track_count // QUARANTINED_PART):
            return False
        self.counts[track] = 0
        self.quarantined_count += 1
        return True

    def share(self, tracks: TrackNumbers) -> None:
        """Count one more reference to each of `tracks`, which may repeat; 0 among them is ignored."""
        np.add.at(self.counts, tracks, _ONE)
        self.counts_view[0] = 0

    def drop(self, tracks: TrackNumbers) -> int:
        """Count one reference less to each of `tracks` (distinct). Returns how many are pending now because
        of it; those with one reference left are held.
        """
        return self._counted(tracks, self.counts[tracks] - _ONE)

    def drop_repeated(self, tracks: TrackNumbers) -> int:
        """Do the same for tracks that may repeat: one reference less each time."""
        distinct, times = np.unique(tracks, return_counts=True)
        return self._counted(distinct, self.counts[distinct] - times.astype(np.uint16))

    def _counted(self, tracks: TrackNumbers, counts: NDArray[np.uint16]) -> int:
        """Set smaller counts; see `drop`."""
        self.counts[tracks] = counts
        references = counts & REFERENCES
        gone = tracks[references == 0]
        if len(gone):
            self.counts[gone] = 0
            self._pending.append(gone)
            self.pending_count += len(gone)
        if len(gone) < len(tracks):
            self._holds.hold(self.counts, tracks[references == 1])
        return len(gone)

    def drop_one(self, track: int) -> None:
        """Count one reference less to a track, as `drop` does."""
        references = (self.counts_view[track] & ~HELD) - 1
        if references == 1:
            self.counts_view[track] = HELD | 1
            self._holds.note(track)
        elif references:
            self.counts_view[track] -= 1
        else:
            self.drop(np.array([track], np.uint32))

    def hold_owned(self, tracks: TrackNumbers) -> None:
        """Hold those of `tracks` that have one reference: the page that is it was shared till now."""
        self._holds.hold(self.counts, tracks[self.counts[tracks] & REFERENCES == 1])

    @property
    def is_holding(self) -> bool:
        """Whether some track is held."""
        return bool(self._holds)

    def take_pending(self) -> Batch:
        """Return all that is pending or held as a batch for `release` or `put_back`; it counts as such still."""
        batch = Batch(self._pending, self._holds.end())
        self._pending = []
        return batch

    def put_back(self, batch: Batch) -> None:
        """Undo `take_pending`: what gave the tracks up did not become durable."""
        self._pending = batch.freed + self._pending

    def release(self, batch: Batch) -> None:
        """What gave the tracks of a batch up is durable: those that are pending become free, no other is held.

        Tracks that were held again since stay held.
        """
        for tracks in batch.freed:
            self._map[tracks] = True
            self._map_free_count += len(tracks)
            self.pending_count -= len(tracks)
        self._holds.release(self.counts, batch.held_end)

    def free_map(self) -> NDArray[np.bool_]:
        """Return a copy of the map with the window in it: shape (track_count + 1,)."""
        free = self._map.copy()
        free[self.window] = True
        return free

    def references(self) -> NDArray[np.uint16]:
        """Return the references of each track, held or not: shape (track_count + 1,)."""
        references: NDArray[np.uint16] = self.counts & REFERENCES
        return references

    def held_tracks(self) -> TrackNumbers:
        """Return the tracks that were given up to one reference and still have it, in ascending order."""
        return self._holds.numbers(self.counts)

    def pending_tracks(self) -> TrackNumbers:
        """Return the pending tracks that are not in a batch taken by `take_pending`."""
        return np.concatenate([np.empty(0, np.uint32), *self._pending])

    def size_bytes(self) -> int:
        """Memory of counts, map, and lists of pending and held tracks."""
        return self.counts.nbytes + len(self._map_bytes) + 4 * (self.pending_count + len(self._holds))

    def _sweep(self, count: int) -> TrackNumbers:
        """Take `count` tracks from the map, which has them, from the cursor on."""
        parts: list[NDArray[np.intp]] = []
        need = count
        scan = max(_SCAN_TRACK_COUNT_MIN, count)
        while need:
            start = self._map_bytes.find(1, self._cursor)
            if start < 0:
                self._cursor = 1
                continue
            hits = np.flatnonzero(self._map[start : start + scan])[:need] + start
            self._map[hits] = False
            parts.append(hits)
            need -= len(hits)
            self._cursor = int(hits[-1]) + 1
            scan *= 2
        self._map_free_count -= count
        return np.concatenate(parts).astype(np.uint32) if parts else np.empty(0, np.uint32)
