"""Replies that are held: until a known moment, or until there is room.

A hold has two ends. Before the first no reply leaves. Where the two differ the replies wait for room: they leave as soon as
`room` says that there is some, and at the second end whatever happens. Loop timers may be early by a millisecond; a reply is
never early, and as late as the timer at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hold:
    """How long some replies are held; monotonic nanoseconds.

    Attributes:
        began_ns: when the requests were done.
        release_ns: no reply leaves before.
        room_ns: replies that wait for room leave then at the latest; `release_ns` for those that do not.
    """

    began_ns: int
    release_ns: int
    room_ns: int


def hold_for(hold_ns: int, room_wait_ns: int) -> Hold:
    """Return the hold that begins now, of at least `hold_ns`, and of up to `room_wait_ns` while there is no room."""
    now_ns = time.monotonic_ns()
    return Hold(now_ns, now_ns + hold_ns, now_ns + max(hold_ns, room_wait_ns))


class HeldReplies:
    """The held replies of one connection.

    Args:
        settle: sends the success replies to the cookies.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, settle: Callable[[list[bytes]], None]) -> None:
        self._loop = loop
        self._settle = settle
        self._held: dict[asyncio.TimerHandle, tuple[list[bytes], Hold]] = {}
        self._room_came_ns = -1
        self._closed = False

    def hold(self, cookies: list[bytes], hold: Hold) -> None:
        """Answer `cookies` when their hold has ended; at once when it has, or after `close`."""
        has_room = hold.began_ns <= self._room_came_ns
        until_ns = hold.release_ns if has_room else hold.room_ns
        remaining_ns = until_ns - time.monotonic_ns()
        if remaining_ns <= 0 or self._closed:
            self._settle(cookies)
            return

        def expired() -> None:
            del self._held[timer]
            self.hold(cookies, hold)

        timer = self._loop.call_later(-(-remaining_ns // 1_000_000) / 1000, expired)
        self._held[timer] = cookies, hold

    def room(self) -> None:
        """There is room: what waits for it leaves, in the order it came."""
        self._room_came_ns = time.monotonic_ns()
        waiting = {timer: held for timer, held in self._held.items() if held[1].room_ns > held[1].release_ns}
        for timer, (cookies, hold) in waiting.items():
            timer.cancel()
            del self._held[timer]
            self.hold(cookies, hold)

    def close(self) -> None:
        """Forget what is held: the client is gone."""
        self._closed = True
        for timer in self._held:
            timer.cancel()
        self._held.clear()
