"""Copying pointers: a table, or ranges of it, become what another one is, and no data moves (S5).

Whole pages are shared where source and target lie alike within them; the rest is copied entry by entry. What comes is
counted before what goes is dropped, so a track that stands in both is never free in between. Ranges of one volume that
are copied onto others of itself are read from a copy of the pointers made first, so they may overlap.

Also used by recovery, where references to tracks are not counted. Callers have checked ranges, room and limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isochrone.store.allocator import TrackNumbers
from isochrone.store.arena import PAGE_ENTRY_COUNT, PAGE_MASK, PAGE_SHIFT
from isochrone.store.runs import expand
from isochrone.store.tables import TrackTables, VolumeTable

_PIECE_ENTRY_COUNT: Final = 1 << 18
"""Entries copied in one vectorised step: bounds its temporary arrays to about 10 MiB."""
_PIECE_PAGE_COUNT: Final = 1024

Extents = NDArray[np.int64]
"""Array of shape (n, 3): first track of the source, first track of the target, count; target ranges do not overlap."""


class _Plan(NamedTuple):
    """How extents are copied: pages `target_pages` become `source_pages` (indexes), the rest is `entries`."""

    source_pages: NDArray[np.int64]
    target_pages: NDArray[np.int64]
    entries: Extents


def share(tables: TrackTables, source: VolumeTable, target: VolumeTable) -> None:
    """Make `target` all that `source` is, its size as well."""
    if source is target:
        return
    old = target.pages
    new = np.zeros(len(source.pages), np.uint32)  # what is not mapped takes no memory
    used = source.used()
    new[used.indexes] = used.numbers
    common = min(len(new), len(old))
    differ = new[:common] != old[:common]
    tables.arena.share(np.concatenate([new[:common][differ], new[common:]]))
    gone = np.concatenate([old[:common][differ], old[common:]])
    target.set_pages(new, used)
    target.size_bytes, target.track_count = source.size_bytes, source.track_count
    target.mapped_track_count = source.mapped_track_count
    tables.give_up(target, gone[gone != 0])
    target.repeat_count_max = source.repeat_count_max


def establish(tables: TrackTables, source: VolumeTable, target: VolumeTable, extents: Extents) -> None:
    """Make ranges of `target` what ranges of `source` were before. Both may be one."""
    plan = _plan(source, target, extents)
    repeats = repeats_after(source, target, extents)
    origin = _aside(tables, source, plan.entries) if source is target and len(plan.entries) else source
    target.repeat_count_max = repeats
    _share_pages(tables, source.pages[plan.source_pages], target, plan.target_pages)
    for piece in _pieces(plan.entries):
        tracks = expand(piece[:, 1], piece[:, 2])
        physicals = _entries(tables, origin, expand(piece[:, 0], piece[:, 2]))
        differ = physicals != _entries(tables, target, tracks)
        tracks, physicals = tracks[differ], physicals[differ]
        if tables.accounting:
            tables.allocator.share(physicals[physicals != 0])
        tables.assign(target, tracks, physicals)
    if origin is not source:
        gone = tables.arena.drop(
            origin.pages[origin.pages != 0], hold=False
        )  # nothing durable ever shared them
        tables.free_pages(origin, gone)


def repeats_after(source: VolumeTable, target: VolumeTable, extents: Extents) -> int:
    """Return a bound of how often `target` will hold a track or page once `extents` were copied onto it."""
    starts = np.sort(extents[:, 0])
    ends = np.sort(extents[:, 0] + extents[:, 2])
    covering = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")
    return target.repeat_count_max + int(covering.max(initial=0)) * source.repeat_count_max


def entry_count(source: VolumeTable, target: VolumeTable, extents: Extents) -> int:
    """Return how many entries are copied one by one."""
    return int(_plan(source, target, extents).entries[:, 2].sum())


def pages_to_change(source: VolumeTable, target: VolumeTable, extents: Extents) -> int:
    """Return how many pages of `target` may have to be created or copied."""
    return len(_page_indexes(_plan(source, target, extents).entries, 1))


def _plan(source: VolumeTable, target: VolumeTable, extents: Extents) -> _Plan:
    """Divide `extents` into whole pages and the rest. The last page of both volumes is whole also where it is short."""
    from_track, to_track, count = extents[:, 0], extents[:, 1], extents[:, 2]
    end = to_track + count
    is_alike = (from_track - to_track) & PAGE_MASK == 0
    page_first = (to_track + PAGE_MASK) >> PAGE_SHIFT
    at_both_ends = (end == target.track_count) & (from_track + count == source.track_count)
    page_end = (end + np.where(at_both_ends, PAGE_MASK, 0)) >> PAGE_SHIFT
    has_pages = is_alike & (page_end > page_first)
    page_counts = np.where(has_pages, page_end - page_first, 0)
    target_pages = expand(page_first, page_counts)
    source_pages = expand(page_first + ((from_track - to_track) >> PAGE_SHIFT), page_counts)
    head_end = np.where(has_pages, page_first << PAGE_SHIFT, end)
    tail = np.where(has_pages, np.minimum(page_end << PAGE_SHIFT, end), end)
    heads = np.stack([from_track, to_track, head_end - to_track], axis=1)
    tails = np.stack([from_track + tail - to_track, tail, end - tail], axis=1)
    entries = np.concatenate([heads, tails])
    return _Plan(source_pages, target_pages, entries[entries[:, 2] > 0])


def _page_indexes(extents: Extents, column: int) -> NDArray[np.int64]:
    """Return the distinct indexes of pages under the source (0) or target (1) ranges."""
    first = extents[:, column] >> PAGE_SHIFT
    last = (extents[:, column] + extents[:, 2] - 1) >> PAGE_SHIFT
    return np.unique(expand(first, last - first + 1))


def _aside(tables: TrackTables, source: VolumeTable, extents: Extents) -> VolumeTable:
    """Return a table that shares the pages under the source ranges."""
    aside = VolumeTable(
        0, "", source.size_bytes, source.track_count, repeat_count_max=source.repeat_count_max
    )
    aside.set_pages(np.zeros_like(source.pages))
    indexes = _page_indexes(extents, 0)
    aside.pages[indexes] = source.pages[indexes]
    tables.arena.share(aside.pages[indexes])
    return aside


def _share_pages(
    tables: TrackTables, incoming: NDArray[np.uint32], target: VolumeTable, indexes: NDArray[np.int64]
) -> None:
    outgoing = target.pages[indexes]
    differ = incoming != outgoing
    incoming, outgoing, indexes = incoming[differ], outgoing[differ], indexes[differ]
    if tables.accounting:
        target.mapped_track_count += _count_mapped(tables, incoming) - _count_mapped(tables, outgoing)
    tables.arena.share(incoming)
    target.pages[indexes] = incoming
    target.used_pages = None
    tables.give_up(target, outgoing[outgoing != 0])


def _count_mapped(tables: TrackTables, numbers: NDArray[np.uint32]) -> int:
    """Return how many entries of pages `numbers` are not 0."""
    return sum(
        int(np.count_nonzero(tables.arena.pages(numbers[start : start + _PIECE_PAGE_COUNT])))
        for start in range(0, len(numbers), _PIECE_PAGE_COUNT)
    )


def _entries(tables: TrackTables, table: VolumeTable, tracks: NDArray[np.int64]) -> TrackNumbers:
    pages = table.pages[tracks >> PAGE_SHIFT].astype(np.intp)
    entries: TrackNumbers = tables.arena.entries[(pages << PAGE_SHIFT) | (tracks & PAGE_MASK)]
    return entries


def _pieces(extents: Extents) -> Iterator[Extents]:
    """Yield the same ranges in pieces of a bounded number of entries."""
    if not len(extents):
        return
    per_extent = -(-extents[:, 2] // PAGE_ENTRY_COUNT)
    offsets = expand(np.zeros(len(extents), np.int64), per_extent) * PAGE_ENTRY_COUNT
    short = np.repeat(extents, per_extent, axis=0)
    counts = np.minimum(short[:, 2] - offsets, PAGE_ENTRY_COUNT)
    short = np.stack([short[:, 0] + offsets, short[:, 1] + offsets, counts], axis=1)
    piece_of = np.cumsum(counts) // _PIECE_ENTRY_COUNT
    starts = np.flatnonzero(np.diff(piece_of, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(short)], strict=True):
        yield short[start:stop]
