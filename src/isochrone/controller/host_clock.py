"""Host time in a running controller: the clock that stamps, and the keeper of the pool's stamp mark.

What is decided stands in `host_time`; here are the system's clocks, the pool's document and the timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog

from isochrone.controller.host_time import (
    HostTime,
    StampMark,
    StampReserve,
    check_clock_error,
    decode_mark,
    start_wait_ns,
)
from isochrone.controller.host_time_file import agree_on_host_time, host_time_path

STAMP_MARK_KEY: Final = "controller/stamp-mark"
"""The pool document of the stamp mark."""
MARK_CHECK_INTERVAL_S: Final = 1.0

_log = structlog.get_logger(__name__)


class DocumentStore(Protocol):
    """What this module needs of store.Pool."""

    @property
    def documents(self) -> Mapping[str, bytes]:
        """Named values."""

    def put_document(self, key: str, value: bytes) -> None:
        """Log a new value."""


class HostClock:
    """The host time of one controller.

    Attributes:
        now_ns: host time in nanoseconds, as a plain function for the capture path.
        stamp_floor_ns: no stamp may be at or below it.
    """

    def __init__(self, host_time: HostTime, path: Path, store: DocumentStore) -> None:
        offset_ns = host_time.offset_ns
        monotonic_ns = time.monotonic_ns

        def now_ns() -> int:
            return monotonic_ns() + offset_ns

        self.now_ns: Callable[[], int] = now_ns
        self._host_time = host_time
        self._path = path
        self._store = store
        self._reserve = StampReserve(host_time)
        self._used_up_told = False
        content = store.documents.get(STAMP_MARK_KEY)
        self._old_mark = None if content is None else decode_mark(content)
        same_time = self._old_mark is None or self._old_mark.host_time == host_time
        self.stamp_floor_ns = 0 if self._old_mark is None or same_time else self._old_mark.through_ns

    @staticmethod
    def agree(runtime_dir: Path, boot_id: str, store: DocumentStore) -> HostClock:
        """Return the clock of this host. Raises RefusedError when the runtime folder is not usable."""
        host_time = agree_on_host_time(runtime_dir, boot_id, time.monotonic_ns, time.time_ns)
        return HostClock(host_time, host_time_path(runtime_dir, boot_id), store)

    async def wait_for_mark(self, clock_error_ns: int) -> None:
        """Return once host time has passed every stamp this pool has given out.

        Raises:
            ConflictError: it is too far behind, or differs from the wall clock by more than `clock_error_ns`.
        """
        check_clock_error(self.now_ns(), time.time_ns(), clock_error_ns, path=str(self._path))
        wait_ns = start_wait_ns(self._old_mark, self._host_time, self.now_ns(), path=str(self._path))
        if wait_ns:
            _log.info(
                "waiting until host time has passed the pool's last stamps", wait_s=round(wait_ns / 1e9, 1)
            )
            await asyncio.sleep(wait_ns / 1e9)
            await self.wait_for_mark(clock_error_ns)

    async def reserve(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Make a new mark durable. No stamp may be drawn before the first call has returned."""
        mark = self._reserve.next_mark(self.now_ns())
        await self._keep(mark, flush)
        self._used_up_told = False

    async def keep_reserved(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Renew the mark whenever it is due, for ever."""
        while True:
            await asyncio.sleep(MARK_CHECK_INTERVAL_S)
            now_ns = self.now_ns()
            if self._reserve.is_used_up(now_ns) and not self._used_up_told:
                self._used_up_told = True
                _log.warning(
                    "stamps run past the durable mark",
                    cure="the pool's device completes no sync: check it; after a power loss check the clock "
                    "before the controller is started",
                )
            if self._reserve.is_due(now_ns):
                await self.reserve(flush)

    async def release(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Make the last mark of a clean stop durable, so that the next start need not wait; stamp no more."""
        await self._keep(self._reserve.final_mark(self.now_ns()), flush)

    async def _keep(self, mark: StampMark, flush: Callable[[], Awaitable[None]]) -> None:
        self._store.put_document(STAMP_MARK_KEY, mark.encode())
        await flush()
        self._reserve.set_durable(mark)
