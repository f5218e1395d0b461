"""Virtual time: a queue of things to happen, and a clock that no two reads of agree."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
START_NS = 1_795_000_000_000_000_000
"""Host time at the beginning, as large as a real one: a float holds times of today to 256 ns only."""
LOOK_NS = MILLISECOND_NS
"""How often it is asked whether what is waited for has come: asking costs more than most events."""


class Events:
    """Runs callables in order of their virtual times.

    The clock moves by one nanosecond at every read, as a real one moves between two instructions, so stamps drawn one
    after the other on different controllers keep their order.
    """

    def __init__(self) -> None:
        self._now_ns = START_NS
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now_ns(self) -> int:
        """Return virtual host time."""
        self._now_ns += 1
        return self._now_ns

    def after(self, delay_ns: int, work: Callable[[], None]) -> None:
        """Run `work` once `delay_ns` have passed."""
        heapq.heappush(self._queue, (self._now_ns + max(0, delay_ns), next(self._order), work))

    def step(self) -> bool:
        """Run the next thing; False when there is none."""
        if not self._queue:
            return False
        time_ns, _, work = heapq.heappop(self._queue)
        self._now_ns = max(self._now_ns, time_ns)
        work()
        return True

    def run_until(self, time_ns: int, stop: Callable[[], bool] | None = None) -> bool:
        """Run until virtual time `time_ns`, or until `stop()`, asked about every LOOK_NS, holds; returns whether it does."""
        look_at_ns = 0
        while self._queue and self._queue[0][0] <= time_ns:
            if stop is not None and self._now_ns >= look_at_ns:
                if stop():
                    return True
                look_at_ns = self._now_ns + LOOK_NS
            self.step()
        self._now_ns = max(self._now_ns, time_ns)
        return stop is not None and stop()
