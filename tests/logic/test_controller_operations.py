"""Commands of a controller: durable before they are answered, refused with the cure while a volume is in use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from isochrone.api.requests import (
    AddPairsRequest,
    ChangeSessionRequest,
    CreateVolumeRequest,
    RecoverRequest,
    RemovePairsRequest,
    ResizeVolumeRequest,
    ResumeRequest,
    SuspendRequest,
)
from isochrone.model.choices import Compression
from isochrone.model.errors import ConflictError, IsochroneError
from isochrone.session.document import SessionDocument, load_document
from isochrone.store.pool import Pool
from support.controller_world import SIZE_BYTES, World, pair, session_request

Step = Callable[[World], Awaitable[Any]]


def in_world(*steps: Step) -> World:
    async def play() -> World:
        world = World()
        for step in steps:
            await step(world)
        return world

    return asyncio.run(play())


def create(name: str) -> Step:
    return lambda w: w.operations.create_volume(CreateVolumeRequest(name=name, size_bytes=SIZE_BYTES))


def begin(*volumes: str) -> Step:
    return lambda w: w.operations.create_session(session_request(*volumes))


def document(pool: Pool) -> SessionDocument:
    return load_document("session/bank", pool.documents["session/bank"])


COMMANDS: dict[str, tuple[list[Step], Step, Callable[[Pool], object]]] = {
    "volume create": ([], create("x"), lambda pool: pool.volumes["x"].size_bytes == SIZE_BYTES),
    "volume resize": (
        [create("x")],
        lambda w: w.operations.resize_volume("x", ResizeVolumeRequest(size_bytes=2 * SIZE_BYTES)),
        lambda pool: pool.volumes["x"].size_bytes == 2 * SIZE_BYTES,
    ),
    "volume delete": (
        [create("x")],
        lambda w: w.operations.delete_volume("x"),
        lambda pool: "x" not in pool.volumes,
    ),
    "session create": ([], begin("x"), lambda pool: document(pool).pairs[0].secondary_volume == "x"),
    "session set": (
        [begin("x")],
        lambda w: w.operations.change_session("bank", ChangeSessionRequest(compression=Compression.ZSTD)),
        lambda pool: document(pool).compression is Compression.ZSTD,
    ),
    "session add": (
        [begin("x")],
        lambda w: w.operations.add_pairs("bank", AddPairsRequest.model_validate({"pairs": [pair("y")]})),
        lambda pool: len(document(pool).pairs) == 2,
    ),
    "session remove": (
        [begin("x", "y")],
        lambda w: w.operations.remove_pairs("bank", RemovePairsRequest(secondary_volumes=["y"])),
        lambda pool: document(pool).pairs[1].removing,
    ),
    "session suspend": (
        [begin("x")],
        lambda w: w.operations.suspend("bank", SuspendRequest(reason="line work")),
        lambda pool: document(pool).reason == "line work",
    ),
    "session resume": (
        [begin("x"), lambda w: w.operations.suspend("bank", SuspendRequest())],
        lambda w: w.operations.resume("bank", ResumeRequest()),
        lambda pool: document(pool).state == "ACTIVE",
    ),
    "session recover": (
        [begin("x")],
        lambda w: recover_and_harden(w),
        lambda pool: document(pool).state == "ENDED",
    ),
    "session delete": (
        [begin("x")],
        lambda w: w.operations.delete_session("bank"),
        lambda pool: "session/bank" not in pool.documents,
    ),
    "session delete at a primary": (
        [create("x"), lambda w: captured(w, "x")],
        lambda w: w.operations.delete_session("far"),
        lambda pool: not any(key.startswith("capture/") for key in pool.documents),
    ),
}


async def recover_and_harden(world: World) -> None:
    await world.operations.recover("bank", RecoverRequest(incomplete=True))


async def captured(world: World, volume: str) -> None:
    world.capture(volume)
    await world.flush()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_command_that_was_answered_survives_a_power_loss(name: str, seed: int) -> None:
    before, command, proof = COMMANDS[name]
    world = in_world(*before, command)
    world.disk.power_loss(Random(seed))
    assert proof(Pool.open(world.disk))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_proofs_of_durability_need_the_command(name: str) -> None:
    before, _, proof = COMMANDS[name]
    world = in_world(*before)
    with contextlib.suppress(KeyError):  # nothing is there yet
        assert not proof(world.pool)


async def opened(world: World) -> None:
    world.exports.open("x")


@pytest.mark.parametrize(
    ("use", "cure"),
    [
        ([create("x"), lambda w: captured(w, "x")], "isochrone session delete far` here"),
        ([create("x"), begin("x")], "isochrone session remove bank x"),
        ([create("x"), opened], "disconnect its clients first"),
    ],
    ids=["primary", "secondary", "open"],
)
@pytest.mark.parametrize(
    "command",
    [
        lambda w: w.operations.resize_volume("x", ResizeVolumeRequest(size_bytes=2 * SIZE_BYTES)),
        lambda w: w.operations.delete_volume("x"),
    ],
    ids=["resize", "delete"],
)
def test_a_volume_in_use_is_left_as_it_is_and_the_cure_is_named(
    use: list[Step], command: Step, cure: str
) -> None:
    async def play() -> World:
        world = World()
        for step in use:
            await step(world)
        documents = dict(world.pool.documents)
        with pytest.raises(ConflictError) as refused:
            await command(world)
        assert cure in refused.value.message
        assert dict(world.pool.documents) == documents
        return world

    assert asyncio.run(play()).pool.volumes["x"].size_bytes == SIZE_BYTES


@pytest.mark.parametrize(
    ("use", "cure"),
    [
        (lambda w: captured(w, "x"), "isochrone session delete far` here"),
        (opened, "disconnect its clients first"),
    ],
    ids=["primary", "open"],
)
def test_a_volume_in_use_is_not_made_a_secondary(use: Step, cure: str) -> None:
    with pytest.raises(ConflictError) as refused:
        in_world(create("x"), use, begin("x"))
    assert cure in refused.value.message


def test_an_error_of_the_device_is_told_instead_of_a_success() -> None:
    async def play() -> None:
        world = World()

        async def broken() -> None:
            raise IsochroneError("the device failed")

        world.operations._flush = broken
        with pytest.raises(IsochroneError, match="the device failed"):
            await create("x")(world)

    asyncio.run(play())
