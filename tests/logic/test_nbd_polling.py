"""The server stays awake for a client that answers at once, and sleeps for every other."""

from __future__ import annotations

import asyncio

import pytest

from isochrone.nbd import polling
from isochrone.nbd.polling import BusyPoller

POLL_NS = 50_000


class Times:
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(polling, "monotonic_ns", times)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    return times


async def _turns(times: Times, step_ns: int, turns_max: int = 100) -> int:
    """Count turns of the loop until nothing is scheduled any more."""
    loop = asyncio.get_running_loop()
    turns = 0
    while loop._ready and turns < turns_max:  # type: ignore[attr-defined]
        times.now_ns += step_ns
        turns += 1
        await asyncio.sleep(0)
    return turns


def _exchange(poller: BusyPoller, times: Times, gap_ns: int) -> None:
    times.now_ns += gap_ns
    poller.requests_came()
    poller.replies_left()


@pytest.mark.parametrize(("gap_ns", "is_awake"), [(POLL_NS - 1, True), (POLL_NS, False)])
def test_only_a_gap_shorter_than_the_limit_is_waited_for_awake(
    times: Times, gap_ns: int, is_awake: bool
) -> None:
    async def run() -> int:
        poller = BusyPoller(asyncio.get_running_loop(), POLL_NS)
        _exchange(poller, times, POLL_NS)  # the first request of all: nothing is known of its client
        _exchange(poller, times, gap_ns)
        return await _turns(times, step_ns=10_000)

    turns = asyncio.run(run())
    assert (turns > 0) is is_awake
    assert turns <= POLL_NS // 10_000 + 1


def test_one_processor_or_a_limit_of_zero_never_polls(times: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(poll_ns: int) -> int:
        poller = BusyPoller(asyncio.get_running_loop(), poll_ns)
        for _ in range(3):
            _exchange(poller, times, 1)
        return await _turns(times, step_ns=10_000)

    assert asyncio.run(run(0)) == 0
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    assert asyncio.run(run(POLL_NS)) == 0
