"""Track tables: from the track of a volume to the physical track, shared between volumes page by page.

A volume is an array of page numbers. A point-in-time copy copies that array and counts one more owner for
each page: no entry is touched and no data moves. From then on two rules keep the volumes apart (P5.3):

- changing a *shared page* copies the page first, and each track it points at is counted once more;
- changing a *shared track* redirects to a fresh one. Only a track owned alone, in a page owned alone, is
  overwritten in place, and only when the giving up of whoever shared it is durable (the allocator *holds* it
  until then).

A track's count is therefore how often live pages hold it (plus one while it is staged), a page's count how often
volumes point at it. A volume holds a track once, unless parts of it were copied into itself or into another one more
than once (`establish`): `repeat_count_max` bounds that.

A page that one volume has left, which was shared until a change that is not durable yet, is held (see `holds`). When it
is about to be changed, its tracks are held instead: so giving up a copy costs as much as it has pages, not tracks.

During recovery the counts of tracks are not kept (`accounting` is False): the log is replayed in big batches
that a count per step would break up, and one pass over all pages at the end is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.arena import PAGE_ENTRY_COUNT, PAGE_MASK, PAGE_SHIFT, Arena
from isochrone.store.doomed_pages import DoomedPages

_PIECE_PAGE_COUNT: Final = 1024
_RUN_ENTRY_COUNT: Final = 1 << 16
_NO_PAGES: Final[NDArray[np.uint32]] = np.zeros(0, np.uint32)


class UsedPages(NamedTuple):
    """Pages of a table that exist: their indexes in it, ascending, and their numbers."""

    indexes: NDArray[np.uint32]
    numbers: NDArray[np.uint32]


@dataclass(slots=True, eq=False)
class VolumeTable:
    """One volume's table.

    Attributes:
        number: never used again for another volume of the pool.
        name: unique among those that are not hidden.
        kind: what the volume is for.
        size_bytes: a multiple of the track size.
        track_count: tracks of the volume.
        pages: page number per 1,024 tracks, shape (ceil(track_count / 1024),), uint32; 0 is the null page.
        pages_view: the same memory for scalar access.
        mapped_track_count: entries that are not 0.
        repeat_count_max: no track and no page is held by this table more often.
        used_pages: see `used`; kept for those that never change, which are the most.
    """

    number: int
    name: str
    size_bytes: int
    track_count: int
    kind: VolumeKind = VolumeKind.VOLUME
    pages: NDArray[np.uint32] = field(default_factory=lambda: _NO_PAGES)
    pages_view: memoryview = field(default_factory=lambda: _NO_PAGES.data)
    mapped_track_count: int = 0
    repeat_count_max: int = 1
    used_pages: UsedPages | None = None

    def used(self) -> UsedPages:
        """Return where the pages are that exist."""
        if self.used_pages is not None:
            return self.used_pages
        indexes = np.flatnonzero(self.pages).astype(np.uint32)
        used = UsedPages(indexes, self.pages[indexes])
        self._keep(used)
        return used

    def set_pages(self, pages: NDArray[np.uint32], used: UsedPages | None = None) -> None:
        """Take another array of pages, and what `used` would return of it, if that is known."""
        self.pages = pages
        self.pages_view = pages.data
        self._keep(used)

    def _keep(self, used: UsedPages | None) -> None:
        self.used_pages = used if self.kind == VolumeKind.SNAPSHOT else None


def page_count_for(track_count: int) -> int:
    """Return how many pages cover `track_count` tracks."""
    return (track_count + PAGE_MASK) >> PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Assigned:
    """What `assign` did: entries that won, lost to a later one of the same call, and tracks freed by it."""

    linked: int
    superseded: int
    freed: int


class TrackTables:
    """All tables over one arena and one allocator. Callers have checked ranges and reserved pages."""

    def __init__(self, arena: Arena, allocator: Allocator) -> None:
        self.arena = arena
        self.allocator = allocator
        self.doomed = DoomedPages(arena, allocator)
        self.accounting = True

    def lookup(self, table: VolumeTable, first: int, count: int) -> TrackNumbers:
        """Return a copy of the entries of tracks `first` to `first + count - 1`."""
        page_first = first >> PAGE_SHIFT
        page_last = (first + count - 1) >> PAGE_SHIFT
        start = first & PAGE_MASK
        if page_first == page_last:
            return self.arena.page(table.pages_view[page_first])[start : start + count].copy()
        return self.arena.pages(table.pages[page_first : page_last + 1]).ravel()[start : start + count]

    def owned(self, table: VolumeTable, first: int, entries: TrackNumbers) -> NDArray[np.bool_]:
        """Return which of `entries`, looked up from track `first` on, may be overwritten in place."""
        owned: NDArray[np.bool_] = (self.allocator.counts[entries] == 1) & (entries != 0)
        page_indexes = np.arange(first, first + len(entries)) >> PAGE_SHIFT
        owned &= self.arena.counts[table.pages[page_indexes]] == 1
        return owned

    def pages_to_own(self, table: VolumeTable, tracks: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return the distinct page indexes of `tracks` that must be created or copied before an entry is set."""
        page_indexes = tracks >> PAGE_SHIFT
        wanting = self.arena.counts[table.pages[page_indexes]] != 1
        return np.unique(page_indexes[wanting]) if wanting.any() else page_indexes[:0]

    def count_pages_to_own(self, table: VolumeTable, first: int, end: int, *, creating: bool) -> int:
        """Return how many pages under tracks `first` to `end - 1` are shared, or also null when `creating`."""
        pages = table.pages[first >> PAGE_SHIFT : page_count_for(end)]
        counts = self.arena.counts[pages]
        return int(np.count_nonzero(counts != 1 if creating else counts > 1))

    def mapped_runs(self, table: VolumeTable, first: int, end: int) -> Iterator[tuple[int, bool]]:
        """Yield (first track, mapped) of alternating runs that cover tracks `first` to `end - 1`."""
        page_first = first >> PAGE_SHIFT
        present = table.pages[page_first : page_count_for(end)] != 0
        starts = [0, *(np.flatnonzero(present[1:] != present[:-1]) + 1).tolist()]
        state: bool | None = None
        for start, stop in zip(starts, [*starts[1:], len(present)], strict=True):
            low = max(first, (page_first + start) << PAGE_SHIFT)
            high = min(end, (page_first + stop) << PAGE_SHIFT)
            for at, mapped in self._runs_between(table, low, high) if present[start] else ((low, False),):
                if mapped != state:
                    yield at, mapped
                    state = mapped

    def _runs_between(self, table: VolumeTable, low: int, high: int) -> Iterator[tuple[int, bool]]:
        """Yield (first track, mapped) of runs over pages that exist, a bounded number of entries at a time."""
        for start in range(low, high, _RUN_ENTRY_COUNT):
            mapped = self.lookup(table, start, min(_RUN_ENTRY_COUNT, high - start)) != 0
            for index in [0, *(np.flatnonzero(mapped[1:] != mapped[:-1]) + 1).tolist()]:
                yield start + index, bool(mapped[index])

    def assign(self, table: VolumeTable, tracks: NDArray[np.integer], physicals: TrackNumbers) -> Assigned:
        """Set the entries of `tracks` (shape (n,)) to `physicals`, each of which counts one reference
        already.

        A track may appear more than once: the last one wins. A physical track that is not 0 appears once.
            What entries
        held before, and what lost, is dropped. Tracks that 0 is assigned to never create a page.
        """
        if not len(tracks):
            return Assigned(0, 0, 0)
        page_indexes = tracks >> PAGE_SHIFT
        pages = table.pages[page_indexes]
        is_data = physicals != 0
        wanting = (self.arena.counts[pages] != 1) & (is_data | (pages != 0))
        if wanting.any():
            for page_index in np.unique(page_indexes[wanting]).tolist():
                self.own_page(table, page_index)
            pages = table.pages[page_indexes]
        index = (pages.astype(np.intp) << PAGE_SHIFT) | (tracks & PAGE_MASK).astype(np.intp)
        entries = self.arena.entries
        before = entries[index]
        entries[index] = physicals  # numpy assigns in order: the last of several wins
        self.arena.dirty[pages] = 1
        self.arena.dirty[0] = 0
        if not self.accounting:
            return Assigned(len(tracks), 0, 0)
        return self._account(table, index, before, entries[index], physicals, is_data)

    def _account(
        self,
        table: VolumeTable,
        index: NDArray[np.intp],
        before: TrackNumbers,
        after: TrackNumbers,
        physicals: TrackNumbers,
        is_data: NDArray[np.bool_],
    ) -> Assigned:
        """Count references and mapped tracks after entries at `index` went from `before` to `after`."""
        won = after == physicals
        replaced = before[won & is_data]
        table.mapped_track_count += int(np.count_nonzero(won & is_data)) - int(np.count_nonzero(replaced))
        freed = self.drop_of(table, replaced[replaced != 0])
        lost = physicals[~won]
        freed += self.drop(lost[lost != 0])
        zeroed = ~is_data & won & (before != 0)
        if zeroed.any():
            _, distinct = np.unique(index[zeroed], return_index=True)
            unmapped = before[zeroed][distinct]
            table.mapped_track_count -= len(unmapped)
            freed += self.drop_of(table, unmapped)
        return Assigned(int(np.count_nonzero(won)), len(lost), freed)

    def own_page(self, table: VolumeTable, page_index: int) -> int:
        """Return the page at `page_index`, created or copied first if it is null or shared."""
        old = table.pages_view[page_index]
        if old and self.arena.counts_view[old] == 1:
            return old
        if old and self.arena.is_held(old):
            self.allocator.hold_owned(self._mapped(old))
            self.arena.unhold(old)
            return old
        new = self.arena.create()
        if old:
            self.arena.page(new)[:] = self.arena.page(old)
            self.arena.drop_one(old)
            if self.accounting:
                self.allocator.share(self.arena.page(old))
        table.pages_view[page_index] = new
        table.used_pages = None
        return new

    def clear(self, table: VolumeTable, first: int, count: int) -> None:
        """Unmap tracks `first` to `first + count - 1`; pages that become empty are given back."""
        if not count:
            return
        end = first + count
        page_first = first >> PAGE_SHIFT
        page_end = page_count_for(end)
        indexes = np.flatnonzero(table.pages[page_first:page_end]) + page_first
        starts = np.maximum(first - (indexes << PAGE_SHIFT), 0)
        stops = np.minimum(end - (indexes << PAGE_SHIFT), PAGE_ENTRY_COUNT)
        is_whole = stops - starts == PAGE_ENTRY_COUNT
        self.drop_pages(table, indexes[is_whole])
        for index in np.flatnonzero(~is_whole).tolist():
            self._clear_part(table, int(indexes[index]), int(starts[index]), int(stops[index]))

    def _clear_part(self, table: VolumeTable, page_index: int, start: int, stop: int) -> None:
        entries = self.arena.page(table.pages_view[page_index])[start:stop]
        if not entries.any():
            return
        number = self.own_page(table, page_index)
        page = self.arena.page(number)
        gone = page[start:stop][page[start:stop] != 0]
        page[start:stop] = 0
        self.arena.dirty[number] = 1
        table.mapped_track_count -= len(gone)
        self.drop_of(table, gone)
        if not page.any():
            self.arena.drop_one(number)
            table.pages[page_index] = 0
            table.used_pages = None

    def drop_pages(self, table: VolumeTable, page_indexes: NDArray[np.integer]) -> None:
        """Let a volume's pages at `page_indexes` (distinct, none is null) go."""
        table.used_pages = None
        for start in range(0, len(page_indexes), _PIECE_PAGE_COUNT):
            piece = page_indexes[start : start + _PIECE_PAGE_COUNT]
            numbers = table.pages[piece]
            table.pages[piece] = 0
            if self.accounting:
                table.mapped_track_count -= int(np.count_nonzero(self.arena.pages(numbers)))
            self.give_up(table, numbers)

    def give_up(self, table: VolumeTable, numbers: NDArray[np.uint32]) -> None:
        """A volume points at pages `numbers` (may repeat) once less each; what nothing points at any more is freed."""
        self.free_pages(table, self.arena.drop(numbers, hold=self.accounting))

    def free_pages(self, table: VolumeTable, gone: NDArray[np.uint32]) -> None:
        """Nothing points at pages of a table any more: drop what they refer to, now or later."""
        if self.accounting:
            self.doomed.add(gone, table.repeat_count_max)
        else:
            self.arena.reuse(gone)

    def drop(self, tracks: TrackNumbers) -> int:
        """Count one reference less to each of `tracks` (distinct); return how many nothing refers to any
        more.
        """
        if not self.accounting or not len(tracks):
            return 0
        return self.allocator.drop(tracks)

    def drop_of(self, table: VolumeTable, tracks: TrackNumbers) -> int:
        """Do the same for entries of a table, which may hold a track more than once."""
        if table.repeat_count_max == 1:
            return self.drop(tracks)
        return self.allocator.drop_repeated(tracks) if self.accounting and len(tracks) else 0

    def _mapped(self, number: int) -> TrackNumbers:
        """Return the entries of a page that are not 0."""
        entries = self.arena.page(number)
        mapped: TrackNumbers = entries[entries != 0]
        return mapped

    def resize(self, table: VolumeTable, size_bytes: int, track_count: int) -> None:
        """Give the table another size; what lies beyond it is unmapped."""
        pages = np.zeros(page_count_for(track_count), np.uint32)
        kept = min(len(pages), len(table.pages))
        if track_count:
            self.drop_pages(table, np.flatnonzero(table.pages[kept:]) + kept)
        else:
            self._drop_all(table)
        if track_count < table.track_count:
            self.clear(table, track_count, min(table.track_count, kept << PAGE_SHIFT) - track_count)
        pages[:kept] = table.pages[:kept]
        table.set_pages(pages)
        table.size_bytes = size_bytes
        table.track_count = track_count

    def _drop_all(self, table: VolumeTable) -> None:
        """Let all pages go, without looking into those that others share."""
        self.give_up(table, table.pages[table.pages != 0])
        table.pages[:] = 0
        table.mapped_track_count = 0
