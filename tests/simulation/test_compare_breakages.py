"""Comparing and copying around unreadable tracks in simulated worlds; breakages of both are caught. See tests/README.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from isochrone.capture.change_map import SUSPICION, ChangeMap
from isochrone.capture.copier import DONE, Copier
from isochrone.model.errors import IsochroneError
from isochrone.store.newest import NewestEntries
from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.roughness import Odds
from isochrone.testing.world import World

WORLDS_MAX = 150

POWER = Odds(cut=0.15, stall=0.02, kill=0.1, crash_in_disk=0.05, power=0.5, operator=0.1)
"""Worlds that lose power all the time: everything is suspected, and much of it is equal."""

Patch = pytest.MonkeyPatch
Breakage = Callable[[Patch], None]


def equal_counts_for_a_track_written_meanwhile(patch: Patch) -> None:
    """An answer "equal" settles a track whatever was written since it was hashed."""
    answered = Copier.answered

    def believe(self: Copier, tracks: Any, differs: Any) -> None:
        answered(self, tracks, differs)
        self._enter(tracks[~differs], DONE)

    patch.setattr(Copier, "answered", believe)


def compare_the_committed_image(patch: Patch) -> None:
    """The mover hashes what is committed, not the newest that it has received."""
    begin = NewestEntries.__init__

    def begin_empty(self: NewestEntries, *parts: Any) -> None:
        begin(self, *parts)
        self._keys = self._keys[:0]

    patch.setattr(NewestEntries, "__init__", begin_empty)


def suspicion_hides_a_write(patch: Patch) -> None:
    """A suspected track stays one that is only suspected when it is written, and an answer to an old question counts."""
    patch.setattr(ChangeMap, "suspected", lambda self: (self._marks & SUSPICION) != 0)
    equal_counts_for_a_track_written_meanwhile(patch)


BREAKAGES: list[Breakage] = [
    equal_counts_for_a_track_written_meanwhile,
    compare_the_committed_image,
    suspicion_hides_a_write,
]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_breakage_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_world(World(seed, POWER))
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}")


def test_worlds_that_lose_power_compare_and_keep_every_promise() -> None:
    equal, copied = 0, 0
    for seed in range(10):
        world = World(seed, POWER)
        run_world(world)
        equal += world.tally.tracks_equal
        copied += world.tally.tracks_copied
    assert equal > 100
    assert copied > 100
