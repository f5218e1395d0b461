"""What differs between two volumes, by pointers alone: page numbers first, then the entries of pages that differ.

Two volumes that refer to the same track hold the same bytes there, because a track that is shared is never overwritten.
The reverse is not true: the same bytes written twice are two tracks. So what is named *may* differ, and all else is equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isochrone.store.arena import PAGE_MASK, PAGE_SHIFT, Arena
from isochrone.store.tables import VolumeTable

DIFFERENCE_PAGE_COUNT_MAX: Final = 256
"""Pages whose entries are compared in one step: 1 GiB at 4 KiB tracks, about 6 ms when all of it differs."""


class TrackRuns(NamedTuple):
    """Runs of tracks in ascending order that neither overlap nor touch: two arrays of one length."""

    first_track: NDArray[np.int64]
    track_count: NDArray[np.int64]


def difference_pieces(
    arena: Arena, one: VolumeTable, other: VolumeTable, first_track: int, end_track: int
) -> Iterator[TrackRuns]:
    """Yield the runs of tracks from `first_track` to `end_track - 1` that may differ, a bounded number of pages at a time.

    Beyond its end a volume counts as unmapped. Page numbers are compared at once when the first piece is asked for;
    entries as each piece is. Runs of two pieces may touch.
    """
    page_first = first_track >> PAGE_SHIFT
    page_end = (end_track + PAGE_MASK) >> PAGE_SHIFT
    pages, others = (_pages(table, page_first, page_end) for table in (one, other))
    differ = np.flatnonzero(pages != others)
    for start in range(0, len(differ), DIFFERENCE_PAGE_COUNT_MAX):
        indexes = differ[start : start + DIFFERENCE_PAGE_COUNT_MAX]
        now = _numbers(one, indexes + page_first), _numbers(other, indexes + page_first)
        tracks = _different_tracks(arena, *now, indexes + page_first)
        tracks = tracks[(tracks >= first_track) & (tracks < end_track)]
        if len(tracks):
            yield _runs(tracks)


def joined(pieces: Iterator[TrackRuns]) -> TrackRuns:
    """Return the runs of all pieces; those that touch are one."""
    found = list(pieces)
    if not found:
        return TrackRuns(np.empty(0, np.int64), np.empty(0, np.int64))
    first = np.concatenate([piece.first_track for piece in found])
    end = first + np.concatenate([piece.track_count for piece in found])
    apart = np.flatnonzero(first[1:] != end[:-1])
    starts = first[np.concatenate([[0], apart + 1])]
    ends = end[np.concatenate([apart, [len(end) - 1]])]
    return TrackRuns(starts, ends - starts)


def _pages(table: VolumeTable, page_first: int, page_end: int) -> NDArray[np.uint32]:
    pages = table.pages[page_first:page_end]
    missing = page_end - page_first - len(pages)
    return np.concatenate([pages, np.zeros(missing, np.uint32)]) if missing else pages


def _numbers(table: VolumeTable, indexes: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the page numbers at `indexes` now, 0 beyond the end."""
    numbers = np.zeros(len(indexes), np.uint32)
    inside = indexes < len(table.pages)
    numbers[inside] = table.pages[indexes[inside]]
    return numbers


def _different_tracks(
    arena: Arena, pages: NDArray[np.uint32], others: NDArray[np.uint32], indexes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the tracks, ascending, whose entries differ between pages that stand at `indexes` of two tables."""
    places = np.flatnonzero(arena.pages(pages) != arena.pages(others))
    tracks: NDArray[np.int64] = (indexes[places >> PAGE_SHIFT] << PAGE_SHIFT) | (places & PAGE_MASK)
    return tracks


def _runs(tracks: NDArray[np.int64]) -> TrackRuns:
    breaks = np.flatnonzero(np.diff(tracks) != 1) + 1
    starts = np.concatenate([[0], breaks])
    return TrackRuns(tracks[starts], np.diff(starts, append=len(tracks)))
