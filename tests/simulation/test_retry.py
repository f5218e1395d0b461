"""Worlds whose secondary has a bad device: every promise holds, and each deliberate breakage of the retry is caught (S6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from isochrone.model.errors import IsochroneError
from isochrone.model.records import RECORD_DTYPE
from isochrone.mover.mover import Mover, Source
from isochrone.session import session as session_module
from isochrone.store import staging
from isochrone.store.stager import Stager
from isochrone.store.staging import Chunk, Staged
from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.roughness import Odds
from isochrone.testing.world import World

WORLDS = 30
WORLDS_MAX = 60

TROUBLED = Odds(cut=0.05, stall=0.02, kill=0.1, crash_in_disk=0.03, power=0.05, operator=0.05, device=0.7)

Patch = pytest.MonkeyPatch


def received_counts_as_stored(patch: Patch) -> None:
    """F, J and the hardened promise of a source go by what has come."""
    patch.setattr(Source, "through_ns", property(lambda self: self.taken_ns))


def log_the_promise_of_what_waits(patch: Patch) -> None:
    """What is logged as staged passes a record that exists in memory only."""
    stage = Stager.stage

    def stage_and_promise(
        self: Stager, session: int, source: int, through_ns: int, *rest: object, **_: object
    ) -> Staged:
        staged = stage(self, session, source, through_ns, *rest)  # type: ignore[arg-type]
        if staged.through_ns < through_ns:
            stage(self, session, source, through_ns, np.empty(0, RECORD_DTYPE), b"")
        return staged

    patch.setattr(Stager, "stage", stage_and_promise)


def append_late_records(patch: Patch) -> None:
    """A record that is stored late comes behind later ones: an older image overwrites a newer one."""

    def append(chunks: list[Chunk], late: Chunk) -> list[Chunk]:
        return [*chunks, late]

    patch.setattr(staging, "_with_late", append)


def commit_past_what_waits(patch: Patch) -> None:
    """C goes by what has come, while acks stay honest."""
    hardened_ns = Mover.hardened_ns
    form_ns = Mover.form_ns.fget  # type: ignore[attr-defined]

    def form_received(self: Mover) -> int:
        joined = [state.taken_ns for state in self.sources.values() if state.joined_ns is not None]
        return max(int(form_ns(self)), min(joined, default=0))

    def honest(self: Mover, source: int) -> int:
        return min(hardened_ns(self, source), self.sources[source].through_ns)

    patch.setattr(Mover, "form_ns", property(form_received))
    patch.setattr(Mover, "hardened_ns", honest)
    patch.setattr(
        session_module,
        "commit_limit_ns",
        lambda journal_ns, floor_ns, *_: journal_ns if floor_ns is None else min(journal_ns, floor_ns),
    )


BREAKAGES: list[Callable[[Patch], None]] = [
    received_counts_as_stored,
    log_the_promise_of_what_waits,
    append_late_records,
    commit_past_what_waits,
]


def test_worlds_with_a_bad_device_keep_every_promise() -> None:
    """P6.1 to P6.5; tracks do wait in them, and sessions do run out of patience."""
    waited = 0
    for seed in range(WORLDS):
        world = World(seed, TROUBLED)
        run_world(world)
        waited += world.tally.tracks_waited
    assert waited > 100


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_is_caught(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_world(World(seed, TROUBLED))
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}")
