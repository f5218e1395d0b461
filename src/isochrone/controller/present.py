"""The present by host time and wall clock at once: what turns times of the one into times of the other.

Two clocks cannot be read together, and on a busy machine a process may be stopped between the two readings. Then one instant
would be shown, and understood, as a different one each time. So the wall clock is read between two readings of host time, a
few times, and the narrowest counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from isochrone.controller.capture_reports import Now

READ_COUNT: Final = 3


def read_now(host_clock: Callable[[], int], wall_clock: Callable[[], int] = time.time_ns) -> Now:
    """Return one moment by both clocks, in nanoseconds.

    Args:
        host_clock: host time; never steps back.
        wall_clock: since the epoch, UTC.
    """
    best: Now | None = None
    narrowest_ns = 0
    for _ in range(READ_COUNT):
        before_ns = host_clock()
        wall_ns = wall_clock()
        width_ns = host_clock() - before_ns
        if best is None or width_ns < narrowest_ns:
            best, narrowest_ns = Now(before_ns + width_ns // 2, wall_ns), width_ns
    assert best is not None
    return best
