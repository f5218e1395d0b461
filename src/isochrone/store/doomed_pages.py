"""Table pages that nothing points at any more, whose tracks are still to be dropped.

Giving up a big volume, or a copy that is all that is left of what its source was, frees millions of tracks, and each of
them is looked at: 6 ms a GiB at 4 KiB tracks, while no write goes on. So what is more than a little is only noted, and done
bit by bit: now and then, and at once when there are too few free tracks. The pages are in no table, so nothing of this is on
disk: an open, which counts all references anew, finds these tracks free.

Until then their tracks count as used, and one that a volume refers to as well counts as shared with them: writes redirect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.arena import Arena

RECLAIM_PAGE_COUNT_MAX: Final = 128
"""Pages whose tracks are dropped in one step, or at once when they are given up: 512 MiB at 4 KiB tracks, about 3 ms."""


class DoomedPages:
    """Doomed pages of one pool, in the order in which they were given up.

    Attributes:
        page_count: how many there are.
        repeat_count: they refer to no track more often.
    """

    def __init__(self, arena: Arena, allocator: Allocator) -> None:
        self._arena = arena
        self._allocator = allocator
        self._pages: deque[tuple[NDArray[np.uint32], int]] = deque()
        self.page_count = 0
        self.repeat_count = 0

    def add(self, pages: NDArray[np.uint32], repeat_count_max: int) -> None:
        """Take pages that were freed by one volume, which held no track more often than that."""
        if not len(pages):
            return
        if not self.page_count and len(pages) <= RECLAIM_PAGE_COUNT_MAX:
            self._drop(pages, is_distinct=repeat_count_max == 1)
            return
        self._pages.append((pages, repeat_count_max))
        self.page_count += len(pages)
        self.repeat_count += repeat_count_max

    def reclaim(self) -> bool:
        """Drop the tracks of some of them; False when there was none."""
        if not self._pages:
            return False
        pages, repeat_count_max = self._pages.popleft()
        now, later = pages[:RECLAIM_PAGE_COUNT_MAX], pages[RECLAIM_PAGE_COUNT_MAX:]
        self._drop(now, is_distinct=repeat_count_max == 1)
        self.page_count -= len(now)
        if len(later):
            self._pages.appendleft((later, repeat_count_max))
        else:
            self.repeat_count -= repeat_count_max
        return True

    def pages(self) -> Iterator[NDArray[np.uint32]]:
        """Yield all of them, in arrays."""
        for pages, _ in self._pages:
            yield pages

    def _drop(self, pages: NDArray[np.uint32], *, is_distinct: bool) -> None:
        entries = self._arena.pages(pages).ravel()
        tracks: TrackNumbers = entries[entries != 0]
        if len(tracks):
            (self._allocator.drop if is_distinct else self._allocator.drop_repeated)(tracks)
        self._arena.reuse(pages)
