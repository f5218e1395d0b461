"""Forecast: at the measured rate, when is the side file full?

The rate is what the use has grown by in a second, smoothed over FILL_SMOOTHING_NS: a burst of a moment is not a forecast.
When the use does not grow, nothing is said.
"""

from __future__ import annotations

import math
from typing import Final

FILL_SMOOTHING_NS: Final = 3_000_000_000
SAMPLE_NS: Final = 250_000_000
"""Between two looks."""
FORECAST_S_MAX: Final = 24 * 3600
"""Beyond this no forecast is worth its name."""
SHARE_MIN: Final = 0.01
"""Nothing is said of a side file that is emptier."""


class FillForecast:
    """Watches the use of one side file."""

    __slots__ = ("_rate", "_sampled_ns", "_used_bytes")

    def __init__(self) -> None:
        self._rate = 0.0
        self._sampled_ns: int | None = None
        self._used_bytes = 0

    @property
    def bytes_per_s(self) -> float:
        """How fast the use grows, smoothed; negative while it shrinks."""
        return self._rate

    def sample(self, used_bytes: int, now_ns: int) -> None:
        """Look at the use; called with every tick, counts at most every SAMPLE_NS."""
        if self._sampled_ns is None:
            self._sampled_ns, self._used_bytes = now_ns, used_bytes
            return
        elapsed_ns = now_ns - self._sampled_ns
        if elapsed_ns < SAMPLE_NS:
            return
        rate = (used_bytes - self._used_bytes) * 1e9 / elapsed_ns
        self._rate += (rate - self._rate) * (1 - math.exp(-elapsed_ns / FILL_SMOOTHING_NS))
        self._sampled_ns, self._used_bytes = now_ns, used_bytes
        if used_bytes == 0:
            self._rate = min(self._rate, 0.0)

    def full_in_s(self, used_bytes: int, capacity_bytes: int) -> int | None:
        """Return the seconds after which `capacity_bytes` are used at this rate; None when it is not filling."""
        if self._rate <= 0 or used_bytes < capacity_bytes * SHARE_MIN:
            return None
        left_s = max(0, capacity_bytes - used_bytes) / self._rate
        return int(left_s) if left_s <= FORECAST_S_MAX else None
