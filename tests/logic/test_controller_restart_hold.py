"""A restarted primary can ask its movers before it serves: whether its sessions were recovered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from isochrone.controller.primary_shell import PrimaryShell
from isochrone.link.messages import Fence
from support.cores import SESSION_ID, PrimarySite, hello
from support.store import run

FOR_EVER_S = 3600.0
AT_ONCE_S = 0.001


class Restarted:
    """A primary whose controller was killed and started while a mover was connected."""

    def __init__(self, *, is_captured: bool = True) -> None:
        self.site = PrimarySite()
        if is_captured:
            self.site.open_stream()
            self.site.restart()
        self.shell = PrimaryShell(self.site.primary, self.site.links, flush=self._flush, on_fatal=self._fatal)

    async def _flush(self) -> None:
        run(self.site.pool.sync())

    @staticmethod
    def _fatal(error: BaseException) -> None:
        raise error

    def mover_calls(self) -> None:
        self.site.links.link_opened(2)
        self.site.say(2, hello())

    def is_fenced_elsewhere(self) -> None:
        self.site.links.link_opened(2)
        self.site.say(2, hello(epoch=2))
        self.site.say(2, Fence(2, 1, ["a"], ["a"]))
        self.site.links.link_lost(2)


def meet(check: Callable[[Restarted], Awaitable[None]], *, is_captured: bool = True) -> list[Any]:
    """Run `check`; returns what was logged."""

    async def main() -> None:
        await check(Restarted(is_captured=is_captured))

    with structlog.testing.capture_logs() as lines:
        asyncio.run(main())
    return lines


async def holds(shell: PrimaryShell, wait_s_max: float) -> asyncio.Task[None]:
    """Begin to wait, and give it every opportunity to end too early."""
    waiting = asyncio.create_task(shell.wait_for_movers(wait_s_max))
    for _ in range(100):
        await asyncio.sleep(0)
    return waiting


@pytest.mark.parametrize("event", [Restarted.mover_calls, Restarted.is_fenced_elsewhere])
def test_nbd_waits_until_the_mover_has_called_or_has_fenced_it(event: Callable[[Restarted], None]) -> None:
    async def check(world: Restarted) -> None:
        waiting = await holds(world.shell, FOR_EVER_S)
        assert not waiting.done()
        event(world)
        await asyncio.wait_for(waiting, 10)

    assert not [line for line in meet(check) if line["log_level"] == "warning"]


def test_a_mover_that_does_not_call_is_not_waited_for_and_that_is_said() -> None:
    async def check(world: Restarted) -> None:
        await asyncio.wait_for(world.shell.wait_for_movers(AT_ONCE_S), 10)

    warnings = [line for line in meet(check) if line["log_level"] == "warning"]
    assert [line["sessions"] for line in warnings] == [["s"]]


def test_without_the_setting_nothing_is_waited_for() -> None:
    async def check(world: Restarted) -> None:
        assert (await holds(world.shell, 0)).done()

    assert meet(check) == []


def test_a_controller_that_captures_nothing_serves_at_once() -> None:
    async def check(world: Restarted) -> None:
        assert (await holds(world.shell, FOR_EVER_S)).done()

    assert meet(check, is_captured=False) == []


def test_a_session_that_was_fenced_before_the_restart_is_not_asked_again() -> None:
    async def check(world: Restarted) -> None:
        world.is_fenced_elsewhere()
        world.site.restart()
        shell = PrimaryShell(world.site.primary, world.site.links, flush=world._flush, on_fatal=world._fatal)
        assert world.site.primary.streams[SESSION_ID].document.ended
        assert (await holds(shell, FOR_EVER_S)).done()

    assert meet(check) == []
