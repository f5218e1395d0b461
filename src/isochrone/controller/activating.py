"""Makes regions of durable marks active, and gives them up, without holding up the event loop (capture/activity_map.py).

One step runs at a time, in a thread of its own: it must not stand behind a sync of the pool, which can take seconds. Who
asks while one is running is served by the next, together with everybody who asks meanwhile, whatever their volumes are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from isochrone.capture.activity import Activities
from isochrone.controller.syncing import run_steps
from isochrone.model.errors import PoolReadOnlyError


class Activator:
    """Drives the activity maps of one primary. Belongs to one event loop.

    Args:
        flush: makes the pool durable; PoolReadOnlyError when the device failed.
        on_fatal: called with an error that is not the device's.
    """

    def __init__(
        self,
        activities: Activities,
        *,
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._activities = activities
        self._flush = flush
        self._on_fatal = on_fatal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="marks")
        self._wanted: asyncio.Future[None] | None = None
        self._driver: asyncio.Task[None] | None = None
        self._trimmer: asyncio.Task[None] | None = None

    async def activate(self) -> None:
        """Return once what the activity maps were asked for before the call is active.

        When the device fails it returns too: the pool takes no writes then, and says so to each of them.
        """
        if self._wanted is None:
            self._wanted = asyncio.get_running_loop().create_future()
            if self._driver is None:
                self._driver = asyncio.create_task(self._drive(), name="activate regions")
        await asyncio.shield(self._wanted)

    def trim_if_due(self, now_ns: int) -> None:
        """Give up regions that need not be remembered, if there are too many; called with every tick."""
        if self._trimmer is None and self._activities.trim_is_due(now_ns):
            self._trimmer = asyncio.create_task(self._trim(now_ns), name="give up regions")

    async def stop(self) -> None:
        """Wait for what is running. Nothing may be asked for any more."""
        for task in (self._driver, self._trimmer):
            if task is not None:
                await task
        self._thread.shutdown(wait=False)

    async def _drive(self) -> None:
        try:
            while self._wanted is not None:
                waiting, self._wanted = self._wanted, None
                try:
                    await run_steps(self._activities.activate(), self._thread)
                except (OSError, PoolReadOnlyError):
                    pass  # the pool is read-only: the writes that wait are told so when they are made
                except Exception as error:
                    self._on_fatal(error)
                waiting.set_result(None)
        finally:
            self._driver = None

    async def _trim(self, now_ns: int) -> None:
        try:
            self._activities.begin_trim(now_ns)
            await self._flush()
            self._activities.end_trim()
        except (OSError, PoolReadOnlyError):
            return  # told by the syncer, or by the next write of the file; the regions stay active
        except Exception as error:
            self._on_fatal(error)
        finally:
            self._trimmer = None
