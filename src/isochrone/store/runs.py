"""Runs: the same numbers said shorter. Neighbouring tracks on neighbouring physical tracks are one run."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.store.allocator import TrackNumbers

LIST_COUNT_MAX: Final = 32
"""Up to this many tracks a Python list is walked faster than numpy arrays are set up."""

Run = tuple[int, int, int]
"""(index of the first, count, first physical track or 0)."""


def runs_of(physicals: TrackNumbers) -> list[Run]:
    """Return the runs of `physicals`: ascending by one, or all 0. They cover it in order."""
    count = len(physicals)
    if count == 1:
        return [(0, 1, int(physicals[0]))]
    if count <= LIST_COUNT_MAX:
        return _runs_of_few(physicals.tolist())
    numbers = physicals.astype(np.int64)
    expected = numbers[:-1] + (numbers[:-1] != 0)
    starts = np.concatenate([[0], np.flatnonzero(numbers[1:] != expected) + 1])
    counts = np.diff(starts, append=count)
    return list(zip(starts.tolist(), counts.tolist(), physicals[starts].tolist(), strict=True))


def _runs_of_few(physicals: list[int]) -> list[Run]:
    runs: list[Run] = []
    start, expected = 0, physicals[0]
    for index, physical in enumerate(physicals):
        if physical != expected:
            runs.append((start, index - start, physicals[start]))
            start = index
        expected = physical + 1 if physical else 0
    runs.append((start, len(physicals) - start, physicals[start]))
    return runs


def neighbours(numbers: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Return (start, stop) of each stretch of `numbers` that ascends by one; they cover it in order."""
    if not len(numbers):
        return []
    starts = [0, *(np.flatnonzero(np.diff(numbers.astype(np.int64)) != 1) + 1).tolist()]
    return list(zip(starts, [*starts[1:], len(numbers)], strict=True))


def pairs_of(physicals: TrackNumbers) -> NDArray[np.uint32]:
    """Return (first, count) of each ascending run of `physicals`, shape (runs, 2); none of them is 0."""
    if not len(physicals):
        return np.empty((0, 2), np.uint32)
    if (
        int(physicals[-1]) - int(physicals[0]) == len(physicals) - 1
        and (physicals[1:] > physicals[:-1]).all()
    ):
        return np.array([[physicals[0], len(physicals)]], np.uint32)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(physicals.astype(np.int64)) != 1) + 1])
    counts = np.diff(starts, append=len(physicals))
    return np.stack([physicals[starts], counts.astype(np.uint32)], axis=1)


def expand(firsts: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return first, first + 1, ... for each run, back to back: shape (sum of counts,)."""
    sizes = counts.astype(np.int64)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(firsts.astype(np.int64) - (ends - sizes), sizes) + np.arange(total)
