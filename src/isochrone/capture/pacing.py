"""Write pacing: the delay of acknowledgements as a function of the side file's fill.

The delay is zero up to PACE_FILL_START, then grows with the square of the excess up to the operator's maximum at
PACE_FILL_FULL. The square keeps ordinary bursts free and leaves most of the braking to a backlog that does not drain.
"""

from __future__ import annotations

from typing import Final

PACE_FILL_START: Final = 0.5
PACE_FILL_FULL: Final = 0.9


def pace_delay_ns(used_bytes: int, limit_bytes: int, delay_ns_max: int) -> int:
    """Return how long acknowledgements are held when the side file holds `used_bytes` of `limit_bytes`.

    0 <= result <= delay_ns_max, and never shorter for a fuller side file.
    """
    fill = used_bytes / limit_bytes
    if fill <= PACE_FILL_START or delay_ns_max == 0:
        return 0
    excess = min(1.0, (fill - PACE_FILL_START) / (PACE_FILL_FULL - PACE_FILL_START))
    return int(delay_ns_max * excess * excess)
