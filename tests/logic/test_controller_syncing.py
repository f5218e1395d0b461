"""One sync at a time, joined by all who wait, and a failed one is never tried again."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import structlog.testing

from isochrone.controller import syncing
from isochrone.controller.syncing import Steps, Syncer
from isochrone.model.errors import PoolFullError, PoolReadOnlyError
from isochrone.nbd.constants import Errno
from isochrone.nbd.errors import errno_of

DEADLINE_S = 10.0


class FakePool:
    """Counts what was written when a sync began; its blocking call waits until it is let go."""

    def __init__(self) -> None:
        self.written = 0
        self.durable = 0
        self.checkpoint_due = False
        self.checkpoint_count = 0
        self.checkpoint_waits_because: str | None = None
        self.has_room = True
        self.no_room_told = threading.Event()
        self.checkpointed = threading.Event()
        self.pending_free_count = 0
        self.read_only_reason: str | None = None
        self.call_begun = threading.Event()
        self.call_may_end = threading.Event()
        self.call_may_end.set()
        self.error: OSError | None = None
        self.call_count = 0
        self.reclaimed = threading.Event()

    def reclaim(self) -> bool:
        self.reclaimed.set()
        return False

    def _datasync(self) -> None:
        self.call_count += 1
        self.call_begun.set()
        assert self.call_may_end.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error

    def sync(self) -> Steps:
        if self.read_only_reason is not None:
            raise PoolReadOnlyError(self.read_only_reason)
        written = self.written
        try:
            yield self._datasync
            yield self._datasync
        except OSError as error:
            self.read_only_reason = f"datasync: {error}"
            raise PoolReadOnlyError(self.read_only_reason) from error
        self.durable = written
        self.pending_free_count = 0

    def checkpoint(self) -> Steps:
        self.checkpoint_due = False
        if not self.has_room:
            self.checkpoint_waits_because = "no room"
            self.no_room_told.set()
            raise PoolFullError("no room")
        yield self._datasync
        self.checkpoint_waits_because = None
        self.checkpointed.set()
        self.checkpoint_count += 1


def run(scenario: Callable[[FakePool, Syncer], Coroutine[Any, Any, None]]) -> list[BaseException]:
    fatal: list[BaseException] = []

    async def main() -> None:
        pool = FakePool()
        syncer = Syncer(pool, on_fatal=fatal.append)
        async with asyncio.timeout(DEADLINE_S):
            await scenario(pool, syncer)
            await syncer.stop()

    asyncio.run(main())
    return fatal


async def wait_for(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait, DEADLINE_S)


def test_what_was_written_before_a_flush_is_durable_after_it() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.written = 1
        await syncer.flush()
        assert pool.durable == 1

    assert run(scenario) == []


def test_one_that_comes_during_a_sync_waits_for_the_next_and_all_of_them_share_it() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.call_may_end.clear()
        pool.written = 1
        first = asyncio.create_task(syncer.flush())
        await wait_for(pool.call_begun)
        pool.written = 2
        later = [asyncio.create_task(syncer.flush()) for _ in range(50)]
        await asyncio.sleep(0)
        pool.call_may_end.set()
        await first
        assert pool.durable == 1
        await asyncio.gather(*later)
        assert pool.durable == 2
        assert syncer.sync_count == 2

    run(scenario)


def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.call_may_end.clear()
        gone, stays = asyncio.create_task(syncer.flush()), asyncio.create_task(syncer.flush())
        await wait_for(pool.call_begun)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        pool.call_may_end.set()
        await stays

    assert run(scenario) == []


def test_a_failed_sync_fails_all_who_wait_is_logged_once_and_not_tried_again() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.error = OSError(5, "Input/output error")
        outcomes = await asyncio.gather(syncer.flush(), syncer.flush(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [PoolReadOnlyError] * 2
        assert [errno_of(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [
            Errno.EIO
        ] * 2
        calls = pool.call_count
        with pytest.raises(PoolReadOnlyError):
            await syncer.flush()
        assert pool.call_count == calls

    with structlog.testing.capture_logs() as logs:
        assert run(scenario) == []
    assert [(line["log_level"], line["event"]) for line in logs] == [("error", "pool turned read-only")]


def test_a_due_checkpoint_follows_a_sync_and_holds_up_no_flush() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.checkpoint_due = True
        await syncer.flush()
        assert pool.checkpoint_count == 0
        await syncer.flush()
        assert pool.checkpoint_count == 1

    run(scenario)


def test_a_checkpoint_without_room_is_tried_again_now_and_then_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(syncing, "CHECKPOINT_RETRY_INTERVAL_S", 0.05)

    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.has_room, pool.checkpoint_due = False, True
        syncer.start_background()
        await wait_for(pool.no_room_told)
        for written in range(1, 20):
            pool.written = written
            await syncer.flush()
            assert pool.durable == written
        pool.has_room = True
        await wait_for(pool.checkpointed)

    with structlog.testing.capture_logs() as logs:
        assert run(scenario) == []
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "checkpoint waits for room"),
        ("info", "checkpoint written that had waited for room"),
    ]


def test_a_stop_waits_for_the_sync_that_runs() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.written = 1
        flush = asyncio.create_task(syncer.flush())
        await wait_for(pool.call_begun)
        await syncer.stop()
        assert pool.durable == 1
        await flush

    run(scenario)


@pytest.mark.parametrize("due", ["checkpoint", "freed tracks"])
def test_the_background_does_what_is_due_though_nobody_flushes(due: str) -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        pool.checkpoint_due = due == "checkpoint"
        pool.pending_free_count = int(due == "freed tracks")
        syncer.start_background()
        await wait_for(pool.call_begun)

    run(scenario)


def test_the_background_reclaims_what_was_given_up_though_nothing_is_due() -> None:
    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        syncer.start_background()
        await wait_for(pool.reclaimed)
        assert pool.call_count == 0

    run(scenario)


def test_an_error_that_is_not_the_devices_is_handed_on_as_fatal() -> None:
    bug = KeyError("a bug")

    async def scenario(pool: FakePool, syncer: Syncer) -> None:
        def broken() -> Steps:
            if pool.call_count == 0:
                raise bug
            yield from ()

        pool.sync = broken  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            await syncer.flush()

    assert run(scenario) == [bug]
