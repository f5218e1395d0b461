"""Tells the log of tracks that a copy found unreadable at a primary: once when they appear, once when all were read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from isochrone.capture.stream import SessionStream

LOOK_INTERVAL_S: Final = 1.0
_RUNS_TOLD: Final = 4

_log = structlog.get_logger(__name__)


class UnreadableLog:
    """What was told, by session and volume number."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], int] = {}
        self._looked_s = 0.0

    def look(self, streams: Iterable[SessionStream], now_s: float) -> None:
        """Tell what is news, at most every LOOK_INTERVAL_S."""
        if now_s - self._looked_s < LOOK_INTERVAL_S:
            return
        self._looked_s = now_s
        counts: dict[tuple[str, int], int] = {}
        for stream in streams:
            for number, captured in stream.volumes.items():
                copier = captured.copier
                if copier is None or not copier.unreadable_count:
                    continue
                key = stream.document.session_id, number
                counts[key] = copier.unreadable_count
                if copier.unreadable_count > self._told.get(key, 0):
                    _log.warning(
                        "tracks cannot be read",
                        session=stream.document.session_name,
                        volume=captured.volume.name,
                        track_count=copier.unreadable_count,
                        first_runs=copier.unreadable_runs(_RUNS_TOLD),
                        consequence="the rest is copied; they are tried again, and the pair waits for them",
                    )
        for _session_id, number in self._told.keys() - counts.keys():
            _log.info("no track is unreadable any more", volume_number=number)
        self._told = counts
