"""Making the image of a past instant, in bounded pieces, while commits go on.

The image grows in hidden volumes that began as copies of the bases. Each piece of the history is read, cut at the time and
expanded by a call that touches nothing else, so that it may run in a thread; between the calls, in a bounded step, it is
linked. What is committed meanwhile has a later time, or is looked at in the end. Only the bases must stay: the history is
*pinned*, and whoever wishes to give up its oldest part waits. Whoever must have the space does not, and then the image
fails.

Nothing of it is in the log before it is whole. A checkpoint in between holds the hidden volumes; opening the pool drops
them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Final

from isochrone.model.errors import ConflictError, IsochroneError
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history import History, KeptVolume, redirected
from isochrone.store.kept_entries import Piece, early_of
from isochrone.store.staging import Chunk, Entries, entries_by_volume
from isochrone.store.state import PoolState
from isochrone.store.tables import VolumeTable

OWNED_PAGE_COUNT_MAX: Final = 256
"""Table pages that are copied in one step: about 10 ms."""

ImageSteps = Generator[Callable[[], None], None, None]


def _nothing() -> None:
    """Let others go on."""


class _Part:
    """Some of a piece: what of it a time asks for, by volume of the image."""

    def __init__(self, piece: Piece, record_start: int, track_start: int) -> None:
        self._piece = piece
        self._starts = record_start, track_start
        self.ends = piece.record_count, piece.track_count
        self.chunk: Chunk | None = None
        self.entries: list[tuple[int, Entries]] = []
        self.error: Exception | None = None

    def prepare(self, at_ns: int, targets: Mapping[int, int]) -> None:
        """Read and expand it; an error is kept, because a history that was given up meanwhile is the better reason."""
        try:
            self._prepare(at_ns, targets)
        except (OSError, IsochroneError) as error:
            self.error = error

    def _prepare(self, at_ns: int, targets: Mapping[int, int]) -> None:
        if self._piece.oldest_ns <= at_ns and self.ends > self._starts:
            chunk = redirected(early_of(self._piece.part(*self._starts, *self.ends), at_ns), targets)
            self.chunk, self.entries = chunk, entries_by_volume(chunk)


class ImageBuild:
    """The image of some volumes of a session at a time, being made.

    Attributes:
        tables: hidden volumes, by number of the volume of which they are the image; whole when `steps` has ended. Then
            `release` forgets them, without a trace, or `take` leaves them to the caller.
    """

    def __init__(
        self,
        state: PoolState,
        reserve: Callable[[int, int], None],
        session: int,
        at_ns: int,
        stays: Mapping[int, KeptVolume],
    ) -> None:
        """`stays` are those of the volumes wanted, by number, that cover the time."""
        self._state = state
        self._reserve = reserve
        self._session = session
        self._at_ns = at_ns
        self._history: History = state.histories[session]
        self._bases_changed_count = self._history.bases_changed_count
        self.tables: dict[int, VolumeTable] = {}
        self.targets: dict[int, int] = {}
        """Number of the image by number of the base."""
        for number, stay in stays.items():
            image = state.volume_number_next
            self.tables[number] = state.copy_volume(stay.base, image, "", VolumeKind.BASE)
            self.targets[stay.base] = image
        state.unfinished.update(self.targets.values())
        self._history.pin_count += 1

    def steps(self) -> ImageSteps:
        """Yield blocking calls, to be made one after the other in any thread. Raises as `Pool.history_image` does."""
        pieces = self._history.entries.pieces
        index = 0
        while index < len(pieces):
            part = _Part(pieces[index], 0, 0)
            yield partial(part.prepare, self._at_ns, self.targets)
            self.check_bases()
            if part.error is not None:
                raise part.error
            yield from self._own_pages(part)
            self.check_bases()
            self._link(part)
            rest = _Part(pieces[index], *part.ends)  # what was committed meanwhile
            rest.prepare(self._at_ns, self.targets)
            if rest.error is not None:
                raise rest.error
            self._link(rest)
            index += 1

    def take(self) -> None:
        """The image is whole and in the log, or on its way to be: it is the caller's."""
        self._state.unfinished.difference_update(self.targets.values())
        self._history.pin_count -= 1

    def forget(self) -> None:
        """Leave no trace of it."""
        self.take()
        for number in self.targets.values():
            self._state.delete_volume(number)

    def check_bases(self) -> None:
        """Raise ConflictError when the history was given up, in whole or in part, since the image was begun."""
        if self._history.bases_changed_count != self._bases_changed_count:
            raise ConflictError(
                "the history was given up, in whole or in part, while an image of it was being made: try again with an "
                "instant that there is still, and make room in the pool",
                session=self._session,
            )

    def _own_pages(self, part: _Part) -> ImageSteps:
        """Make the table pages that linking a part needs, a few at a time."""
        for number, entries in part.entries:
            table = self._state.volumes[number]
            wanted = self._state.tables.pages_to_own(table, entries.tracks).tolist()
            for start in range(0, len(wanted), OWNED_PAGE_COUNT_MAX):
                pages = wanted[start : start + OWNED_PAGE_COUNT_MAX]
                self._reserve(0, len(pages))
                for page_index in pages:
                    self._state.tables.own_page(table, page_index)
                if len(wanted) > OWNED_PAGE_COUNT_MAX:
                    yield _nothing

    def _link(self, part: _Part) -> None:
        if part.chunk is None:
            return
        tables = [(self._state.volumes[number], entries) for number, entries in part.entries]
        pages = sum(len(self._state.tables.pages_to_own(table, entries.tracks)) for table, entries in tables)
        if pages:
            self._reserve(0, pages)
        self._state.allocator.share(part.chunk.physicals)
        for table, entries in tables:
            self._state.tables.assign(table, entries.tracks, entries.physicals)
