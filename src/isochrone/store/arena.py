"""Table pages: 1,024 entries each, all in one array, shared by count.

An entry is a physical track number, 0 for "unmapped". Page 0 is the null page: all of it is unmapped, every
volume may point at it, it is never written and its count stays 0, so that "count is 1" means "exists and may
be changed in place".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.store.holds import HELD, REFERENCES, Holds

PAGE_ENTRY_COUNT: Final = 1024
PAGE_SHIFT: Final = 10
PAGE_MASK: Final = PAGE_ENTRY_COUNT - 1

_CAPACITY_MIN: Final = 64
_ONE: Final = np.uint16(1)


class Arena:
    """The pages of one pool. Page numbers name places in memory; on disk the root maps them to slots.

    Attributes:
        entries: all pages back to back, shape (capacity * 1024,), uint32. Replaced when the arena grows.
        view: the same memory for scalar access; fetch it anew for each use.
        counts: how often volumes point at the page, shape (capacity,), uint16, and the bit HELD; 0 means free.
            Exactly 1 means that it may be changed in place, and with it each track of it that counts 1. Bounded by
            REFERENCE_COUNT_MAX.
        dirty: 1 for pages changed since the last snapshot, shape (capacity,), uint8.
        live_count: pages whose count is not 0.
        top: pages from `top` on have never been used.
    """

    def __init__(self, page_count: int = 0) -> None:
        capacity = max(_CAPACITY_MIN, page_count + page_count // 4 + 1)
        self.entries: NDArray[np.uint32] = np.zeros(capacity * PAGE_ENTRY_COUNT, np.uint32)
        self.counts: NDArray[np.uint16] = np.zeros(capacity, np.uint16)
        self.dirty: NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        self._free: list[int] = []
        self._holds = Holds()
        self.live_count = 0
        self.top = 1
        self._make_views()

    def _make_views(self) -> None:
        self.view = self.entries.data
        self.counts_view = self.counts.data
        self.dirty_view = self.dirty.data

    @property
    def capacity(self) -> int:
        """Pages that fit before the arena grows."""
        return len(self.counts)

    def load(self, pages: NDArray[np.uint32], counts: NDArray[np.uint16]) -> None:
        """Make `pages` live with `counts`, in an arena made for them, before their entries are filled in."""
        self.counts[pages] = counts
        self.live_count = len(pages)
        self.top = int(pages.max(initial=0)) + 1
        self._free = (np.flatnonzero(self.counts[1 : self.top] == 0)[::-1] + 1).tolist()

    def page(self, number: int) -> NDArray[np.uint32]:
        """Return the entries of a page: a view, shape (1024,), valid until a page is created."""
        return self.entries[number << PAGE_SHIFT : (number + 1) << PAGE_SHIFT]

    def pages(self, numbers: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return a copy of some pages, shape (n, 1024)."""
        pages: NDArray[np.uint32] = self.entries.reshape(-1, PAGE_ENTRY_COUNT)[numbers]
        return pages

    def create(self) -> int:
        """Return a new page, all unmapped, with a count of 1."""
        if self._free:
            number = self._free.pop()
            self.page(number)[:] = 0
        else:
            if self.top == self.capacity:
                self._grow()
            number = self.top
            self.top += 1
        self.counts[number] = 1
        self.dirty[number] = 1
        self.live_count += 1
        return number

    def share(self, numbers: NDArray[np.uint32]) -> None:
        """Count one pointer more at each of `numbers`, which may repeat; 0 among them is ignored."""
        np.add.at(self.counts, numbers[numbers != 0], _ONE)

    def drop(self, numbers: NDArray[np.uint32], *, hold: bool) -> NDArray[np.uint32]:
        """Count one pointer less at each of `numbers` (not 0, may repeat), and return those that nothing points at now.

        They stay as they are until `reuse`. With `hold` those with one pointer left are held.
        """
        distinct, times = np.unique(numbers, return_counts=True)
        counts = self.counts[distinct] - times.astype(np.uint16)
        references = counts & REFERENCES
        gone: NDArray[np.uint32] = distinct[references == 0]
        counts[references == 0] = 0
        self.counts[distinct] = counts
        self.live_count -= len(gone)
        if hold:
            self._holds.hold(self.counts, distinct[references == 1])
        return gone

    def reuse(self, numbers: NDArray[np.uint32]) -> None:
        """Nobody looks at these pages, which `drop` returned, any more."""
        self._free += numbers.tolist()

    def drop_one(self, number: int) -> bool:
        """Do the same for one page that is not held afterwards: what it shares counts more than once. True: it is free."""
        self.counts_view[number] -= 1
        if self.counts_view[number] & ~HELD:
            return False
        self.counts_view[number] = 0
        self._free.append(number)
        self.live_count -= 1
        return True

    def is_held(self, number: int) -> bool:
        """Whether a page has one pointer, but was shared until a change that is not durable yet."""
        return self.counts_view[number] == HELD | 1

    def unhold(self, number: int) -> None:
        """A page need not be held any more: its tracks are."""
        self.counts_view[number] = 1

    def held_end(self) -> int:
        """Return a place behind all that is held now, for `release`."""
        return self._holds.end()

    def release(self, held_end: int) -> None:
        """The giving up of what was held before `held_end` is durable."""
        self._holds.release(self.counts, held_end)

    def references(self) -> NDArray[np.uint16]:
        """Return how often each page is pointed at, held or not: shape (capacity,)."""
        references: NDArray[np.uint16] = self.counts & REFERENCES
        return references

    def live(self) -> NDArray[np.bool_]:
        """Return which pages are live, shape (top,)."""
        live: NDArray[np.bool_] = self.counts[: self.top] != 0
        return live

    def size_bytes(self) -> int:
        """Memory of pages in use (what lies beyond `top` was never touched and takes none)."""
        return self.top * (PAGE_ENTRY_COUNT * 4 + 3)

    def _grow(self) -> None:
        """Make half as much room again. The new memory costs nothing until it is touched."""
        old = self.capacity
        capacity = old + old // 2
        for name in ("entries", "counts", "dirty"):
            array = getattr(self, name)
            grown = np.zeros(len(array) // old * capacity, array.dtype)
            grown[: len(array)] = array
            setattr(self, name, grown)
        self._make_views()
