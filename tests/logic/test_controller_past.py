"""Images of a controller's sessions: refused because something else relies on them, or because the session has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from isochrone.api.copy_requests import EstablishRequest
from isochrone.api.history_requests import CreateImageRequest
from isochrone.api.requests import CreateVolumeRequest
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.model.volume_kind import VolumeKind
from isochrone.session.image_document import ImageDocument, ImageMember
from isochrone.store.volume_set import CopyItem
from support.controller_world import SIZE_BYTES, World, session_request


def play(story: Callable[[World], Awaitable[None]]) -> None:
    async def begin() -> None:
        world = World()
        for name in ("db", "other"):
            await world.operations.create_volume(CreateVolumeRequest(name=name, size_bytes=SIZE_BYTES))
        await story(world)

    asyncio.run(begin())


def make_image(world: World) -> None:
    """Image `test` of session `bank`, of volume db."""
    members = (ImageMember(secondary="db", volume="db~test"),)
    document = ImageDocument(
        session="bank", session_id="2" * 32, image="test", at_ns=1, made_ns=2, members=members
    )
    world.pool.create_copies([CopyItem("db", "db~test", VolumeKind.IMAGE)], {document.key: document.dump()})
    world.past.catalogue.put(document)


@pytest.mark.parametrize(("source", "target"), [("db~test", "other"), ("other", "db~test")])
def test_an_image_that_is_copied_onto_a_volume_or_from_one_is_not_discarded(source: str, target: str) -> None:
    async def story(world: World) -> None:
        make_image(world)
        await world.copying.establish(EstablishRequest(source=source, target=target))
        with pytest.raises(ConflictError, match=f"copied onto {target}; withdraw that first: `.* {target}`"):
            await world.past.discard_image("bank", "test")
        assert len((await world.copying.copies()).relations) == 1
        await world.copying.withdraw(target)
        await world.past.discard_image("bank", "test")
        assert "db~test" not in world.pool.volumes

    play(story)


def test_a_session_that_is_deleted_while_its_image_waits_gets_none() -> None:
    async def story(world: World) -> None:
        shell = world.sessions.create(session_request("db"))
        pairs = tuple(
            pair.model_copy(
                update={
                    "complete": True,
                    "duplex": True,
                    "secondary_number": world.pool.volumes["db"].number,
                }
            )
            for pair in shell.session.document.pairs
        )
        shell.session.remember(shell.session.document.changed(pairs=pairs))
        async with world.past._one_image:  # another image is being made
            waiting = asyncio.create_task(world.past.create_image("bank", CreateImageRequest(image="test")))
            await asyncio.sleep(0)
            shell.session.delete(force=True)
        with pytest.raises(NotFoundError, match="was deleted while its image waited"):
            await waiting
        assert sorted(world.pool.volumes) == ["db", "other"]

    play(story)
