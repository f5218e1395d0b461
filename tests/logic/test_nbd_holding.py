"""Held replies: every one leaves, once, not before its hold has ended, and at once when room is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.nbd.holding import HeldReplies, Hold, hold_for

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_a_hold_that_has_ended_is_answered_at_once(loop: asyncio.AbstractEventLoop) -> None:
    answered: list[bytes] = []
    held = HeldReplies(loop, answered.extend)
    held.hold([b"a"], hold_for(0, 0))
    assert answered == [b"a"]


def test_room_lets_go_what_waits_for_it_and_nothing_else(loop: asyncio.AbstractEventLoop) -> None:
    answered: list[bytes] = []
    held = HeldReplies(loop, answered.extend)
    held.hold([b"delayed"], hold_for(HOUR_NS, 0))
    held.hold([b"waits"], hold_for(0, HOUR_NS))
    held.hold([b"both"], hold_for(HOUR_NS, 2 * HOUR_NS))
    held.room()
    assert answered == [b"waits"]


def test_a_hold_that_began_after_the_last_room_waits_for_the_next(loop: asyncio.AbstractEventLoop) -> None:
    answered: list[bytes] = []
    held = HeldReplies(loop, answered.extend)
    old = hold_for(0, HOUR_NS)
    held.room()
    new = Hold(time.monotonic_ns() + 1, 0, time.monotonic_ns() + HOUR_NS)
    held.hold([b"new"], new)
    held.hold([b"old"], old)  # its flush has only now ended
    assert answered == [b"old"]


def test_no_reply_is_early_nor_later_than_its_bound_allows(loop: asyncio.AbstractEventLoop) -> None:
    done = loop.create_future()
    held = HeldReplies(loop, lambda _: done.set_result(time.monotonic_ns()))
    hold = hold_for(1, 5_000_000)
    held.hold([b"a"], hold)
    answered_ns = loop.run_until_complete(done)
    assert hold.room_ns <= answered_ns < hold.room_ns + 1_000_000_000


def test_nothing_is_answered_to_a_client_that_is_gone_but_what_is_held_then_is_settled(
    loop: asyncio.AbstractEventLoop,
) -> None:
    answered: list[bytes] = []
    held = HeldReplies(loop, answered.extend)
    held.hold([b"a"], hold_for(0, HOUR_NS))
    held.close()
    held.room()
    assert answered == []
    held.hold([b"b"], hold_for(0, HOUR_NS))
    assert answered == [b"b"]


def leave_one_by_one(waits: list[int], rooms: list[int]) -> None:
    """Replies that wait, with room coming in between: after the last room each has left once, in order."""
    loop = asyncio.new_event_loop()
    try:
        answered: list[bytes] = []
        held = HeldReplies(loop, answered.extend)
        sent: list[bytes] = []
        for number, count in enumerate(waits):
            cookies = [b"%d-%d" % (number, each) for each in range(count)]
            sent += cookies
            held.hold(cookies, hold_for(0, HOUR_NS))
            if number in rooms:
                held.room()
                assert answered == sent
        held.room()
        assert answered == sent
    finally:
        loop.close()


@given(st.lists(st.integers(1, 4), max_size=12), st.lists(st.integers(0, 11)))
def test_every_reply_leaves_once_and_in_order_as_soon_as_there_is_room(
    waits: list[int], rooms: list[int]
) -> None:
    leave_one_by_one(waits, rooms)


# The same with deliberate breakages


def forget_what_waits(patch: pytest.MonkeyPatch) -> None:
    def room(self: HeldReplies) -> None:
        self._held.clear()

    patch.setattr(HeldReplies, "room", room)


def let_go_the_first_only(patch: pytest.MonkeyPatch) -> None:
    whole = HeldReplies.room

    def room(self: HeldReplies) -> None:
        kept = dict(list(self._held.items())[1:])
        for timer in kept:
            del self._held[timer]
        whole(self)
        self._held.update(kept)

    patch.setattr(HeldReplies, "room", room)


def answer_twice(patch: pytest.MonkeyPatch) -> None:
    whole = HeldReplies.room

    def room(self: HeldReplies) -> None:
        held = list(self._held.values())
        whole(self)
        for cookies, _ in held[:1]:
            self._settle(cookies)

    patch.setattr(HeldReplies, "room", room)


@pytest.mark.parametrize("breakage", [forget_what_waits, let_go_the_first_only, answer_twice])
def test_a_broken_hold_is_caught(
    breakage: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    breakage(monkeypatch)
    with pytest.raises(AssertionError):
        leave_one_by_one([1, 2, 3], [1])
