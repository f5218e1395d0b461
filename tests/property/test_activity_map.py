"""Activity maps on a disk that loses what was not synced: whatever is to be remembered lies in a suspected region.

The model knows, of every track, whether it is marked, and whether its last write could still be lost here. A power loss may
come between any two steps, and at any operation of the disk within one.
"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from isochrone.capture.activity_map import ActivityMap
from isochrone.capture.change_map import ChangeMap
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash, crash_nth

TRACK_COUNT = 18
REGION_TRACKS = 4
REGIONS_MAX = 1
IDLE_NS = 2

tracks = st.integers(0, TRACK_COUNT - 1)


class ActivityMachine(RuleBasedStateMachine):
    """Both maps of one volume, driven as a primary and its shell drive them; time is a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(seed=1)
        self.now_ns = 1
        self.marked: set[int] = set()
        self.unsynced: set[int] = set()
        self.at_trim: set[int] | None = None
        self.open(is_known=False)
        self.change_map.thaw(0)
        self.change_map.release(1)

    def open(self, *, is_known: bool = True) -> None:
        self.activity = ActivityMap(
            self.disk, "activity-x-7", 7, TRACK_COUNT, REGION_TRACKS, lambda file: file.datasync()
        )
        self.change_map = ChangeMap(
            self.disk, "changes-x-7", 7, TRACK_COUNT, is_known=is_known, suspects=self.activity
        )
        self.at_trim = None

    @rule(first=tracks, count=st.integers(1, 6), asks=st.booleans(), crash=st.integers(0, 9))
    def write(self, first: int, count: int, asks: bool, crash: int) -> None:
        """Regions, then marks, then data: the way of `Primary.write`. The power may go at an operation of the disk."""
        count = min(count, TRACK_COUNT - first)
        self.now_ns += 1
        self.disk.hook = crash_nth(crash) if crash else None
        try:
            if asks and not self.activity.ask(first, count):
                for call in self.activity.activate():
                    call()
            self.activity.enter(first, count)
        except SimulatedCrash:
            self.disk.hook = None
            self.lose_power(crash)
            return
        self.disk.hook = None
        self.change_map.mark(first, count)
        self.marked |= set(range(first, first + count))
        self.unsynced |= set(range(first, first + count))

    @rule(first=tracks, count=st.integers(1, 6))
    def ask(self, first: int, count: int) -> None:
        self.activity.ask(first, min(count, TRACK_COUNT - first))

    @precondition(lambda self: not self.change_map.frozen)
    @rule()
    def harden(self) -> None:
        """Everything so far is at the secondary: two toggles clear all marks."""
        for _ in range(2):
            self.now_ns += 1
            self.change_map.toggle(self.now_ns)
            self.change_map.release(self.now_ns)
        self.marked.clear()

    @rule()
    def begin_trim(self) -> None:
        """A sync of the pool begins; what is written from here on it does not cover."""
        self.now_ns += 1
        self.activity.begin_trim(self.now_ns, IDLE_NS)
        self.at_trim = set(self.unsynced)
        self.unsynced = set()

    @precondition(lambda self: self.at_trim is not None)
    @rule()
    def end_trim(self) -> None:
        """That sync has succeeded."""
        self.at_trim = None
        self.now_ns += 1
        self.activity.end_trim(self.change_map, REGIONS_MAX)

    @rule(seed=st.integers(0, 1 << 16))
    def lose_power(self, seed: int) -> None:
        needed = self.needed()
        self.disk.power_loss(Random(seed))
        self.open()
        missing = needed - self.suspected()
        assert not missing, f"a power loss made the tracks {sorted(missing)} forgotten"
        assert self.suspected() <= set(np.flatnonzero(self.activity.suspected()).tolist())
        # All suspected tracks are copied.
        self.marked, self.unsynced = self.suspected(), set()
        self.change_map.thaw(self.now_ns)

    @rule()
    def kill(self) -> None:
        self.unsynced |= self.at_trim or set()
        self.disk.kill()
        self.open()
        assert self.suspected() >= self.marked
        self.marked = self.suspected()
        self.change_map.thaw(self.now_ns)

    def needed(self) -> set[int]:
        return self.marked | self.unsynced | (self.at_trim or set())

    def suspected(self) -> set[int]:
        return set(np.flatnonzero(self.change_map.marked()).tolist())

    @invariant()
    def the_count_is_the_number_of_active_regions(self) -> None:
        active = np.flatnonzero(self.activity.suspected()) // REGION_TRACKS
        assert self.activity.active_count == len(set(active.tolist()))


TestActivityMap = ActivityMachine.TestCase
TestActivityMap.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_regions_are_given_up_in_these_walks() -> None:
    machine = ActivityMachine()
    assert machine.activity.active_count == machine.activity.region_count == 5
    machine.write(0, 1, False, 0)
    for _ in range(3):
        machine.harden()
        machine.begin_trim()
        machine.end_trim()
    assert machine.activity.active_count == REGIONS_MAX
    assert not machine.activity.ask(16, 2)


def _caught() -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            ActivityMachine,
            settings=settings(
                TestActivityMap.settings,
                max_examples=300,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )


def test_a_region_that_is_given_up_before_the_sync_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_trim = ActivityMap.begin_trim

    def begin_trim_too_late(self: ActivityMap, now_ns: int, idle_ns: int) -> None:
        begin_trim(self, now_ns, idle_ns)
        self._trim_epoch = self._idle_epoch = 1 << 30

    monkeypatch.setattr(ActivityMap, "begin_trim", begin_trim_too_late)
    _caught()


def test_a_region_that_is_made_durable_after_the_write_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def activate_later(self: ActivityMap, first: int, last: int) -> None:
        regions = [region for region in range(first, last + 1) if not self._active[region]]
        self._store(regions, 1)
        self._activated(regions)

    monkeypatch.setattr(ActivityMap, "_activate_now", activate_later)
    _caught()


def test_a_region_that_is_given_up_with_marks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_marked(_self: ChangeMap, blocks: np.ndarray, _tracks: int) -> np.ndarray:
        return np.zeros(len(blocks), np.bool_)

    monkeypatch.setattr(ChangeMap, "blocks_marked", none_marked)
    _caught()
