"""The volumes of an open pool: made, copied, resized and deleted, several of them as one step where that is asked for.

Everything is checked, and room made, before anything is changed. Then memory is changed, and one record is logged and
written: a crash leaves all of it or none. Durable it is after the pool's next sync, which the caller makes before it
answers anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isochrone.model.errors import BusyError, ConflictError, NotFoundError, RefusedError
from isochrone.model.sizes import TRACKS_PER_VOLUME_MAX
from isochrone.model.volume_kind import VolumeKind, check_volume_name
from isochrone.store.documents import Documents
from isochrone.store.limits import TABLE_PAGE_COUNT_MAX, TOGETHER_COUNT_MAX, VOLUME_COUNT_MAX
from isochrone.store.log_records import NUMBER, VOLUME, VOLUME_COPY, Part, RecordType
from isochrone.store.read_only_volume import ReadOnlyVolume
from isochrone.store.references import check_references
from isochrone.store.stager import Stager
from isochrone.store.tables import VolumeTable, page_count_for
from isochrone.store.volume import Volume, VolumeParts

NO_DOCUMENTS: Final[Mapping[str, bytes | None]] = {}


@dataclass(frozen=True, slots=True)
class CopyItem:
    """One point-in-time copy to be made.

    Attributes:
        source: name of a volume, or the number of one (a hidden one has no other handle).
        name: of the copy, as its kind demands.
        kind: SNAPSHOT, COPY, IMAGE or BASE.
    """

    source: str | int
    name: str
    kind: VolumeKind


class VolumeSet:
    """Volumes of one pool.

    Attributes:
        by_name: those that are not hidden.
        by_number: all.
    """

    def __init__(
        self, parts: VolumeParts, documents: Documents, stager: Stager, log_write: Callable[[], None]
    ) -> None:
        """`log_write` writes pending records, making room in the log when it is full."""
        self._parts = parts
        self._state = parts.state
        self._documents = documents
        self._stager = stager
        self._log_write = log_write
        self.by_name: dict[str, Volume] = {}
        self.by_number: dict[int, Volume] = {}
        for table in self._state.volumes.values():
            self.add(table)

    def volume(self, volume: str | int) -> Volume:
        """Return a volume by name, or by number; NotFoundError when there is none."""
        try:
            return self.by_name[volume] if isinstance(volume, str) else self.by_number[volume]
        except KeyError:
            what = f"volume {volume[:80]!r}" if isinstance(volume, str) else f"volume number {volume}"
            raise NotFoundError(
                f"{what} does not exist in this pool",
                volume=volume[:80] if isinstance(volume, str) else volume,
            ) from None

    def create(self, name: str, size_bytes: int) -> Volume:
        """Add an empty volume; see `Pool.create_volume`."""
        self._parts.health.check()
        self.check_new([(name, VolumeKind.VOLUME)])
        self.check_sizes([(size_bytes, 0)])
        number = self._state.volume_number_next
        table = self._state.create_volume(number, name, size_bytes)
        self.log_together([(RecordType.VOLUME_CREATE, VOLUME.pack(number, size_bytes) + name.encode())])
        return self.add(table)

    def resize(self, name: str, size_bytes: int) -> None:
        """Give a volume another size; see `Pool.resize_volume`."""
        self._parts.health.check()
        volume = self.volume(name)
        check_writable(volume, "resized")
        self.check_sizes([(size_bytes, volume.size_bytes)])
        if size_bytes < volume.size_bytes:
            self._parts.reserve(0, 1)
        self._state.resize_volume(volume.number, size_bytes)
        volume.refresh()
        self.log_together([(RecordType.VOLUME_RESIZE, VOLUME.pack(volume.number, size_bytes))])

    def create_copies(
        self, items: Sequence[CopyItem], documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> list[Volume]:
        """Copy volumes as they are at one instant; see `Pool.create_copies`."""
        self._parts.health.check()
        _check_count(len(items), "copies")
        sources = [self.volume(item.source) for item in items]
        self.check_new([(item.name, item.kind) for item in items])
        self.check_sizes([(source.size_bytes, 0) for source in sources])
        self.check_shared([source.number for source in sources])
        self._documents.check(documents)
        self.reserve_shared({source.number for source in sources})
        parts: list[Part] = []
        made = []
        for item, source in zip(items, sources, strict=True):
            number = self._state.volume_number_next
            made.append(self._state.copy_volume(source.number, number, item.name, item.kind))
            payload = VOLUME_COPY.pack(source.number, number, item.kind) + item.name.encode()
            parts.append((RecordType.VOLUME_COPY, payload))
        parts += self._documents.change(documents)
        self.log_together(parts)
        return [self.add(table) for table in made]

    def delete(
        self, volumes: Sequence[str | int], documents: Mapping[str, bytes | None] = NO_DOCUMENTS
    ) -> None:
        """Remove volumes and their data; see `Pool.delete_volumes`."""
        self._parts.health.check()
        _check_count(len(volumes), "volumes")
        doomed = {volume.number: volume for volume in map(self.volume, volumes)}
        bases = {stay.base for history in self._state.histories.values() for stay in history.volumes}
        for number in doomed.keys() & bases:
            raise RefusedError(
                f"volume number {number} is where a history begins: drop that history", volume=number
            )
        self._documents.check(documents)
        parts: list[Part] = []
        for number in doomed:
            self._state.delete_volume(number)
            self.forget(number)
            parts.append((RecordType.VOLUME_DELETE, NUMBER.pack(number)))
        self.log_together(parts + self._documents.change(documents))

    def reserve_shared(self, numbers: set[int]) -> None:
        """All pages of these volumes are about to be shared: have room for the copies that linking will make.

        Raises PoolFullError; nothing was changed.
        """
        pages = self._stager.pages_staged(numbers)
        if pages:
            self._parts.reserve(0, len(pages))
            self._stager.reserve_pages(pages)

    def check_shared(self, numbers: Sequence[int]) -> None:
        """Refuse when so many more copies of these volumes could make a track be referred to too often."""
        tables = [self._state.volumes[number] for number in numbers]
        check_references(self._state, lambda: sum(table.repeat_count_max for table in tables))

    def check_sizes(self, sizes_bytes: Sequence[tuple[int, int]]) -> None:
        """Refuse sizes that volumes cannot have: pairs of the size to be and the size now, in bytes."""
        track_size_bytes = self._state.track_size_bytes
        pages = sum(len(table.pages) for table in self._state.volumes.values())
        for size_bytes, old_size_bytes in sizes_bytes:
            track_count, rest = divmod(size_bytes, track_size_bytes)
            if rest or not 1 <= track_count <= TRACKS_PER_VOLUME_MAX - 1:
                raise RefusedError(
                    f"{size_bytes} bytes cannot be a volume: choose a multiple of {track_size_bytes} up to "
                    f"{(TRACKS_PER_VOLUME_MAX - 1) * track_size_bytes}",
                    size_bytes=size_bytes,
                )
            pages += page_count_for(track_count) - page_count_for(old_size_bytes // track_size_bytes)
        if pages > TABLE_PAGE_COUNT_MAX:
            raise BusyError(
                f"volumes of this pool may show {TABLE_PAGE_COUNT_MAX * 1024 * track_size_bytes} bytes together, copies "
                "counted like any other: choose a smaller size, or delete copies",
                size_bytes=sizes_bytes[0][0],
            )

    def log_together(self, parts: Sequence[Part]) -> None:
        """Log what was just done in memory, as one, and bring it to the log file; nothing when there is nothing."""
        if parts:
            self._parts.log.append_together(parts)
            self._log_write()

    def add(self, table: VolumeTable) -> Volume:
        """Make a table of the state known as a volume."""
        volume = (Volume if table.kind.is_writable else ReadOnlyVolume)(self._parts, table)
        self.by_number[table.number] = volume
        if not table.kind.is_hidden:
            self.by_name[table.name] = volume
        return volume

    def forget(self, number: int) -> None:
        """A table has gone from the state."""
        volume = self.by_number.pop(number)
        volume.refresh()
        if not volume.kind.is_hidden:
            del self.by_name[volume.name]

    def check_new(self, names: Sequence[tuple[str, VolumeKind]]) -> None:
        """Refuse names that new volumes cannot have, or too many of them."""
        seen: set[str] = set()
        for name, kind in names:
            check_volume_name(name, kind)
            if kind.is_hidden:
                continue
            if name in self.by_name or name in seen:
                raise ConflictError(f"volume {name} exists already: choose another name", volume=name)
            seen.add(name)
        if len(self.by_number) + len(names) > VOLUME_COUNT_MAX:
            raise BusyError(
                f"a pool has at most {VOLUME_COUNT_MAX} volumes, copies among them, this one has {len(self.by_number)}: "
                "delete some first"
            )


def check_writable(volume: Volume, done: str) -> None:
    """Raise RefusedError when a volume must not be `done` to because it is read-only."""
    if not volume.kind.is_writable:
        raise RefusedError(
            f"{volume.name or f'volume number {volume.number}'} is a {volume.kind.name.lower()} and cannot be {done}: "
            "make a writable copy of it",
            volume=volume.name,
        )


def _check_count(count: int, what: str) -> None:
    if count > TOGETHER_COUNT_MAX:
        raise RefusedError(
            f"{count} {what} are too many for one step: at most {TOGETHER_COUNT_MAX}", count=count
        )
