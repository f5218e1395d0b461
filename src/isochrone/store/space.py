"""How much space volumes take, exactly: what deleting them would give back, and what they share with others.

A page that only these volumes point at goes with them, and a track goes when all references to it are in such pages. So the
entries of pages that are shared with others are never looked at, and the space of a snapshot, which shares nearly all its
pages, costs little. Where each volume's tracks stand in it once, and it is asked for alone, a look at the counts is enough;
else references are added up per track first.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.store.allocator import TrackNumbers
from isochrone.store.holds import REFERENCES
from isochrone.store.state import PoolState
from isochrone.store.tables import VolumeTable

SPACE_PAGE_COUNT_MAX: Final = 512
"""Pages looked at in one step: 2 GiB at 4 KiB tracks, a few milliseconds."""
_COMPARED_TRACK_COUNT: Final = 1 << 20

SpaceSteps = Generator[None, None, "VolumeSpace"]
"""Yields between steps; its result is the space."""


@dataclass(frozen=True, slots=True)
class VolumeSpace:
    """Space of one volume, or of several together.

    Attributes:
        mapped_bytes: tracks that read as data, counted for each volume.
        exclusive_bytes: what deleting them, and nothing else, gives back.
        shared_bytes: tracks that others refer to as well: other volumes, staged entries, histories.
        is_exact: nothing was changed in the pool between the steps, nor is to be reclaimed. Else it is true but for that.
    """

    mapped_bytes: int
    exclusive_bytes: int
    shared_bytes: int
    is_exact: bool = True


def space_steps(state: PoolState, tables: Sequence[VolumeTable]) -> SpaceSteps:
    """Add up the space of `tables` (distinct), in steps between which the pool may go on."""
    mapped = sum(table.mapped_track_count for table in tables)
    numbers, times = np.unique(
        np.concatenate([np.empty(0, np.uint32), *(table.used().numbers for table in tables)]),
        return_counts=True,
    )
    is_alone = (state.arena.counts[numbers] & REFERENCES) == times
    if len(tables) == 1 and tables[0].repeat_count_max == 1:
        exclusive = yield from _count_single(state, numbers[is_alone])
        distinct = mapped
    else:
        exclusive, distinct = yield from _count_repeated(state, numbers[is_alone], numbers[~is_alone])
    size = state.track_size_bytes
    return VolumeSpace(mapped * size, exclusive * size, (distinct - exclusive) * size)


def _count_single(state: PoolState, pages: NDArray[np.uint32]) -> Generator[None, None, int]:
    """Return how many tracks of `pages` have no other reference."""
    exclusive = 0
    for start in range(0, len(pages), SPACE_PAGE_COUNT_MAX):
        tracks = _tracks(state, pages[start : start + SPACE_PAGE_COUNT_MAX])
        exclusive += int(np.count_nonzero(state.allocator.counts[tracks] & REFERENCES == 1))
        yield
    return exclusive


def _count_repeated(
    state: PoolState, alone: NDArray[np.uint32], shared: NDArray[np.uint32]
) -> Generator[None, None, tuple[int, int]]:
    """Return how many tracks have no reference but those in pages `alone`, and how many there are in all pages."""
    counts = np.zeros(state.allocator.track_count + 1, np.uint16)
    is_there = np.zeros(state.allocator.track_count + 1, np.bool_)
    for start in range(0, len(alone), SPACE_PAGE_COUNT_MAX):
        np.add.at(counts, _tracks(state, alone[start : start + SPACE_PAGE_COUNT_MAX]), np.uint16(1))
        yield
    for start in range(0, len(shared), SPACE_PAGE_COUNT_MAX):
        is_there[_tracks(state, shared[start : start + SPACE_PAGE_COUNT_MAX])] = True
        yield
    exclusive = distinct = 0
    for start in range(0, len(counts), _COMPARED_TRACK_COUNT):
        piece = slice(start, start + _COMPARED_TRACK_COUNT)
        held = counts[piece] != 0
        references = state.allocator.counts[piece] & REFERENCES
        exclusive += int(np.count_nonzero(held & (references == counts[piece])))
        distinct += int(np.count_nonzero(held | is_there[piece]))
        yield
    return exclusive, distinct


def _tracks(state: PoolState, pages: NDArray[np.uint32]) -> TrackNumbers:
    entries = state.arena.pages(pages).ravel()
    tracks: TrackNumbers = entries[entries != 0]
    return tracks
