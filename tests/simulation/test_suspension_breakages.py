"""Worlds whose operator suspends much keep every promise, and each breakage of a suspension is caught in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import VolumeCopy
from isochrone.model.errors import IsochroneError
from isochrone.mover.mover import Mover
from isochrone.session import session as session_module
from isochrone.session import transitions
from isochrone.session.document import PairDocument, SessionDocument
from isochrone.session.gate import commit_limit_ns
from isochrone.session.pair_suspension import PairSuspension
from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.roughness import Odds
from isochrone.testing.world import World

WORLDS_MAX = 200
WORLDS_KEPT = 40
TICKS_LATE = 20

OPERATED = Odds(
    cut=0.05,
    stall=0,
    kill=0.03,
    crash_in_disk=0,
    power=0,
    operator=0.85,
    pairs=0,
    timed=0.8,
    stop=0,
    device=0,
)
"""The operator suspends at times most of the time."""
PAIRS = Odds(
    cut=0.1,
    stall=0,
    kill=0.1,
    crash_in_disk=0,
    power=0,
    operator=0.7,
    pairs=0.7,
    stop=0,
    device=0,
    corruption=0,
)
"""The operator deals with single pairs most of the time."""

Patch = pytest.MonkeyPatch
Breakage = Callable[[Patch], None]


def cut_a_little_early(patch: Patch) -> None:
    """A primary stops capturing 5 ms before the time, and promises the time."""

    def early(self: SessionStream) -> bool:
        asked_ns = self.suspend_at_ns
        if not self.is_capturing or asked_ns <= self._began_ns:
            return False
        if self._stamper.promise() < asked_ns - 5_000_000:
            return False
        self.cut_ns = max(asked_ns, self.sent_through_ns)
        for captured in self.volumes.values():
            captured.cut(self.cut_ns)
        self.tell_cut()
        return True

    patch.setattr(SessionStream, "cut_if_due", early)


def forget_the_gate_of_a_pending_suspension(patch: Patch) -> None:
    """What a primary sent before it heard of the time is committed."""
    patch.setattr(
        session_module,
        "commit_limit_ns",
        lambda journal_ns, floor_ns, _at_ns=0, waiting_ns=None: commit_limit_ns(
            journal_ns, floor_ns, waiting_ns=waiting_ns
        ),
    )


def let_the_image_go_on_after_a_suspension_at_a_time(patch: Patch) -> None:
    """The gate is open again once the session is SUSPENDED, though later writes are staged."""
    with_stream_ends = transitions._with_stream_ends
    patch.setattr(transitions, "_with_stream_ends", lambda document, _floor: with_stream_ends(document, None))


def stay_suspending_for_ever(patch: Patch) -> None:
    """A cancel forgets the command and leaves its gate."""
    limit_ns: list[int] = []

    def limit_kept(
        journal_ns: int, floor_ns: int | None, at_ns: int = 0, waiting_ns: int | None = None
    ) -> int:
        if at_ns:
            limit_ns[:] = [at_ns]
        return commit_limit_ns(journal_ns, floor_ns, limit_ns[0] if limit_ns else 0, waiting_ns)

    patch.setattr(session_module, "commit_limit_ns", limit_kept)


def release_the_marks_of_a_suspended_pair(patch: Patch) -> None:
    """The map of a suspended volume is pruned like any other."""

    def suspend_and_prune(self: CapturedVolume, cut_ns: int, now_ns: int) -> None:
        was_frozen, toggle_ns = self.change_map.frozen, self.change_map.toggle_ns
        suspend(self, cut_ns, now_ns)
        self.change_map.frozen, self.change_map.toggle_ns = was_frozen, toggle_ns

    suspend = CapturedVolume.suspend
    patch.setattr(CapturedVolume, "suspend", suspend_and_prune)


def commit_a_resync_that_was_broken_off(patch: Patch) -> None:
    """What was staged of a pair stays when its resync is broken off by a suspension."""
    was_suspended = PairSuspension.was_suspended

    def keep_staged(self: PairSuspension, source: int, volume: VolumeCopy) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Mover, "forget_volume", lambda *_: None)
            return was_suspended(self, source, volume)

    patch.setattr(PairSuspension, "was_suspended", keep_staged)


def say_late_that_a_pair_is_suspended(patch: Patch) -> None:
    """A primary promises past the cut of a volume before it says that it was cut."""
    progress = CapturedVolume.progress
    told: Counter[CapturedVolume] = Counter()

    def progress_late(self: CapturedVolume) -> VolumeCopy:
        told[self] += self.suspended_ns != 0
        found = progress(self)
        return replace(found, suspended_ns=0) if told[self] < TICKS_LATE else found

    patch.setattr(SessionStream, "tell_suspended_volumes", lambda _self: None)
    patch.setattr(CapturedVolume, "progress", progress_late)


def resume_a_pair_without_a_hold(patch: Patch) -> None:
    """Images of a pair that resumes are committed as they come."""
    with_gap = transitions.with_gap

    def no_hold(document: SessionDocument, pairs: Iterable[PairDocument], floor_ns: int) -> SessionDocument:
        pairs = list(pairs)
        held = with_gap(document, pairs, floor_ns)
        resumed = any(pair.image_ns and not pair.suspended for pair in pairs)
        return held.changed(hold_floor_ns=document.hold_floor_ns) if resumed else held

    patch.setattr(transitions, "with_gap", no_hold)


PAIR_BREAKAGES: list[Breakage] = [
    release_the_marks_of_a_suspended_pair,
    commit_a_resync_that_was_broken_off,
    say_late_that_a_pair_is_suspended,
    resume_a_pair_without_a_hold,
]

BREAKAGES: list[Breakage] = [
    cut_a_little_early,
    forget_the_gate_of_a_pending_suspension,
    let_the_image_go_on_after_a_suspension_at_a_time,
    stay_suspending_for_ever,
]


def test_worlds_whose_operator_suspends_much_keep_every_promise() -> None:
    worlds = [World(seed, OPERATED) for seed in range(WORLDS_KEPT)]
    for world in worlds:
        run_world(world)
    assert sum(world.tally.exact_suspensions for world in worlds) > WORLDS_KEPT / 4


def test_worlds_whose_operator_suspends_single_pairs_keep_every_promise() -> None:
    worlds = [World(seed, PAIRS) for seed in range(WORLDS_KEPT)]
    for world in worlds:
        run_world(world)
    assert sum(world.tally.pairs_behind for world in worlds) > WORLDS_KEPT / 2


@pytest.mark.parametrize("breakage", PAIR_BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_of_a_pair_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_world(World(seed, PAIRS))
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}")


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_of_a_suspension_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_world(World(seed, OPERATED))
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}")
