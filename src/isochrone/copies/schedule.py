"""When a schedule runs, what its copies are called, and which of them are too many.

Runs are at whole multiples of the interval since 1970, UTC: a schedule of an hour runs on the hour, one of a day at
midnight. A run that was missed is made up for once, however many were. Of a clock that was set back by more than an
interval the last run says nothing: the schedule runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from isochrone.copies.documents import CopyDocument

NS_PER_S: Final = 1_000_000_000
EVERY_S_MIN: Final = 1.0
EVERY_S_MAX: Final = 366 * 86_400.0
KEEP_MAX: Final = 1024
VOLUMES_PER_COPY_MAX: Final = 1024
SCHEDULE_COUNT_MAX: Final = 64
SCHEDULE_NAME_LENGTH_MAX: Final = 40
"""With the time behind it, it is the name of a copy."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Copies of `volumes` at one instant, every `every_ns`; the newest `keep` stay."""

    name: str
    volumes: tuple[str, ...]
    every_ns: int
    keep: int

    def is_due(self, last_run_wall_ns: int | None, now_wall_ns: int) -> bool:
        """Return whether to run now. `last_run_wall_ns`: when it ran last, None for never."""
        if last_run_wall_ns is None or last_run_wall_ns - now_wall_ns > self.every_ns:
            return True
        return now_wall_ns // self.every_ns > last_run_wall_ns // self.every_ns

    def next_run_wall_ns(self, last_run_wall_ns: int | None, now_wall_ns: int) -> int:
        """Return when it runs next: now when it is due."""
        if self.is_due(last_run_wall_ns, now_wall_ns):
            return now_wall_ns
        assert last_run_wall_ns is not None
        return (last_run_wall_ns // self.every_ns + 1) * self.every_ns

    def copy_name(self, wall_ns: int) -> str:
        """Return the name of the copy made at a time: `hourly-20261120T100000Z`."""
        return f"{self.name}-{time_name(wall_ns)}"

    def surplus(self, newest_first: Sequence[CopyDocument]) -> Sequence[CopyDocument]:
        """Return which of its copies are too many, the newer ones first: children go before what they were made from."""
        return newest_first[self.keep :]


def time_name(wall_ns: int) -> str:
    """Return a time as a name: `20261120T103102Z`."""
    return datetime.fromtimestamp(wall_ns // NS_PER_S, UTC).strftime("%Y%m%dT%H%M%SZ")
