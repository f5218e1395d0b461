"""How long acknowledgements are held: pacing, volume by volume, and the wait for room at the limit.

Pacing (pacing.py) delays by a time that is known when the write is done. At the limit of the side file a session either
suspends, or, under OverflowPolicy.HOLD, lets its writers *wait for room*: replies are held until there is room again or
`hold_ns_max` has passed since the wait began, and only then the session suspends. No reply is held longer than that, and all
leave at once when room is there, or when the session suspends: then no room is needed any more.

Writes that are in flight while others wait are captured too. They may take up to an eighth of the memory beyond its limit;
past that the session suspends at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from isochrone.capture.delays import DelayTotals
from isochrone.capture.pacing import VolumePacing, pace_delay_ns
from isochrone.capture.route import Route
from isochrone.capture.side_file import SideFile
from isochrone.capture.stream import SessionStream
from isochrone.model.choices import OverflowPolicy

OVERSHOOT: Final = 8
"""One part in OVERSHOOT of the memory may be used beyond its limit while writes wait for room."""
_NEVER: Final = 1 << 62


@dataclass(slots=True)
class _Waiting:
    """Writes of one session that wait for room: how many, and the sum of the times at which they came."""

    totals: DelayTotals
    write_count: int = 0
    came_ns_sum: int = 0


@dataclass(slots=True)
class Throttle:
    """See the module's essay.

    Attributes:
        from_bytes: below this use of the side file nothing is paced: the capture path's first test.
        until_ns: end of the wait for room; None while nobody waits.
    """

    side_file: SideFile
    from_bytes: int = _NEVER
    until_ns: int | None = None
    _waiting: dict[int, _Waiting] = field(default_factory=dict)

    def set_routes(self, routes: Collection[Route]) -> None:
        """These are the routes now."""
        start = min((pacing.curve.start for route in routes for pacing in route.pacings), default=None)
        # Fill is never more than use against memory alone, so below this no volume's delay has begun.
        self.from_bytes = _NEVER if start is None else int(start * self.side_file.bytes_max)
        if any(route.waits is not None for route in routes):
            self.from_bytes = min(self.from_bytes, self.side_file.bytes_max)

    # Pacing

    def hold_ns(self, route: Route, write_count: int, now_ns: int) -> int:
        """Return how long the replies to `write_count` writes of a volume are held, and take note of it.

        Where several sessions pace the volume the longest delay counts, and is put down to that session. Those that wait
        for room are held no longer than that takes: 1 ns, and `wait_ns` says the rest.
        """
        if route.waits is not None and self.until_ns is not None:
            return 1
        fill = self.side_file.fill
        longest_ns = 0
        cause: VolumePacing | None = None
        for pacing in route.pacings:
            delay_ns = pace_delay_ns(fill, pacing.curve, pacing.delay_ns_max)
            if delay_ns > longest_ns:
                longest_ns, cause = delay_ns, pacing
        if cause is not None:
            cause.delays.add(longest_ns, write_count, now_ns)
            cause.totals.write_count += write_count
            cause.totals.held_ns += write_count * longest_ns
        return longest_ns

    # Waiting for room

    def meet_limit(
        self, streams: Collection[SessionStream], suspend: Callable[[SessionStream, str], None], now_ns: int
    ) -> bool:
        """While the side file is full, the session that holds most of it suspends, or lets its writers wait for room.

        Returns whether a wait has ended: what waited leaves.
        """
        side_file = self.side_file
        while side_file.is_full:
            stream = max(streams, key=lambda stream: stream.backlog.held_bytes)
            policy = stream.document.policy
            reason = side_file.full_reason
            if policy.overflow_policy is OverflowPolicy.HOLD and policy.hold_ns_max:
                if self._may_wait(policy.hold_ns_max, now_ns):
                    return False
                reason += (
                    f", and writes have waited for room in vain (at most {policy.hold_ns_max / 1e9:g} s)"
                )
            suspend(stream, reason)
        return self._end_wait(now_ns)

    def _may_wait(self, hold_ns_max: int, now_ns: int) -> bool:
        """Return whether a session that may hold writes for `hold_ns_max` goes on waiting, or begins to."""
        side_file = self.side_file
        if side_file.memory_bytes > side_file.bytes_max + side_file.bytes_max // OVERSHOOT:
            return False
        if self.until_ns is None:
            self.until_ns = now_ns + hold_ns_max
        return now_ns < self.until_ns

    def wait_ns(self, route: Route, write_count: int, now_ns: int) -> int:
        """Return how long replies to `write_count` writes of a volume wait at most; 0 while there is room."""
        totals = route.waits
        if totals is None or self.until_ns is None or now_ns >= self.until_ns:
            return 0
        waiting = self._waiting.setdefault(id(totals), _Waiting(totals))
        waiting.write_count += write_count
        waiting.came_ns_sum += write_count * now_ns
        return self.until_ns - now_ns

    def _end_wait(self, now_ns: int) -> bool:
        """Nobody waits any more. Returns whether somebody did."""
        if self.until_ns is None:
            return False
        self.until_ns = None
        for waiting in self._waiting.values():
            waiting.totals.write_count += waiting.write_count
            waiting.totals.held_ns += waiting.write_count * now_ns - waiting.came_ns_sum
        self._waiting.clear()
        return True

    def waiting_count(self, totals: DelayTotals) -> int:
        """Return how many writes of a session wait for room now."""
        waiting = self._waiting.get(id(totals))
        return waiting.write_count if waiting else 0
