"""Tracks that wait: they came from a primary, and the device here would not take them (S6).

Situation: one bad spot, or a device without space for a while, must neither suspend a session nor stop the other tracks.
So what cannot be stored stays here, in memory, and is tried again until it is stored or the session's budget is used up.

Two rules keep the image true:

- *A record takes its place in the order of times*, however late it is stored (see `staging`). So later records of the
  same track need not wait for it, and an older image never overwrites a newer one. None is dropped for a later one: an
  image of a time between them could be wanted.
- *A promise ends before the oldest record that waits.* F, J, C, what is logged as staged and what the primary is told
  all stop there (`Source.through_ns`): what is only in memory is still in the primary's side file, or marked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import RECORD_DTYPE, RecordArray
from isochrone.store.disk import Buffer
from isochrone.store.entries import (
    EntryMask,
    entries_with_data,
    entry_keys,
    select_payload,
    select_single,
)
from isochrone.store.staging import Unstored

MILLISECOND_NS: Final = 1_000_000
RETRY_NS_MIN: Final = 5 * MILLISECOND_NS
RETRY_NS_MAX: Final = 1000 * MILLISECOND_NS
"""Between two tries that store nothing the pause doubles from the one to the other."""
TRACKS_PER_TRY_MAX: Final = 64
"""Tracks that one try offers: it must not hold up what else the controller does."""


@dataclass(frozen=True, slots=True)
class WaitingSummary:
    """What waits of all primaries of a session.

    Attributes:
        track_count: distinct tracks.
        size_bytes: memory of the records and images that wait for them.
        since_ns: host time since when the one that waits longest has waited; None when none does.
        by_volume: distinct tracks by volume number.
        reason: what the device said last, "" when none waits.
    """

    track_count: int
    size_bytes: int
    since_ns: int | None
    by_volume: Mapping[int, int]
    reason: str


class WaitingTracks:
    """What waits of one primary.

    Attributes:
        records: shape (n,), RECORD_DTYPE, one track each, in the order of time.
        reason: what the device said last, "" while nothing waits.
    """

    def __init__(self, track_size_bytes: int) -> None:
        self.records: RecordArray = np.empty(0, RECORD_DTYPE)
        self.reason = ""
        self._track_size_bytes = track_size_bytes
        self._images: NDArray[np.uint8] = np.empty((0, track_size_bytes), np.uint8)
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)
        self._since_ns: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._now_ns = 0
        self._next_try_ns = 0
        self._pause_ns = RETRY_NS_MIN
        self._cursor = 0

    def __len__(self) -> int:
        return len(self.records)

    @property
    def track_count(self) -> int:
        """Distinct tracks that wait."""
        return len(np.unique(self._keys))

    @property
    def size_bytes(self) -> int:
        """Memory of records and images."""
        return int(self.records.nbytes + self._images.nbytes)

    @property
    def oldest_ns(self) -> int | None:
        """Time of the oldest record that waits; None when none does."""
        return int(self.records["time_ns"][0]) if len(self.records) else None

    @property
    def since_ns(self) -> int | None:
        """Host time since when the one that waits longest has waited; None when none does."""
        return int(self._since_ns.min()) if len(self.records) else None

    def by_volume(self) -> Counter[int]:
        """Return the distinct tracks that wait, by volume number."""
        return Counter((np.unique(self._keys) >> 32).tolist())

    def add(self, records: RecordArray, payload: Buffer, unstored: Unstored) -> None:
        """Let what the device did not take of `records` wait. They are later than all that waits."""
        self.reason = unstored.reason
        singles = select_single(records, unstored.entries)
        images = select_payload(records, payload, unstored.entries, self._track_size_bytes)
        since_ns = np.full(len(singles), self._now_ns, np.uint64)
        self._hold(
            np.concatenate([self.records, singles]),
            np.concatenate([self._images, images]),
            np.concatenate([self._since_ns, since_ns]),
        )

    def restart_age(self, now_ns: int) -> None:
        """Everything counts as waiting since `now_ns`."""
        self._since_ns[:] = now_ns

    def forget_volume(self, number: int) -> None:
        """Volume `number` has left the session."""
        self.keep(self.records["volume"] != number)

    def clear(self) -> None:
        """Forget everything."""
        self.keep(np.zeros(len(self.records), np.bool_))

    # Trying again

    def is_due(self, now_ns: int) -> bool:
        """Whether it is time for a try. Also tells the time to what waits."""
        if self._now_ns == 0:
            self._since_ns[self._since_ns == 0] = now_ns
        self._now_ns = now_ns
        return len(self.records) > 0 and now_ns >= self._next_try_ns

    def next_batch(self) -> EntryMask:
        """Return which records the next try offers: all of some tracks; with every try, those of the next tracks."""
        keys = np.unique(self._keys)
        start = int(np.searchsorted(keys, self._cursor))
        chosen = np.roll(keys, -start)[:TRACKS_PER_TRY_MAX]
        self._cursor = int(chosen[-1]) + 1
        mask: EntryMask = np.isin(self._keys, chosen)
        return mask

    def payload_of(self, mask: EntryMask) -> bytes:
        """Return the images of the records in `mask`, back to back."""
        return self._images[mask[entries_with_data(self.records)]].tobytes()

    def oldest_of_ns(self, mask: EntryMask) -> int | None:
        """Return the time of the oldest record in `mask`; None when it is empty."""
        return int(self.records["time_ns"][mask][0]) if mask.any() else None

    def tried(self, stored: EntryMask, reason: str) -> None:
        """The records in `stored` are staged now. Of the others of the last batch the device said `reason`."""
        has_stored = bool(stored.any())
        self._pause_ns = RETRY_NS_MIN if has_stored else min(2 * self._pause_ns, RETRY_NS_MAX)
        self._next_try_ns = self._now_ns + self._pause_ns
        self.reason = reason or self.reason
        if has_stored:
            self.keep(~stored)

    def keep(self, mask: EntryMask) -> None:
        """Only the records in `mask` wait on."""
        images = self._images[mask[entries_with_data(self.records)]]
        self._hold(self.records[mask], images, self._since_ns[mask])

    def _hold(self, records: RecordArray, images: NDArray[np.uint8], since_ns: NDArray[np.uint64]) -> None:
        self.records, self._images, self._since_ns = records, images, since_ns
        self._keys = entry_keys(records)
        if not len(records):
            self.reason = ""
            self._pause_ns = RETRY_NS_MIN
            self._next_try_ns = 0


def summary_of(waiting: Iterable[WaitingTracks]) -> WaitingSummary:
    """Return what waits of several primaries, whose volumes are different."""
    some = [one for one in waiting if len(one)]
    by_volume: Counter[int] = Counter()
    for one in some:
        by_volume += one.by_volume()
    return WaitingSummary(
        by_volume.total(),
        sum(one.size_bytes for one in some),
        min((one.since_ns for one in some if one.since_ns is not None), default=None),
        by_volume,
        next((one.reason for one in some if one.reason), ""),
    )
