"""How full a pool is, against the levels at which an operator wants to be warned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

CLEARED_BELOW_PERCENT: Final = 1.0
"""A level that was reached counts as left once the use is so much below it: a pool on the edge does not fill the log."""


class SpaceWatch:
    """Remembers which level was reached.

    Attributes:
        reached_percent: the highest level that the pool is at or above; None below all.
    """

    def __init__(self, levels_percent: Sequence[int]) -> None:
        self._levels_percent = sorted(levels_percent)
        self.reached_percent: int | None = None

    def look(self, used_count: int, count: int) -> int:
        """Take in a look at the pool; return 1 when a higher level was reached than before, -1 when one was left, else 0."""
        before = self.reached_percent
        used_percent = 100.0 * used_count / count
        reached = [level for level in self._levels_percent if used_percent >= level]
        kept = [
            level
            for level in self._levels_percent
            if before is not None and level <= before and used_percent > level - CLEARED_BELOW_PERCENT
        ]
        self.reached_percent = max(reached + kept, default=None)
        now_percent, before_percent = self.reached_percent or 0, before or 0
        return (now_percent > before_percent) - (now_percent < before_percent)
