"""Stamps: strictly increasing times of captured writes (design section 4)."""

from __future__ import annotations

from collections.abc import Callable


class Stamper:
    """Draws stamps from host time; no two are equal and none is older than one drawn before.

    Args:
        clock: host time in nanoseconds. It may stand still between two reads, it never steps back.
        floor_ns: no stamp is at or below it (the high-water mark kept over restarts).
    """

    __slots__ = ("_clock", "last_ns")

    def __init__(self, clock: Callable[[], int], floor_ns: int = 0) -> None:
        self._clock = clock
        self.last_ns = floor_ns

    def stamp(self) -> int:
        """Return the time of a write that has arrived and is not yet acknowledged."""
        now_ns = self._clock()
        if now_ns <= self.last_ns:
            now_ns = self.last_ns + 1
        self.last_ns = now_ns
        return now_ns

    def raise_floor(self, floor_ns: int) -> None:
        """Stamp nothing at or below `floor_ns` from now on."""
        self.last_ns = max(self.last_ns, floor_ns)

    def promise(self) -> int:
        """Return a time that every later stamp exceeds: what a heartbeat may say, once all stamped writes are in
        the stream.
        """
        return self.stamp()
