"""Makes the pool durable without holding up the event loop: one sync at a time, joined by all who wait.

A sync makes durable what was written before it *began*. So a caller that arrives while one is running must
not be answered by it: it waits for the next, together with everybody who arrives meanwhile. However many
clients flush, at most one sync runs and one is wanted.

The pool decides what is to be done, as a generator of blocking calls in order; this module only runs each of
them in a thread. A call that fails is thrown into the generator: the pool turns read-only, every waiter gets
the error, and it is logged once, here. After that, flushes fail at once: nothing is tried again as if it had
not happened. A checkpoint that finds no room in the file system harms nobody: it is tried again now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from isochrone.model.errors import PoolFullError, PoolReadOnlyError

BACKGROUND_SYNC_INTERVAL_S: Final = 1.0
"""Freed tracks become reusable within about this time, also when no client ever flushes."""
BACKGROUND_LOOK_INTERVAL_S: Final = 0.1
"""How soon a due checkpoint is noticed when no client ever flushes, and how often a bit of what was given up is
reclaimed."""
CHECKPOINT_RETRY_INTERVAL_S: Final = 5.0
"""How often a checkpoint that waits for room is tried."""

Steps = Generator[Callable[[], None], None, None]
"""Blocking calls, to be made one after the other."""

_log = structlog.get_logger(__name__)


async def run_steps(steps: Steps, thread: ThreadPoolExecutor) -> None:
    """Make the calls of `steps` in `thread`, one after the other. Raises what the generator raises."""
    loop = asyncio.get_running_loop()
    try:
        call = next(steps)
        while True:
            try:
                await loop.run_in_executor(thread, call)
            except (OSError, PoolReadOnlyError, PoolFullError) as error:
                call = steps.throw(error)
            else:
                call = next(steps)
    except StopIteration:
        return


class SyncedPool(Protocol):
    """What this module needs of store.Pool."""

    @property
    def checkpoint_due(self) -> bool:
        """The pointer log is long enough."""

    @property
    def checkpoint_waits_because(self) -> str | None:
        """Why a checkpoint waits for room in the file system."""

    @property
    def pending_free_count(self) -> int:
        """Freed tracks that only a sync makes reusable."""

    @property
    def read_only_reason(self) -> str | None:
        """Why the pool takes no more writes."""

    def reclaim(self) -> bool:
        """Bring a bit of what was given up nearer to being free."""

    def sync(self) -> Steps:
        """Make durable what was written so far."""

    def checkpoint(self) -> Steps:
        """Write a checkpoint and begin a new pointer log."""


class Syncer:
    """Runs syncs and checkpoints of one pool. Belongs to one event loop.

    Args:
        pool: the pool.
        on_fatal: called with an error that is not the device's: a bug, the process must stop.
    """

    def __init__(self, pool: SyncedPool, *, on_fatal: Callable[[BaseException], None]) -> None:
        self._pool = pool
        self._on_fatal = on_fatal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sync")
        self._wanted: asyncio.Future[None] | None = None
        self._driver: asyncio.Task[None] | None = None
        self._background: asyncio.Task[None] | None = None
        self._failure_logged = False
        self._checkpointed_at_s: float | None = None
        self._checkpoint_retry_at_s: float | None = None
        self.sync_count = 0
        """Syncs begun."""

    def start_background(self) -> None:
        """Begin to bring tracks back that were given up, and to write due checkpoints, whether or not anybody flushes."""
        self._background = asyncio.create_task(self._sync_now_and_then(), name="background sync")

    async def flush(self) -> None:
        """Return when everything written to the pool before the call is durable.

        Raises:
            PoolReadOnlyError: the device failed, now or earlier.
        """
        if self._wanted is None:
            self._wanted = asyncio.get_running_loop().create_future()
            self._wanted.add_done_callback(_retrieve)
            if self._driver is None:
                self._driver = asyncio.create_task(self._drive(), name="sync")
        await asyncio.shield(self._wanted)

    def checkpoint_age_s(self) -> float | None:
        """Return the time since the last checkpoint was completed; None when there was none since the start."""
        if self._checkpointed_at_s is None:
            return None
        return asyncio.get_running_loop().time() - self._checkpointed_at_s

    async def stop(self) -> None:
        """Wait for the sync that runs or is wanted; none is begun in the background any more."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
        if self._driver is not None:
            await self._driver
        self._thread.shutdown(wait=False)

    async def run_steps(self, steps: Steps) -> None:
        """Make the calls of `steps` in the thread. For the owner alone, when no sync is running."""
        await run_steps(steps, self._thread)

    async def _drive(self) -> None:
        """Run syncs until none is wanted; a checkpoint comes after the answer to those who waited."""
        try:
            while self._wanted is not None:
                waiting, self._wanted = self._wanted, None
                try:
                    await self._sync_for(waiting)
                except Exception as error:
                    self._on_fatal(error)
                    if not waiting.done():
                        waiting.set_exception(error)
        finally:
            self._driver = None

    async def _sync_for(self, waiting: asyncio.Future[None]) -> None:
        self.sync_count += 1
        failure = await self._run_or_fail(self._pool.sync())
        if failure is not None:
            waiting.set_exception(failure)
            return
        waiting.set_result(None)
        if self._is_checkpoint_wanted():
            await self._checkpoint()

    def _is_checkpoint_wanted(self) -> bool:
        if not self._pool.checkpoint_due and self._pool.checkpoint_waits_because is None:
            return False
        retry_at_s = self._checkpoint_retry_at_s
        return retry_at_s is None or asyncio.get_running_loop().time() >= retry_at_s

    async def _checkpoint(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            failure = await self._run_or_fail(self._pool.checkpoint())
        except PoolFullError as error:
            if self._checkpoint_retry_at_s is None:
                _log.warning(
                    "checkpoint waits for room", reason=error.message, retry_s=CHECKPOINT_RETRY_INTERVAL_S
                )
            self._checkpoint_retry_at_s = loop.time() + CHECKPOINT_RETRY_INTERVAL_S
            return
        if failure is not None:
            return
        self._checkpointed_at_s = loop.time()
        if self._checkpoint_retry_at_s is not None:
            self._checkpoint_retry_at_s = None
            _log.info("checkpoint written that had waited for room")

    async def _run_or_fail(self, steps: Steps) -> PoolReadOnlyError | None:
        """Run `steps`; return what the waiters are to be told when the device failed."""
        try:
            await self.run_steps(steps)
        except (OSError, PoolReadOnlyError) as error:
            self._log_failure(error)
            return _read_only(self._pool, error)
        return None

    async def _sync_now_and_then(self) -> None:
        loop = asyncio.get_running_loop()
        synced_at_s, synced_count = loop.time(), self.sync_count
        while self._pool.read_only_reason is None:
            await asyncio.sleep(BACKGROUND_LOOK_INTERVAL_S)
            self._pool.reclaim()
            if self.sync_count != synced_count:
                synced_at_s, synced_count = loop.time(), self.sync_count
            is_late = loop.time() - synced_at_s >= BACKGROUND_SYNC_INTERVAL_S
            if self._is_checkpoint_wanted() or (is_late and self._pool.pending_free_count):
                try:
                    await self.flush()
                except PoolReadOnlyError:
                    return  # logged by the driver; there is nothing left to make durable

    def _log_failure(self, error: BaseException) -> None:
        if not self._failure_logged:
            self._failure_logged = True
            _log.error(
                "pool turned read-only",
                reason=self._pool.read_only_reason or str(error),
                cure="repair the device, then restart the controller",
            )


def _read_only(pool: SyncedPool, error: BaseException) -> PoolReadOnlyError:
    if isinstance(error, PoolReadOnlyError):
        return error
    reason = pool.read_only_reason or f"the device failed: {error}"
    return PoolReadOnlyError(f"{reason}; repair the device, then restart the controller")


def _retrieve(future: asyncio.Future[None]) -> None:
    """Mark the outcome as seen: the caller may have gone, and the driver has logged it."""
    if not future.cancelled():
        future.exception()
