"""The running clock: a mark is durable before the first stamp, and the next start knows where stamps ended."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from isochrone.controller.host_clock import STAMP_MARK_KEY, HostClock
from isochrone.controller.host_time import RESERVE_NS, SECOND_NS, HostTime, StampMark, decode_mark
from isochrone.model.errors import ConflictError, DamagedError

BOOT = "this-boot"


class FakeStore:
    """Documents, and what of them was durable at the last flush."""

    def __init__(self, documents: Mapping[str, bytes] | None = None) -> None:
        self.documents: dict[str, bytes] = dict(documents or {})
        self.durable: dict[str, bytes] = {}

    def put_document(self, key: str, value: bytes) -> None:
        self.documents[key] = value

    async def flush(self) -> None:
        self.durable = dict(self.documents)


def mark_of_earlier_boot(through_ns: int) -> dict[str, bytes]:
    return {STAMP_MARK_KEY: StampMark(HostTime("earlier", 5), through_ns).encode()}


def test_a_reserve_is_durable_before_the_first_stamp(tmp_path: Path) -> None:
    store = FakeStore()
    clock = HostClock.agree(tmp_path, BOOT, store)
    before_ns = clock.now_ns()
    asyncio.run(clock.reserve(store.flush))
    mark = decode_mark(store.durable[STAMP_MARK_KEY])
    assert mark.through_ns >= before_ns + RESERVE_NS


def test_a_restart_in_one_boot_neither_waits_nor_jumps(tmp_path: Path) -> None:
    store = FakeStore()
    first = HostClock.agree(tmp_path, BOOT, store)
    asyncio.run(first.reserve(store.flush))
    second = HostClock.agree(tmp_path, BOOT, FakeStore(store.durable))
    asyncio.run(asyncio.wait_for(second.wait_for_mark(0), 1))
    assert second.stamp_floor_ns == 0
    assert first.now_ns() <= second.now_ns() < decode_mark(store.durable[STAMP_MARK_KEY]).through_ns


def test_after_a_boot_stamps_begin_behind_the_mark(tmp_path: Path) -> None:
    through_ns = time.time_ns() + SECOND_NS // 10
    clock = HostClock.agree(tmp_path, BOOT, FakeStore(mark_of_earlier_boot(through_ns)))
    asyncio.run(clock.wait_for_mark(0))
    assert clock.now_ns() > through_ns
    assert clock.stamp_floor_ns == through_ns


def test_a_clock_that_was_set_back_by_an_hour_is_refused_at_once(tmp_path: Path) -> None:
    store = FakeStore(mark_of_earlier_boot(time.time_ns() + 3600 * SECOND_NS))
    clock = HostClock.agree(tmp_path, BOOT, store)
    with pytest.raises(ConflictError, match=f"host-time.{BOOT}"):
        asyncio.run(clock.wait_for_mark(0))


def test_a_clean_stop_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    store = FakeStore()
    clock = HostClock.agree(tmp_path, BOOT, store)
    asyncio.run(clock.reserve(store.flush))
    asyncio.run(clock.release(store.flush))
    assert decode_mark(store.durable[STAMP_MARK_KEY]).through_ns <= clock.now_ns()


def test_a_mark_that_does_not_read_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedError):
        HostClock.agree(tmp_path, BOOT, FakeStore({STAMP_MARK_KEY: b"?"}))
