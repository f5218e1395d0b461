"""The pool's volumes as NBD exports.

An export is thin: a write goes to the capture core as it came, a read to the volume. What is decided here is
only whether a volume is offered read-only: a snapshot, a secondary of a running session, and a volume whose writes the
capture core refuses (its session was recovered elsewhere, or is switching over).
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

from isochrone.controller.copy_views import CopyViews, is_default_candidate
from isochrone.model.errors import ConflictError, IsochroneError, NotFoundError
from isochrone.nbd.constants import Errno
from isochrone.nbd.errors import NbdError
from isochrone.nbd.export import Export, StatusMap
from isochrone.store.disk import Buffer
from isochrone.store.volume import Volume


class Writer(Protocol):
    """The only door for application writes: capture.Primary, as its shell runs it.

    Attributes:
        batch_write_count: writes since the last `end_batch`, counted here.
    """

    batch_write_count: int

    def write(self, volume: Volume, offset: int, data: Buffer) -> None:
        """Write, marked and captured."""

    def zero(self, volume: Volume, offset: int, length: int, *, allocate: bool) -> None:
        """Zero, marked and captured."""

    def has_durable_marks(self, number: int) -> bool:
        """Whether changes of volume `number` are to be prepared."""

    def prepare(self, volume: Volume, changes: Sequence[tuple[int, int, bool]]) -> Awaitable[None] | None:
        """Return None if `changes` may be made at once, else what to wait for before they are."""

    def end_batch(self, volume_number: int) -> int:
        """Seal the batch; return the nanoseconds its acknowledgements are held."""

    def room_wait_ns(self, volume_number: int) -> int:
        """Return how long they wait for room at most, 0 when they do not."""

    def write_refusal(self, number: int) -> str:
        """Why writes to the volume are refused, "" when they are not."""


class VolumeExport:
    """One volume as NBD sees it (nbd.export.Export); shared by its connections.

    Attributes:
        connection_count: how often it is open now.
        read_count, read_bytes, write_count, written_bytes: what clients did since the controller started.
    """

    def __init__(
        self,
        volume: Volume,
        writer: Writer,
        *,
        track_size_bytes: int,
        block_size_min: int,
        flush: Callable[[], Awaitable[None]],
        role: Callable[[], str],
        describe: Callable[[], str],
        open_map: Callable[[str], StatusMap],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """`role` returns why the volume is read-only, "" when it is not; `describe` what it is."""
        self.volume = volume
        self.connection_count = 0
        self.read_count = self.read_bytes = 0
        self.write_count = self.written_bytes = 0
        self.block_size_min = block_size_min
        self.block_size_preferred = track_size_bytes
        self._read_only_reason = role
        self._describe = describe
        self.open_map = open_map
        self._flush = flush
        self._on_fatal = on_fatal
        self._writer = writer
        self._end_batch = functools.partial(writer.end_batch, volume.number)
        self._write = functools.partial(writer.write, volume)
        self._zero = functools.partial(writer.zero, volume)

    @property
    def name(self) -> str:
        """The volume's name."""
        return self.volume.name

    @property
    def description(self) -> str:
        """What it is, and why it is read-only, for people."""
        return "; ".join(text for text in (self._describe(), self._read_only_reason()) if text)

    @property
    def size_bytes(self) -> int:
        """The volume's size."""
        return self.volume.size_bytes

    @property
    def read_only(self) -> bool:
        """Whether writes are refused now."""
        return bool(self._read_only_reason())

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes."""
        try:
            data = self.volume.read(offset, length)
        except Exception as error:
            self._judge(error)
            raise
        self.read_count += 1
        self.read_bytes += length
        return data

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data`, captured for every session of the volume."""
        try:
            self._write(offset, data)
        except Exception as error:
            self._judge(error)
            raise
        self.write_count += 1
        self.written_bytes += len(data)
        self._writer.batch_write_count += 1

    def zero(self, offset: int, length: int, *, allocate: bool) -> None:
        """Make the range read as zeros, captured for every session of the volume."""
        try:
            self._zero(offset, length, allocate=allocate)
        except Exception as error:
            self._judge(error)
            raise

    def block_status(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield runs of mapped and unmapped bytes."""
        return self.volume.mapped_runs(offset, length)

    @property
    def wants_notice(self) -> bool:
        """Whether a session of the volume keeps its marks durably."""
        return self._writer.has_durable_marks(self.volume.number)

    def prepare(self, changes: Sequence[tuple[int, int, bool]]) -> Awaitable[None] | None:
        """Make what is to be changed durably known first; see nbd.export.Export."""
        return self._writer.prepare(self.volume, changes)

    def end_batch(self) -> int:
        """Seal what one wake-up brought; see nbd.export.Export."""
        try:
            return self._end_batch()
        except Exception as error:
            self._judge(error)
            raise

    def room_wait_ns(self) -> int:
        """Return how long replies wait for room at most; see nbd.export.Export."""
        return self._writer.room_wait_ns(self.volume.number)

    async def flush(self) -> None:
        """Return once everything written before is durable."""
        await self._flush()

    def _judge(self, error: Exception) -> None:
        """Raise what the client is to be told instead of `error`; one nobody expected ends the process as well."""
        if isinstance(error, ConflictError):
            raise NbdError(Errno.EPERM, error.message) from error
        if not isinstance(error, IsochroneError | OSError | MemoryError):
            self._on_fatal(error)


class PoolExports:
    """All volumes of a pool, by name (nbd.export.Exports).

    Args:
        volumes: the pool's volumes; a live view.
        copies: what is to be said of point-in-time copies.
        secondary_of: the name of the running session that a volume is a secondary of, "" if none.
    """

    def __init__(
        self,
        volumes: Mapping[str, Volume],
        writer: Writer,
        copies: CopyViews,
        *,
        track_size_bytes: int,
        block_size_min: int,
        secondary_of: Callable[[str], str],
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._volumes = volumes
        self._copies = copies
        self._writer = writer
        self._track_size_bytes = track_size_bytes
        self._block_size_min = block_size_min
        self._secondary_of = secondary_of
        self._flush = flush
        self._on_fatal = on_fatal
        self._exports: dict[int, VolumeExport] = {}

    def names(self) -> list[str]:
        """Return the names of all volumes."""
        return sorted(self._volumes)

    def default(self) -> str:
        """Return the one volume that is no copy, "" when there are others."""
        found = [name for name, volume in self._volumes.items() if is_default_candidate(volume)]
        return found[0] if len(found) == 1 else ""

    def contexts(self, name: str) -> list[str]:
        """Return a context for each copy that volume `name` came after."""
        return self._copies.contexts(name)

    def open(self, name: str) -> VolumeExport:
        """Return the export of the volume `name`. Raises NotFoundError."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFoundError(f"no volume {name!r} here; see `isochrone volume list`", name=name)
        export = self.of(volume)
        export.connection_count += 1
        return export

    def close(self, export: Export) -> None:
        """Take an export back."""
        assert isinstance(export, VolumeExport)
        export.connection_count -= 1

    def of(self, volume: Volume) -> VolumeExport:
        """Return the one export of `volume`, open or not."""
        export = self._exports.get(volume.number)
        if export is None:
            export = self._exports[volume.number] = VolumeExport(
                volume,
                self._writer,
                track_size_bytes=self._track_size_bytes,
                block_size_min=self._block_size_min,
                flush=self._flush,
                role=functools.partial(self.read_only_reason, volume),
                describe=functools.partial(self._copies.description, volume),
                open_map=functools.partial(self._open_map, volume),
                on_fatal=self._on_fatal,
            )
        return export

    def _open_map(self, volume: Volume, context: str) -> StatusMap:
        """Open a context of `volume`; the copy that it compares with counts as open meanwhile."""
        base = self.of(self._volumes[self._copies.base_of(volume.name, context)])
        states = self._copies.open_map(volume, context, functools.partial(self.close, base))
        base.connection_count += 1
        return states

    def number_of(self, name: str) -> int:
        """Return the number of the volume `name`, which exists."""
        return self._volumes[name].number

    def forget(self, volume: Volume) -> None:
        """Drop what is kept of a deleted volume."""
        self._exports.pop(volume.number, None)

    def read_only_reason(self, volume: Volume) -> str:
        """Return why `volume` is offered read-only, "" when it is not."""
        if not volume.kind.is_writable:
            return "read-only"
        session = self._secondary_of(volume.name)
        if session:
            return f"secondary of session {session}"
        return self._writer.write_refusal(volume.number)
