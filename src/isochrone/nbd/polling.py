"""Busy polling: do not fall asleep between two requests of a client that answers a reply with a request.

At queue depth 1 most of a request's time is the wake-up of a sleeping process (an interrupt to another processor, on a
virtual machine an exit to its host), not work. QEMU's I/O threads poll for the same reason. While requests come
within `poll_ns_max` of the last reply, the event loop goes on turning for so long before it sleeps; the first gap
that is longer ends it, so an idle or slow client costs nothing. A process with one processor never polls: it would
keep its client from running.
"""

from __future__ import annotations

import asyncio
import os
from time import monotonic_ns
from typing import Final

POLL_NS_MAX_DEFAULT: Final = 50_000
"""Twice what a client on the same host needs to answer."""


class BusyPoller:
    """Keeps one event loop awake for a while after each reply. Shared by all connections of a server."""

    __slots__ = ("_answered_ns", "_is_turning", "_is_worthwhile", "_loop", "_poll_ns_max")

    def __init__(self, loop: asyncio.AbstractEventLoop, poll_ns_max: int) -> None:
        self._loop = loop
        self._poll_ns_max = poll_ns_max if len(os.sched_getaffinity(0)) > 1 else 0
        self._answered_ns = 0
        self._is_worthwhile = False
        self._is_turning = False

    def requests_came(self) -> None:
        """A wake-up brought requests."""
        self._is_worthwhile = monotonic_ns() - self._answered_ns < self._poll_ns_max

    def replies_left(self) -> None:
        """Their replies are on their way."""
        self._answered_ns = monotonic_ns()
        if self._is_worthwhile and not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if monotonic_ns() - self._answered_ns < self._poll_ns_max:
            self._loop.call_soon(self._turn)
        else:
            self._is_turning = False
