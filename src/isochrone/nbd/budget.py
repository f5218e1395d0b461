"""Memory for big requests, shared by all connections of a server under one limit.

A connection always has its small receive buffer and a small queue of replies. What goes beyond (the payload
of a large write, the data of a large read) is taken from this budget first and given back when it is done
with. Who cannot have its share waits in order of arrival, so a large demand is not overtaken for ever by
small ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Waiter:
    """A place in the queue: `granted` is called once, when `size_bytes` have been taken for it."""

    size_bytes: int
    granted: Callable[[], None]


class BufferBudget:
    """`limit_bytes` to share out. Invariant: 0 <= free_bytes <= limit_bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.free_bytes = limit_bytes
        self._waiters: deque[Waiter] = deque()

    @property
    def waiter_count(self) -> int:
        """Demands that wait."""
        return len(self._waiters)

    def take(self, size_bytes: int) -> bool:
        """Take `size_bytes` if they are free and nobody waits; return whether they were taken."""
        if self._waiters or size_bytes > self.free_bytes:
            return False
        self.free_bytes -= size_bytes
        return True

    def wait(self, size_bytes: int, granted: Callable[[], None]) -> Waiter:
        """Queue for `size_bytes` (at most `limit_bytes`, or it would wait for ever)."""
        assert size_bytes <= self.limit_bytes
        waiter = Waiter(size_bytes, granted)
        self._waiters.append(waiter)
        return waiter

    def cancel(self, waiter: Waiter) -> None:
        """Leave the queue; those behind may come forward."""
        self._waiters.remove(waiter)
        self._grant()

    def give(self, size_bytes: int) -> None:
        """Give back what was taken."""
        self.free_bytes += size_bytes
        assert self.free_bytes <= self.limit_bytes
        self._grant()

    def _grant(self) -> None:
        while self._waiters and self._waiters[0].size_bytes <= self.free_bytes:
            waiter = self._waiters.popleft()
            self.free_bytes -= waiter.size_bytes
            waiter.granted()
