"""Sync: what was written and logged becomes durable, and tracks freed before become free.

The order is the point. Records that are in the log file may point at tracks that are still in the page cache
only, so:

1. note the place in the log up to which records have been written;
2. make the tracks durable;
3. write a *barrier* that says so, and make the log durable. Recovery after a power loss stops at the last
   barrier;
4. tracks that records before the place freed may be used again: no table that can come back refers to them. For
   the same reason those that were shared until then may be overwritten in place.

In-place overwrites leave no record: a sync that finds none since the last barrier is one datasync of the
tracks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

from isochrone.store.allocator import Batch
from isochrone.store.disk import File
from isochrone.store.health import Health
from isochrone.store.log import Log
from isochrone.store.log_records import BARRIER, RecordType
from isochrone.store.state import PoolState

Steps = Generator[Callable[[], None], None, None]
"""Blocking calls, to be made one after the other, by the driver, in any thread; it throws in what they raise.
"""


@dataclass(frozen=True, slots=True, eq=False)
class _GivenUp:
    """What a sync makes durable the giving up of: tracks, and pages that were held up to a place."""

    tracks: Batch
    held_page_end: int


class Durability:
    """Syncs of one pool.

    Attributes:
        count: syncs completed since the pool was opened.
    """

    def __init__(
        self, log: Log, tracks: File, state: PoolState, health: Health, log_write: Callable[[], None]
    ) -> None:
        """`log_write` writes pending records, making room in the log when it is full."""
        self._log = log
        self._tracks = tracks
        self._allocator = state.allocator
        self._arena = state.arena
        self._health = health
        self._log_write = log_write
        self._batches: list[_GivenUp] = []
        self.count = 0

    def sync(self) -> Steps:
        """One sync; see the module. A second one may begin, and end, while this one waits for its driver."""
        self._health.check()
        self._log_write()
        through = self._log.content_through
        batch = _GivenUp(self._allocator.take_pending(), self._arena.held_end())
        self._batches.append(batch)
        is_done = False
        try:
            yield partial(self._health.datasync, self._tracks, "making tracks durable")
            if self._log.barrier_through < through:
                self._log.append(RecordType.BARRIER, BARRIER.pack(through, self._log.durable_through))
                self._log.barrier_through = through
                self._log_write()
            written = self._log.next_sequence
            for file in self._log.files_to_sync():
                yield partial(self._health.datasync, file, "making the log durable")
            self._log.synced(written)
            self.count += 1
            is_done = True
        except Exception as error:
            self._health.fail("a sync", error)
            raise
        finally:
            self._finish(batch, is_done=is_done)

    def sync_inline(self) -> None:
        """Sync now, blocking. Also releases what syncs under way have taken: it covers more than they do."""
        earlier = list(self._batches)
        for call in self.sync():
            call()
        for batch in earlier:
            self._release(batch)

    def _finish(self, batch: _GivenUp, *, is_done: bool) -> None:
        self._batches = [other for other in self._batches if other is not batch]
        if is_done:
            self._release(batch)
        else:
            self._allocator.put_back(batch.tracks)

    def _release(self, batch: _GivenUp) -> None:
        self._allocator.release(batch.tracks)
        batch.tracks.freed.clear()
        self._arena.release(batch.held_page_end)
