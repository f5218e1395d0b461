"""Worlds whose operator suspends much keep every promise, and each breakage of a suspension is caught in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.capture.stream import SessionStream
from isochrone.model.errors import IsochroneError
from isochrone.session import session as session_module
from isochrone.session import transitions
from isochrone.session.gate import commit_limit_ns
from isochrone.session.session import Session
from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.world import Odds, World

WORLDS_MAX = 120
WORLDS_KEPT = 40

OPERATED = Odds(cut=0.1, stall=0, kill=0.08, crash_in_disk=0.05, power=0.05, operator=0.7, stop=0, device=0)

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
    assert isinstance(worlds[0].secondary.session, Session)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_of_a_suspension_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_world(World(seed, OPERATED))
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}")
