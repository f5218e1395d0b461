"""FLUSH and FUA on one connection: replies that wait until data is on stable storage, while other requests go
on.

At most one flush of the export runs for a connection. What asks for one meanwhile forms the next group: a
flush that began earlier need not cover it. So a client that sends nothing but flushes costs one running flush
and a list of cookies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from isochrone.nbd.export import Export
from isochrone.nbd.holding import Hold


@dataclass(frozen=True, slots=True)
class Flushed:
    """Requests of one wake-up that wait for stable storage.

    `flushes`: cookies of FLUSH. `writes`: cookies of requests with FUA, not to be answered before `hold` has ended.
    """

    flushes: list[bytes]
    writes: list[bytes]
    hold: Hold

    @property
    def request_count(self) -> int:
        """How many replies these are."""
        return len(self.flushes) + len(self.writes)


class FlushQueue:
    """Groups flushes of one export.

    `settled` is called for each Flushed with the error or None, `idle` whenever nothing is left to flush.
    """

    def __init__(
        self, export: Export, settled: Callable[[Flushed, Exception | None], None], idle: Callable[[], None]
    ) -> None:
        self._export = export
        self._settled = settled
        self._idle = idle
        self._waiting: list[Flushed] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, flushed: Flushed) -> None:
        """Answer `flushed`, everything of which has been acted on, after a flush that begins now or later."""
        self._waiting.append(flushed)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="nbd flush")

    @property
    def is_running(self) -> bool:
        """Whether anything waits for a flush."""
        return self._task is not None

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                error = await self._flush()
                for flushed in group:
                    self._settled(flushed, error)
        finally:
            self._task = None
            self._idle()

    async def _flush(self) -> Exception | None:
        try:
            await self._export.flush()
        except Exception as error:  # whatever it is, the client is told: it becomes the reply
            return error
        return None
