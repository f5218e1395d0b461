"""References and free tracks counted anew from tables and staged entries: after recovery, and to prove what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.store.allocator import TrackNumbers
from isochrone.store.arena import Arena
from isochrone.store.tables import TrackTables, VolumeTable

_PIECE_PAGE_COUNT: Final = 1024
_ONE: Final = np.uint16(1)


def rebuild(tables: TrackTables, volumes: Sequence[VolumeTable], held: Iterable[TrackNumbers]) -> None:
    """Count all references anew from live pages, `volumes` and the tracks that entries hold; give back empty pages.

    From here on references are counted with each change.
    """
    arena = tables.arena
    mapped_of_page = count_mapped(arena)
    for table in volumes:
        used = table.used()
        mapped = mapped_of_page[used.numbers]
        empty = used.indexes[mapped == 0]
        if len(empty):
            arena.reuse(arena.drop(table.pages[empty], hold=False))
            table.pages[empty] = 0
            table.used_pages = None
        table.mapped_track_count = int(mapped.sum(dtype=np.int64))
    tables.allocator.counts[:] = count_references(tables, held)
    tables.allocator.rebuild()
    tables.accounting = True
    repeated = [table for table in volumes if table.repeat_count_max > 1]
    room = np.zeros(tables.allocator.track_count + 1 if repeated else 0, np.uint16)
    for table in repeated:  # nobody made the bounds exact while the log was replayed
        table.repeat_count_max = count_repeats(tables, table, room)


def count_mapped(arena: Arena) -> NDArray[np.uint16]:
    """Return how many entries of each page are not 0: shape (top,); 0 for pages that are not live."""
    counts = np.zeros(arena.top, np.uint16)
    live = np.flatnonzero(arena.live())
    for start in range(0, len(live), _PIECE_PAGE_COUNT):
        numbers = live[start : start + _PIECE_PAGE_COUNT]
        counts[numbers] = np.count_nonzero(arena.pages(numbers), axis=1)
    return counts


def count_references(tables: TrackTables, held: Iterable[TrackNumbers]) -> NDArray[np.uint16]:
    """Return how often pages, live or doomed, and entries that are `held` hold each track: shape (track_count + 1,)."""
    counts = np.zeros(tables.allocator.track_count + 1, np.uint16)
    live: NDArray[np.integer] = np.flatnonzero(tables.arena.live())
    for pages in (live, *tables.doomed.pages()):
        for start in range(0, len(pages), _PIECE_PAGE_COUNT):
            entries = tables.arena.pages(pages[start : start + _PIECE_PAGE_COUNT]).ravel()
            np.add.at(counts, entries, _ONE)
    for tracks in held:
        np.add.at(counts, tracks, _ONE)
    counts[0] = 0
    return counts


def count_repeats(tables: TrackTables, table: VolumeTable, counts: NDArray[np.uint16] | None = None) -> int:
    """Return how often the track, or page, that `table` holds most often stands in it; at least 1.

    `counts` is room to count in, shape (track_count + 1,), zeros, and zeros again afterwards.
    """
    if counts is None:
        counts = np.zeros(tables.allocator.track_count + 1, np.uint16)
    numbers, times = np.unique(table.used().numbers, return_counts=True)
    repeats = max(1, int(times.max(initial=0)))
    pieces = [slice(at, at + _PIECE_PAGE_COUNT) for at in range(0, len(numbers), _PIECE_PAGE_COUNT)]
    for piece in pieces:
        entries = tables.arena.pages(numbers[piece])
        np.add.at(counts, entries.ravel(), np.repeat(times[piece].astype(np.uint16), entries.shape[1]))
    counts[0] = 0
    for piece in pieces:
        entries = tables.arena.pages(numbers[piece]).ravel()
        repeats = max(repeats, int(counts[entries].max()))
    for piece in pieces:
        counts[tables.arena.pages(numbers[piece]).ravel()] = 0
    return repeats
