"""Runs schedules, and deletes what has expired or is too much, at its time. Nothing of this is ever fatal.

What could not be done is logged when its reason changes, shown in every report, and tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from isochrone.controller.copy_operations import ControllerCopies
from isochrone.controller.copy_reports import CopyReporter
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.documents import CopyDocument
from isochrone.copies.schedule import Schedule
from isochrone.model.errors import IsochroneError

LOOK_INTERVAL_S: Final = 0.5
"""How soon something due is noticed."""
RETRY_INTERVAL_S: Final = 30.0
"""Between two tries of a schedule that failed."""
DELETED_PER_LOOK_MAX: Final = 16
"""Copies deleted before others have their turn."""

_log = structlog.get_logger(__name__)


class CopyKeeper:
    """One task beside the event loop's other work.

    Args:
        flush: makes the pool durable.
        on_fatal: called with an error that nobody expected.
    """

    def __init__(
        self,
        copies: ControllerCopies,
        catalogue: Catalogue,
        reporter: CopyReporter,
        schedules: Sequence[Schedule],
        *,
        flush: Callable[[], Awaitable[None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._copies = copies
        self._catalogue = catalogue
        self._reporter = reporter
        self._schedules = schedules
        self._flush = flush
        self._on_fatal = on_fatal
        self._retry_at_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._look_now_and_then(), name="copy keeper")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_now_and_then(self) -> None:
        try:
            while True:
                await self.look(time.time_ns())
                await asyncio.sleep(LOOK_INTERVAL_S)
        except Exception as error:
            self._on_fatal(error)

    async def look(self, now_wall_ns: int) -> None:
        """Do what is due at a time, nanoseconds since 1970."""
        for schedule in self._schedules:
            if schedule.is_due(self._catalogue.last_runs.get(schedule.name), now_wall_ns):
                await self._run(schedule, now_wall_ns)
        doomed = self._catalogue.expired(now_wall_ns)
        for schedule in self._schedules:
            doomed += schedule.surplus(self._catalogue.scheduled(schedule.name))
        await self._delete(doomed)

    async def _run(self, schedule: Schedule, now_wall_ns: int) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at_s.get(schedule.name, 0.0):
            return
        failures = self._reporter.failures
        try:
            await self._copies.run_schedule(schedule.name, schedule.volumes, schedule.copy_name(now_wall_ns))
        except (IsochroneError, OSError) as error:
            reason = str(error)
            self._retry_at_s[schedule.name] = loop.time() + RETRY_INTERVAL_S
            if failures.get(schedule.name) != reason:
                _log.warning(
                    "scheduled copy failed", schedule=schedule.name, reason=reason, retry_s=RETRY_INTERVAL_S
                )
            failures[schedule.name] = reason
            return
        self._retry_at_s.pop(schedule.name, None)
        if failures.pop(schedule.name, None) is not None:
            _log.info("scheduled copy made that had failed", schedule=schedule.name)

    async def _delete(self, doomed: Sequence[CopyDocument]) -> None:
        deleted = 0
        for copy in dict.fromkeys(doomed):
            if copy.name not in self._catalogue.copies:
                continue
            try:
                report = self._copies.delete(copy)
            except (IsochroneError, OSError) as error:
                self._wait(copy, str(error))
                continue
            _log.info(
                "copy deleted by itself",
                copy=copy.name,
                schedule=copy.schedule,
                freed_bytes=report.freed_bytes,
            )
            deleted += 1
            if deleted == DELETED_PER_LOOK_MAX:
                break
        if deleted:
            try:
                await self._flush()
            except IsochroneError as error:  # the syncer has logged it, and every write fails from here on
                _log.info("deleted copies are not durable", reason=error.message)

    def _wait(self, copy: CopyDocument, reason: str) -> None:
        if self._reporter.waits.get(copy.name) != reason:
            _log.warning("copy waits to be deleted", copy=copy.name, schedule=copy.schedule, reason=reason)
        self._reporter.waits[copy.name] = reason
