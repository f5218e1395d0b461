"""Room in a pool: tracks and table pages for what is about to be done, or the reason why there are none.

Tracks come from where they hurt least: those that are free; those that wait for a sync, by making one; and those that
    histories
hold, the oldest history first. What volumes show, and copies that somebody made, are never touched.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.model.errors import PoolFullError
from isochrone.store.durability import Durability
from isochrone.store.page_slots import PageSlots
from isochrone.store.state import PoolState


class Room:
    """Room of one pool."""

    def __init__(
        self,
        state: PoolState,
        slots: PageSlots,
        durability: Durability,
        reserved_page_count: Callable[[], int],
        give_up_history: Callable[[], bool],
    ) -> None:
        """`give_up_history` gives a step's worth of the oldest history up; False when there is none, or none that helps."""
        self._state = state
        self._allocator = state.allocator
        self._slots = slots
        self._durability = durability
        self._reserved_page_count = reserved_page_count
        self._give_up_history = give_up_history

    def reserve(self, track_count: int, page_count: int) -> None:
        """Make sure that so much can be taken now; see `Pool.reserve`."""
        allocator = self._allocator
        if page_count:
            self._slots.reserve(self._state.arena.live_count + self._reserved_page_count() + page_count)
        if track_count <= allocator.free_count:
            return
        if self.make(track_count):
            self._durability.sync_inline()
        if track_count > allocator.free_count:
            raise PoolFullError(
                f"{track_count} tracks are needed, {allocator.free_count} of {allocator.track_count} are free: delete or "
                "trim volumes, delete copies, or move to a bigger pool",
                track_count=track_count,
                free_track_count=allocator.free_count,
            )

    def make(self, track_count: int) -> bool:
        """Make so many tracks free, or free after a sync: what was given up first, then history; see `Pool.make_room`."""
        allocator = self._allocator
        while track_count > allocator.free_count + allocator.pending_count:
            if not self._state.tables.doomed.reclaim() and not self._give_up_history():
                return False
        return True
