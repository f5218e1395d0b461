"""The file `pages`: places for table pages, written shadow-wise.

A checkpoint never overwrites a page that the root on disk refers to: changed pages go to free *slots*, and
only when the new root is durable do the old slots become free. So a crash at any step leaves every page of
the old root, or every page of the new one, whole. The root holds each page's slot and checksum.

Space is reserved when a page comes into being, not when it is written: one slot for each page of the root on
disk plus one for each page alive is all that a checkpoint can need, so with preallocation the file system
below cannot run out in the middle of one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import InternalError, PoolFullError
from isochrone.store.disk import File

PAGES_NAME: Final = "pages"
PAGE_SIZE_BYTES: Final = 4096
SLOT_STEP: Final = 256
"""The file grows by this many slots (1 MiB) or an eighth of itself, whichever is more."""
NO_SLOT: Final = 0xFFFF_FFFF


class PageSlots:
    """Which slot of the file holds which page of the root on disk.

    Attributes:
        capacity: slots that the file has room for.
        slot_of_page: shape (pages,), uint32: slot on disk per page number, NO_SLOT when it has none.
        checksum_of_page: shape (pages,), uint64: xxh3 of the slot's content.
    """

    def __init__(self, file: File, *, preallocate: bool) -> None:
        self._file = file
        self._preallocate = preallocate
        self.capacity = file.size_bytes() // PAGE_SIZE_BYTES
        self.slot_of_page: NDArray[np.uint32] = np.full(1, NO_SLOT, np.uint32)
        self.checksum_of_page: NDArray[np.uint64] = np.zeros(1, np.uint64)
        self._free: NDArray[np.bool_] = np.ones(self.capacity, np.bool_)
        self._root_page_count = 0

    def load(
        self, pages: NDArray[np.uint32], slots: NDArray[np.uint32], checksums: NDArray[np.uint64]
    ) -> None:
        """Take over the directory of the root on disk: three arrays of one length."""
        self._fit(int(pages.max(initial=0)) + 1)
        self.slot_of_page[pages] = slots
        self.checksum_of_page[pages] = checksums
        self._free[slots] = False
        self._root_page_count = len(pages)

    def reserve(self, live_page_count: int) -> None:
        """Make sure that a checkpoint of `live_page_count` pages has room, beside the root that it replaces.

        Raises:
            PoolFullError: the file system below has no room; nothing was changed.
        """
        need = max(self._root_page_count, live_page_count) + live_page_count
        if need <= self.capacity:
            return
        capacity = max(need, self.capacity + max(SLOT_STEP, self.capacity >> 3))
        try:
            if self._preallocate:
                self._file.allocate(capacity * PAGE_SIZE_BYTES)
            else:
                self._file.truncate(capacity * PAGE_SIZE_BYTES)
        except OSError as error:
            raise PoolFullError(
                f"the file system below the pool has no room for another {SLOT_STEP} table pages ({error}): make room "
                "there",
                file=PAGES_NAME,
            ) from error
        self._free = np.concatenate([self._free, np.ones(capacity - self.capacity, np.bool_)])
        self.capacity = capacity

    def take(self, count: int) -> NDArray[np.uint32]:
        """Return `count` free slots in ascending order; they are taken until `finish`."""
        slots = np.flatnonzero(self._free)[:count].astype(np.uint32)
        if len(slots) < count:
            raise InternalError(f"{count} page slots wanted, {len(slots)} free: please report this")
        self._free[slots] = False
        return slots

    def retired(self, is_live: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the page numbers that have a slot on disk but are no longer live (`is_live`, shape
        (pages,)).
        """
        has_slot = self.slot_of_page != NO_SLOT
        count = min(len(has_slot), len(is_live))
        has_slot[:count] &= ~is_live[:count]
        return np.flatnonzero(has_slot)

    def finish(
        self,
        pages: NDArray[np.intp],
        slots: NDArray[np.uint32],
        checksums: NDArray[np.uint64],
        retired: NDArray[np.intp],
        live_page_count: int,
    ) -> None:
        """The new root is durable: `pages` are in `slots` now; old slots and those of `retired` pages are
        free.
        """
        self._fit(int(pages.max(initial=0)) + 1)
        for gone in (pages, retired):
            old = self.slot_of_page[gone]
            self._free[old[old != NO_SLOT]] = True
            self.slot_of_page[gone] = NO_SLOT
        self.slot_of_page[pages] = slots
        self.checksum_of_page[pages] = checksums
        self._root_page_count = live_page_count

    def directory(self, page_count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Return copies of slot and checksum of pages 0 to page_count - 1."""
        self._fit(page_count)
        return self.slot_of_page[:page_count].copy(), self.checksum_of_page[:page_count].copy()

    def _fit(self, page_count: int) -> None:
        missing = page_count - len(self.slot_of_page)
        if missing > 0:
            self.slot_of_page = np.concatenate([self.slot_of_page, np.full(missing, NO_SLOT, np.uint32)])
            self.checksum_of_page = np.concatenate([self.checksum_of_page, np.zeros(missing, np.uint64)])
