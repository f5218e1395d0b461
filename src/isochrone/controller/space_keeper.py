"""Looks at how full the pool is, now and then, and warns of every level that is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from isochrone.copies.space_watch import SpaceWatch
from isochrone.store.pool import Pool

LOOK_INTERVAL_S: Final = 0.5

_log = structlog.get_logger(__name__)


class SpaceKeeper:
    """One timer of the event loop. `levels_percent`: of the pool's use."""

    def __init__(self, pool: Pool, levels_percent: Sequence[int]) -> None:
        self._pool = pool
        self._watch = SpaceWatch(levels_percent)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self.start)
        self.look()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def warning_percent(self) -> int | None:
        """Return the highest level that the pool has reached now, None below all."""
        self.look()
        return self._watch.reached_percent

    def look(self) -> None:
        """Log what has changed."""
        used_count, count = self._pool.used_track_count, self._pool.track_count
        change = self._watch.look(used_count, count)
        if not change:
            return
        used_percent = round(100 * used_count / count, 1)
        if change > 0:
            _log.warning(
                "pool is filling",
                level_percent=self._watch.reached_percent,
                used_percent=used_percent,
                cure="delete copies or trim volumes; a full pool answers new writes with ENOSPC",
            )
        else:
            _log.info(
                "pool has room again", level_percent=self._watch.reached_percent, used_percent=used_percent
            )
