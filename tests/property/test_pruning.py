"""Both levels of discard against the naive keeper of every mark with its time, over several sessions (S3).

P3.1 holds after every step, also between the pieces of a run of level 2; P3.2 after a release; P3.3 once everything due has
been done; P3.4 while a map is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from isochrone.capture import pruning
from isochrone.capture.backlog import Backlog
from isochrone.capture.change_map import REGION_TRACKS, ChangeMap
from isochrone.capture.pruning import PruneCounts, Pruner
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.side_file import SideFile
from isochrone.capture.stamper import Stamper
from isochrone.model.records import RECORD_DTYPE, RecordArray, RecordBatch, RecordKind
from isochrone.testing.sim_disk import SimDisk
from support.store import records

TRACK = 4096
TRACK_COUNT = 2 * REGION_TRACKS + 3
NEAR_REGION_END = [0, 1, 2, 3, REGION_TRACKS - 1, REGION_TRACKS, REGION_TRACKS + 1, TRACK_COUNT - 40]
VOLUMES = (1, 2)
SESSIONS = 2
SETTINGS = CaptureSettings(
    prune_interval_ns=40, prune_tracks_max=8, discard_interval_ns=30, discard_tracks_max=5
)

sessions = st.integers(0, SESSIONS - 1)


@dataclass(slots=True)
class Volume:
    """A map, with the time of the last record of every track that has one, and what freezing must keep."""

    change_map: ChangeMap
    last_ns: dict[int, int] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)

    def marked(self) -> set[int]:
        return set(np.flatnonzero(self.change_map.marked()).tolist())


class Session:
    """One session's maps, backlog and pruner."""

    def __init__(self, disk: SimDisk, name: str, side_file: SideFile, stamper: Stamper) -> None:
        self.backlog = Backlog(side_file)
        self.pruner = Pruner(self.backlog, stamper, SETTINGS, TRACK)
        self.volumes = {
            number: Volume(ChangeMap(disk, f"changes-{name}-{number}", number, TRACK_COUNT))
            for number in VOLUMES
        }
        self.hardened_ns = 0
        self.committed_ns = 0
        self.remembered_ns = 0
        self.is_streaming = False


class PruningMachine(RuleBasedStateMachine):
    """Sessions that capture the same writes, are hardened apart, suspend and resume; time is a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.stamper = Stamper(lambda: self.now_ns)
        self.pieces = pruning.ENTRIES_PER_STEP_MAX, pruning.TRACKS_CLEARED_PER_STEP_MAX
        pruning.ENTRIES_PER_STEP_MAX, pruning.TRACKS_CLEARED_PER_STEP_MAX = 2, REGION_TRACKS  # type: ignore[misc]
        side_file = SideFile(1 << 40)
        disk = SimDisk(seed=1)
        self.sessions = [Session(disk, f"{n}", side_file, self.stamper) for n in range(SESSIONS)]
        for session in self.sessions:
            self.copy(session)

    def teardown(self) -> None:
        pruning.ENTRIES_PER_STEP_MAX, pruning.TRACKS_CLEARED_PER_STEP_MAX = self.pieces  # type: ignore[misc]

    def enter(self, number: int, first: int, count: int, holders: list[Session]) -> None:
        time_ns = self.stamper.stamp()
        headers = records((time_ns, number, first, count, RecordKind.ZERO)).tobytes()
        batch = RecordBatch(number, time_ns, time_ns, 1, headers, bytes(count))
        self.sessions[0].backlog._side_file.enter(batch, tuple(s.backlog for s in holders))
        for session in holders:
            session.volumes[number].last_ns |= dict.fromkeys(range(first, first + count), time_ns)

    def copy(self, session: Session) -> None:
        """Every marked track is captured as an image, and the maps thaw."""
        session.is_streaming = True
        for number, volume in session.volumes.items():
            for track in sorted(volume.marked()):
                self.enter(number, track, 1, [session])
            volume.change_map.thaw(self.stamper.promise())
            volume.kept = set()

    @rule(number=st.sampled_from(VOLUMES), first=st.sampled_from(NEAR_REGION_END), count=st.integers(1, 40))
    def write(self, number: int, first: int, count: int) -> None:
        for session in self.sessions:
            session.volumes[number].change_map.mark(first, count)
        holders = [session for session in self.sessions if session.is_streaming]
        if holders:
            self.enter(number, first, count, holders)
        for session in self.sessions:
            if not session.is_streaming:
                volume = session.volumes[number]
                volume.last_ns |= dict.fromkeys(range(first, first + count), self.stamper.stamp())
                volume.kept |= set(range(first, first + count))

    @rule(session=sessions, entries=st.integers(1, 12))
    def harden(self, session: int, entries: int) -> None:
        """J moves through the next few batches of the backlog; C stays behind."""
        of = self.sessions[session]
        held = list(of.backlog)[:entries]
        if held:
            of.backlog.take_unsent(1 << 40)
            of.hardened_ns = int(np.frombuffer(held[-1].packed_records, RECORD_DTYPE)["time_ns"][-1])
        elif of.is_streaming:
            of.hardened_ns = self.stamper.promise()
        of.backlog.drop_hardened(of.hardened_ns)

    @rule(session=sessions)
    def commit(self, session: int) -> None:
        """C comes up to J."""
        self.sessions[session].committed_ns = self.sessions[session].hardened_ns

    @rule(session=sessions, delay_ns=st.sampled_from([1, 10, 31]))
    def tick(self, session: int, delay_ns: int) -> None:
        self.now_ns = max(self.now_ns, self.stamper.last_ns) + delay_ns
        self.work(self.sessions[session])

    def work(self, session: Session) -> None:
        if not session.is_streaming:
            return
        before = {number: volume.marked() for number, volume in session.volumes.items()}

        def remember() -> None:
            assert before == {number: volume.marked() for number, volume in session.volumes.items()} or (
                session.remembered_ns == session.backlog.dropped_through_ns
            ), "a mark was cleared before the time that proves it was remembered"
            session.remembered_ns = session.backlog.dropped_through_ns

        toggles_ns = {n: v.change_map.toggle_ns for n, v in session.volumes.items()}
        session.pruner.work(session.volumes, session.committed_ns, self.now_ns, remember)
        for number, volume in session.volumes.items():
            toggle_ns = toggles_ns[number]
            if toggle_ns is not None and toggle_ns <= session.committed_ns:
                # P3.2: the release leaves no mark of before the toggle, unless rewritten later.
                assert volume.marked() == {t for t, ns in volume.last_ns.items() if ns > toggle_ns}

    @rule(session=sessions)
    def suspend(self, session: int) -> None:
        of = self.sessions[session]
        of.is_streaming = False
        of.backlog.clear()
        for volume in of.volumes.values():
            volume.change_map.freeze()
            volume.kept = volume.marked()
            # What was in the backlog is nowhere but in the marks now.
            volume.last_ns |= dict.fromkeys(self.uncommitted(of, volume), self.stamper.stamp())

    @rule(session=sessions)
    def resume(self, session: int) -> None:
        of = self.sessions[session]
        of.backlog.clear()
        self.copy(of)

    @rule(session=sessions)
    def p3_3_when_all_that_is_due_is_done_only_what_is_not_committed_is_marked(self, session: int) -> None:
        of = self.sessions[session]
        if not of.is_streaming:
            return
        self.commit(session)
        for _ in range(3 * TRACK_COUNT // REGION_TRACKS + 3 * len(of.backlog) + 9):
            self.now_ns = max(self.now_ns, self.stamper.last_ns) + SETTINGS.prune_interval_ns
            self.work(of)
        for volume in of.volumes.values():
            assert volume.marked() == self.uncommitted(of, volume)

    def uncommitted(self, session: Session, volume: Volume) -> set[int]:
        return {track for track, time_ns in volume.last_ns.items() if time_ns > session.committed_ns}

    @invariant()
    def p3_1_everything_not_committed_is_marked(self) -> None:
        for session in self.sessions:
            for volume in session.volumes.values():
                assert volume.marked() >= self.uncommitted(session, volume)

    @invariant()
    def p3_4_a_frozen_map_loses_no_mark(self) -> None:
        for session in self.sessions:
            for volume in session.volumes.values():
                if volume.change_map.frozen:
                    assert volume.marked() >= volume.kept


TestPruning = PruningMachine.TestCase
TestPruning.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_level_2_that_clears_a_track_which_is_not_hardened_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    set_runs = pruning._set_runs

    def forget_the_last(flags: np.ndarray, held: RecordArray) -> None:
        set_runs(flags, held[:-1])

    monkeypatch.setattr(pruning, "_set_runs", forget_the_last)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            PruningMachine,
            settings=settings(
                TestPruning.settings, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False
            ),
        )


def test_level_2_runs_in_these_walks() -> None:
    """The machine's thresholds are such that both levels have work."""
    machine = PruningMachine()
    machine.write(1, 0, 12)
    machine.write(1, 100, 3)
    machine.tick(0, 31)
    machine.tick(0, 31)
    machine.harden(0, 1)
    machine.commit(0)
    for _ in range(9):
        machine.tick(0, 31)
    counts = machine.sessions[0].pruner.counts
    machine.teardown()
    assert isinstance(counts, PruneCounts)
    assert (counts.track_runs, counts.tracks_discarded) == (1, 12)
