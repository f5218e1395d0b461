"""Tells the log that the pool gave history up for want of space: at once, then at most once a minute while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from isochrone.store.history_keeper import HistoryGivenUp

PAUSE_S: Final = 60.0

_log = structlog.get_logger(__name__)


class HistoryLog:
    """What was told, by session number.

    Args:
        now_s: monotonic clock.
        name_of: name of the session with a number, None when it is not known any more.
    """

    def __init__(self, now_s: Callable[[], float], name_of: Callable[[int], str | None]) -> None:
        self._now_s = now_s
        self._name_of = name_of
        self._told_s: dict[int, float] = {}
        self._untold_records: dict[int, int] = {}

    def given_up(self, event: HistoryGivenUp) -> None:
        """History of a session went because the pool was full."""
        number, now_s = event.session, self._now_s()
        record_count = self._untold_records.pop(number, 0) + event.record_count
        if event.new_first_ns is not None and now_s - self._told_s.get(number, -PAUSE_S) < PAUSE_S:
            self._untold_records[number] = record_count
            return
        self._told_s[number] = now_s
        _log.warning(
            "history was given up: the pool is full",
            session=self._name_of(number) or number,
            record_count=record_count,
            begins_now_ns=event.new_first_ns,
            consequence="instants before that cannot be reached any more; delete copies or volumes, or use a bigger pool",
        )
