"""Runs the spill's blocking calls in a thread of its own, one job at a time, beside the event loop.

What is to be read or written, and in which order, the capture core decides (capture/spill.py); this module only makes the
calls and hands their outcome back between two steps of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from isochrone.capture.primary import Primary
from isochrone.capture.spill import SpillJob

_log = structlog.get_logger(__name__)


class SpillRunner:
    """Drives the spill of one Primary.

    Args:
        done: called after each job, when the core has its outcome: sending may go on.
        on_fatal: called with an error that is not the disk's.
    """

    def __init__(
        self, primary: Primary, *, done: Callable[[], None], on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._primary = primary
        self._done = done
        self._on_fatal = on_fatal
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._trouble_told = ""

    def kick(self) -> None:
        """Begin to work if there is anything to do and nothing is under way."""
        if self._task is None and not self._stopped and (job := self._primary.next_spill_job()):
            self._task = asyncio.create_task(self._run(job), name="spill")

    async def stop(self) -> None:
        """Wait for the job under way; begin no other."""
        self._stopped = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _run(self, first: SpillJob) -> None:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spill")
        job: SpillJob | None = first
        try:
            while job is not None:
                await loop.run_in_executor(self._thread, job.run)
                self._primary.spill_job_done(job)
                self._tell_trouble(job)
                self._done()
                job = None if self._stopped else self._primary.next_spill_job()
        except Exception as error:
            self._on_fatal(error)
        finally:
            self._task = None

    def _tell_trouble(self, job: SpillJob) -> None:
        """Log what the disk has against the spill when it changes, not with every job."""
        text = str(job.error) if job.error else ""
        if text and text != self._trouble_told:
            self._trouble_told = text
            _log.warning(
                "the spill failed",
                reason=text,
                consequence="captured writes stay in memory; beyond its limit sessions suspend, and marks remember",
                cure="make room, or repair the device of capture.spill_path",
            )
