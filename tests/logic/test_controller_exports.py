"""Volumes as NBD exports: thin on the way through, read-only when they must be."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from isochrone.controller.copy_views import CopyViews
from isochrone.controller.exports import PoolExports, VolumeExport
from isochrone.copies.catalogue import Catalogue
from isochrone.model.errors import ConflictError, NotFoundError, PoolFullError
from isochrone.model.volume_kind import VolumeKind
from isochrone.nbd.constants import Errno
from isochrone.nbd.errors import NbdError
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume


class FakeWriter:
    """Notes what comes; raises what it is told to."""

    def __init__(self) -> None:
        self.batch_write_count = 0
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.refusal = ""

    def write(self, volume: Volume, offset: int, data: object) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("write", volume.name, offset, data))

    def zero(self, volume: Volume, offset: int, length: int, *, allocate: bool) -> None:
        self.calls.append(("zero", volume.name, offset, length, allocate))

    def has_durable_marks(self, number: int) -> bool:
        return number == 2

    def prepare(self, volume: Volume, changes: Sequence[tuple[int, int, bool]]) -> Awaitable[None] | None:
        self.calls.append(("prepare", volume.name, *changes))
        return None

    def end_batch(self, volume_number: int) -> int:
        if self.error is not None:
            raise self.error
        return 6 + volume_number

    def room_wait_ns(self, volume_number: int) -> int:
        return 10 * volume_number

    def write_refusal(self, number: int) -> str:
        return self.refusal if number == 1 else ""


class World:
    """Exports over two fake volumes."""

    def __init__(self) -> None:
        self.writer = FakeWriter()
        self.secondaries: dict[str, str] = {}
        self.fatal: list[BaseException] = []
        self.flush_count = 0
        volumes = {
            name: SimpleNamespace(
                name=name,
                number=number,
                size_bytes=1 << 20,
                kind=VolumeKind.VOLUME,
                read=lambda _, length: bytes(length),
            )
            for number, name in enumerate(("data", "wal"), 1)
        }
        self.exports = PoolExports(
            cast("dict[str, Volume]", volumes),
            self.writer,
            CopyViews(cast("Pool", SimpleNamespace(volumes=volumes)), Catalogue({}), lambda _: ""),
            track_size_bytes=4096,
            block_size_min=1,
            secondary_of=lambda name: self.secondaries.get(name, ""),
            flush=self.flush,
            on_fatal=self.fatal.append,
        )

    async def flush(self) -> None:
        self.flush_count += 1


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def export(world: World) -> Iterator[VolumeExport]:
    export = world.exports.open("data")
    yield export
    world.exports.close(export)
    assert export.connection_count == 0


def test_a_write_reaches_the_capture_core_as_it_came(world: World, export: VolumeExport) -> None:
    data = memoryview(b"x" * 512)
    export.write(1024, data)
    assert world.writer.calls == [("write", "data", 1024, data)]
    assert world.writer.calls[0][3] is data
    assert export.end_batch() == 7
    assert export.room_wait_ns() == 10


def test_what_clients_do_is_counted_over_all_connections(world: World, export: VolumeExport) -> None:
    export.write(0, memoryview(bytes(100)))
    again = world.exports.open("data")
    again.read(0, 50)
    world.exports.close(again)
    assert again is export
    assert (export.write_count, export.written_bytes, export.read_count, export.read_bytes) == (1, 100, 1, 50)
    assert export.connection_count == 1
    assert world.writer.batch_write_count == 1


def test_a_secondary_of_a_running_session_is_read_only_until_the_session_ends(world: World) -> None:
    world.secondaries["data"] = "bank"
    export = world.exports.open("data")
    assert export.read_only
    assert "bank" in export.description
    assert not world.exports.open("wal").read_only
    del world.secondaries["data"]
    assert not export.read_only


def test_a_volume_whose_writes_are_refused_is_offered_read_only(world: World, export: VolumeExport) -> None:
    assert not export.read_only
    world.writer.refusal = "recovered elsewhere"
    assert export.read_only


def test_a_refused_write_is_answered_eperm(world: World, export: VolumeExport) -> None:
    world.writer.error = ConflictError("switching over")
    with pytest.raises(NbdError) as caught:
        export.write(0, memoryview(b"x"))
    assert caught.value.errno is Errno.EPERM
    assert export.write_count == 0
    assert world.fatal == []


@pytest.mark.parametrize("error", [PoolFullError("full"), OSError(5, "Input/output error")])
def test_an_error_of_the_rooms_is_handed_on(world: World, export: VolumeExport, error: Exception) -> None:
    world.writer.error = error
    with pytest.raises(type(error)):
        export.write(0, memoryview(b"x"))
    assert world.fatal == []


def test_an_error_nobody_expected_is_fatal(world: World, export: VolumeExport) -> None:
    bug = world.writer.error = KeyError("a bug")
    with pytest.raises(KeyError):
        export.write(0, memoryview(b"x"))
    with pytest.raises(KeyError):
        export.end_batch()
    assert world.fatal == [bug, bug]


def test_a_flush_is_the_pools(world: World, export: VolumeExport) -> None:
    asyncio.run(export.flush())
    assert world.flush_count == 1


def test_an_unknown_name_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError, match="volume list"):
        world.exports.open("nothing")
    assert world.exports.names() == ["data", "wal"]
