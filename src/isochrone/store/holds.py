"""Holding: what ceased to be shared counts as shared until that is durable.

Of several tables that shared a track or a page all but one have given it up, and a power loss could take that back.
Were it overwritten in place now, the table that comes back would show what another volume was given later. So a bit
beside the count says that it is not to be touched; the sync that makes the giving up durable clears the bit. The bit
makes the count differ from 1, so that asking "may I overwrite it?" costs one comparison, held or not.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

HELD: Final = 0x8000
"""Bit of a count: not to be overwritten in place before the next sync, though there may be only one reference."""
REFERENCES: Final = np.uint16(HELD - 1)
"""The other bits: how many references there are."""

Counts = NDArray[np.uint16]
Numbers = NDArray[np.uint32]


class Holds:
    """Which of some numbered things are held, in the order of holding. The array of their counts is handed in."""

    def __init__(self) -> None:
        self._held: deque[Numbers] = deque()
        self._single: list[int] = []  # held after all of `_held`, one by one
        self._start = 0  # arrays that have left `_held`

    def __bool__(self) -> bool:
        return bool(self._held or self._single)

    def __len__(self) -> int:
        return sum(map(len, self._held)) + len(self._single)

    def hold(self, counts: Counts, numbers: Numbers) -> None:
        """Hold `numbers`, each of which has one reference."""
        if len(numbers):
            self._close_singles()
            counts[numbers] |= np.uint16(HELD)
            self._held.append(numbers)

    def note(self, number: int) -> None:
        """One more is held; its bit was set by the caller."""
        self._single.append(number)

    def end(self) -> int:
        """Return a place in the order behind all that is held now, for `release`."""
        self._close_singles()
        return self._start + len(self._held)

    def release(self, counts: Counts, end: int) -> None:
        """What was held before `end` is not any more, unless it was held again since."""
        if self._start >= end:
            return
        while self._start < end:
            counts[self._held.popleft()] &= REFERENCES
            self._start += 1
        self._set_again(counts)

    def clear(self) -> None:
        """Forget all."""
        self._start += len(self._held)
        self._held.clear()
        self._single.clear()

    def numbers(self, counts: Counts) -> Numbers:
        """Return what was held and still has a reference, in ascending order."""
        held = np.unique(np.concatenate([np.array(self._single, np.uint32), *self._held]))
        numbers: Numbers = held[counts[held] != 0]
        return numbers

    def _set_again(self, counts: Counts) -> None:
        """Set the bits of all that is held and still referred to."""
        for numbers in (*self._held, np.array(self._single, np.uint32)):
            counts[numbers[counts[numbers] != 0]] |= np.uint16(HELD)

    def _close_singles(self) -> None:
        if self._single:
            self._held.append(np.array(self._single, np.uint32))
            self._single.clear()
