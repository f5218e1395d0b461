"""Change maps against the naive keeper of all marks with their times: P3.1 always, P3.2 and P3.3 after each release."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isochrone.capture.change_map import REGION_TRACKS, ChangeMap
from isochrone.testing.sim_disk import SimDisk

NAME = "changes-x-7"
NEAR_REGION_END = [0, 1, 2, 3, REGION_TRACKS - 1, REGION_TRACKS, REGION_TRACKS + 1, 2 * REGION_TRACKS - 1]
TRACK_COUNT = 2 * REGION_TRACKS + 3


class ChangeMapMachine(RuleBasedStateMachine):
    """A map driven as its session drives it, beside a dictionary from track to the time of its last write.

    Time is a counter. `hardened_ns` is what the secondary has told; a track whose last write is later than it must be
    marked. `kept` holds what freeze, kill and suspension must keep whatever is hardened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(seed=1)
        self.map = ChangeMap(self.disk, NAME, 7, TRACK_COUNT)
        self.now_ns = 0
        self.hardened_ns = 0
        self.written_ns: dict[int, int] = {}
        self.kept: set[int] = set()
        self.toggles_ns: list[int] = []
        self.suspicious: set[int] = set()

    def tick(self) -> int:
        self.now_ns += 1
        return self.now_ns

    @initialize(thawed=st.booleans())
    def begin(self, thawed: bool) -> None:
        if thawed:
            self.thaw()

    @rule(first=st.sampled_from(NEAR_REGION_END), count=st.integers(1, 4))
    def write(self, first: int, count: int) -> None:
        self.map.mark(first, count)
        stamp_ns = self.tick()
        for track in range(first, first + count):
            self.written_ns[track] = stamp_ns

    @rule(tracks=st.sets(st.integers(0, TRACK_COUNT - 1), max_size=3))
    def mark_where(self, tracks: set[int]) -> None:
        wanted = np.zeros(TRACK_COUNT, np.bool_)
        wanted[list(tracks)] = True
        self.map.mark_where(wanted)
        stamp_ns = self.tick()
        self.written_ns |= dict.fromkeys(tracks, stamp_ns)

    @rule(tracks=st.sets(st.integers(0, TRACK_COUNT - 1), max_size=3))
    def suspect_where(self, tracks: set[int]) -> None:
        wanted = np.zeros(TRACK_COUNT, np.bool_)
        wanted[list(tracks)] = True
        self.map.suspect_where(wanted)
        self.suspicious |= tracks

    @rule()
    def toggle(self) -> None:
        may = not self.map.frozen and self.map.toggle_ns is None
        now_ns = self.tick()
        assert self.map.toggle(now_ns) is may

    @rule(lag=st.integers(0, 6))
    def harden_and_release(self, lag: int) -> None:
        self.hardened_ns = max(self.hardened_ns, self.now_ns - lag)
        toggle_ns = self.map.toggle_ns
        may = not self.map.frozen and toggle_ns is not None and toggle_ns <= self.hardened_ns
        assert self.map.release(self.hardened_ns) is may
        if may and toggle_ns is not None:
            # P3.2: no mark from before the toggle remains unless rewritten later.
            written = {track for track, time in self.written_ns.items() if time > toggle_ns}
            assert self.marked() == written | self.suspicious
            self.toggles_ns.append(toggle_ns)

    @rule()
    def freeze(self) -> None:
        self.map.freeze()
        self.kept = self.marked()

    @precondition(lambda self: self.map.frozen)
    @rule()
    def thaw(self) -> None:
        """Every marked track was copied at this instant."""
        before = self.marked()
        copied_ns = self.tick()
        self.written_ns |= dict.fromkeys(before, copied_ns)
        self.map.thaw(copied_ns)
        assert self.marked() == before
        self.suspicious = set()
        self.kept = set()

    @rule()
    def kill(self) -> None:
        before = self.marked()
        self.disk.kill()
        self.map = ChangeMap(self.disk, NAME, 7, TRACK_COUNT)
        assert self.marked() == before
        assert self.map.frozen
        self.kept = before

    def marked(self) -> set[int]:
        return set(np.flatnonzero(self.map.marked()).tolist())

    @invariant()
    def p3_1_everything_not_hardened_is_marked(self) -> None:
        unhardened = {track for track, time in self.written_ns.items() if time > self.hardened_ns}
        assert self.marked() >= unhardened

    @invariant()
    def p3_3_nothing_is_marked_that_was_written_before_the_last_release(self) -> None:
        floor_ns = self.toggles_ns[-1] if self.toggles_ns else 0
        later = {track for track, time in self.written_ns.items() if time > floor_ns}
        assert self.marked() <= later | self.kept | self.suspicious

    @invariant()
    def p3_4_a_frozen_map_loses_no_mark(self) -> None:
        if self.map.frozen:
            assert self.marked() >= self.kept

    @invariant()
    def suspicion_is_kept_and_never_hides_a_write(self) -> None:
        """What is only suspected was suspected and not written since; a write that is not hardened is certain."""
        suspected = set(np.flatnonzero(self.map.suspected()).tolist())
        unhardened = {track for track, time in self.written_ns.items() if time > self.hardened_ns}
        assert suspected <= self.suspicious <= self.marked()
        assert not suspected & unhardened

    @invariant()
    def the_count_is_the_number_of_marks(self) -> None:
        assert self.map.marked_count == len(self.marked())


TestChangeMap = ChangeMapMachine.TestCase
TestChangeMap.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
