"""What NBD clients see of copies: what an export is, and where it may differ from a copy it came after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from isochrone.controller.copy_diff import changed_runs
from isochrone.copies.catalogue import Catalogue
from isochrone.model.errors import NotFoundError
from isochrone.model.volume_kind import VolumeKind
from isochrone.nbd import constants as c
from isochrone.report.times import wall_text
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume

PIECE_TRACKS_MIN: Final = 1 << 12
PIECE_TRACKS_MAX: Final = 1 << 18
"""Tracks compared at a time: few for a client that wants the first extent only, more the further it asks."""


class ChangedMap:
    """`isochrone:changed:NAME` of one export, open for one connection (nbd.export.StatusMap).

    Args:
        closed: called at the end.
    """

    def __init__(self, pool: Pool, base: Volume, volume: Volume, closed: Callable[[], None]) -> None:
        self._pool = pool
        self._base = base
        self._volume = volume
        self._closed = closed

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (length, flags) that cover the range in order."""
        size = self._pool.track_size_bytes
        end_offset = offset + length
        end = -(-end_offset // size)
        first, piece = offset // size, PIECE_TRACKS_MIN
        position = offset
        while first < end:
            stop = min(end, first + piece)
            starts, counts = changed_runs(self._pool, self._base, self._volume, first, stop)
            for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
                changed_from = max(start * size, offset)
                changed_to = min((start + count) * size, end_offset)
                if changed_from > position:
                    yield changed_from - position, 0
                yield changed_to - changed_from, c.STATE_CHANGED
                position = changed_to
            stop_offset = min(stop * size, end_offset)
            if stop_offset > position:
                yield stop_offset - position, 0
                position = stop_offset
            first, piece = stop, min(2 * piece, PIECE_TRACKS_MAX)

    def close(self) -> None:
        """The connection has ended."""
        self._closed()


class CopyViews:
    """The catalogue, as exports need it. `describe_image`: what a volume is that is of a test image, "" for any other."""

    def __init__(self, pool: Pool, catalogue: Catalogue, describe_image: Callable[[str], str]) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._describe_image = describe_image

    def description(self, volume: Volume) -> str:
        """Return what a copy or image is of, and of when; "" for a volume that is none."""
        copy, member = self._catalogue.copy_of(volume.name), self._catalogue.member(volume.name)
        if copy is None or member is None:
            return self._describe_image(volume.name)
        what = "writable copy" if copy.writable else "snapshot"
        hint = ", while its first copy was running: no image" if member.incomplete else ""
        return f"{what} of {member.source}, taken {wall_text(copy.taken_wall_ns)}{hint}"

    def contexts(self, name: str) -> list[str]:
        """Return the metadata contexts of the export `name`."""
        return [f"{c.META_CONTEXT_CHANGED_PREFIX}{base}" for base in self._catalogue.bases(name)]

    def base_of(self, name: str, context: str) -> str:
        """Return the snapshot that `context` of the export `name` compares with. NotFoundError when it is gone."""
        base = self._catalogue.bases(name).get(context.removeprefix(c.META_CONTEXT_CHANGED_PREFIX))
        if base is None or not context.startswith(c.META_CONTEXT_CHANGED_PREFIX):
            raise NotFoundError(
                f"{name} came after no copy that {context!r} names; select another context", name=context
            )
        return base

    def open_map(self, volume: Volume, context: str, closed: Callable[[], None]) -> ChangedMap:
        """Return where `volume` differs from the copy that `context` names; `closed` is called when it is closed."""
        base = self._pool.volumes[self.base_of(volume.name, context)]
        return ChangedMap(self._pool, base, volume, closed)


def is_default_candidate(volume: Volume) -> bool:
    """Return whether a client that asks for no name may mean `volume`: not a copy."""
    return volume.kind is VolumeKind.VOLUME
