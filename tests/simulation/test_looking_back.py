"""Worlds whose sessions keep a history: every instant can be had again, and each breakage of that is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.capture.own_marks import OwnMarks
from isochrone.model.errors import IsochroneError
from isochrone.session import history as session_history
from isochrone.session.history import History as SessionHistory
from isochrone.session.history_window import Gap
from isochrone.session.recovery import Recovery
from isochrone.store import image_build, kept_entries
from isochrone.store.allocator import Allocator
from isochrone.store.history import History
from isochrone.store.kept_entries import KeptEntries
from isochrone.store.pool import Pool
from isochrone.store.staging import Chunk
from isochrone.store.state import PoolState
from isochrone.testing.endings import run_world
from isochrone.testing.events import MILLISECOND_NS
from isochrone.testing.oracle import OracleError
from isochrone.testing.roughness import Odds
from isochrone.testing.world import World

WORLDS_KEPT = 40
WORLDS_MAX = 80

MILD = Odds(
    cut=0.08, stall=0.02, link_trouble=0.02, storm=0.03, renewal=0.01, kill=0.08, crash_in_disk=0.08, power=0.06,
    operator=0.12, pairs=0.2, timed=0.2, stop=0.03, device=0.03,
)  # fmt: skip
"""Enough faults to break off resyncs, few enough that sessions become whole."""

PAIRS = Odds(
    cut=0.03, stall=0, link_trouble=0, storm=0, renewal=0, kill=0.03, crash_in_disk=0, power=0, operator=0.5, pairs=0.8,
    timed=0, stop=0, device=0,
)  # fmt: skip
"""Pairs are suspended and resumed by themselves."""

Patch = pytest.MonkeyPatch
Breakage = Callable[[Patch], None]


def live(seed: int, odds: Odds = MILD) -> World:
    """Live through a world whose session keeps its history, and goes back if it ends in a disaster."""
    world = World(seed, odds, keeps_history=True)
    run_world(world)
    return world


def test_every_instant_that_is_promised_can_be_had_again() -> None:
    tallies = [live(seed).tally for seed in range(WORLDS_KEPT)]
    assert sum(tally.images_made for tally in tallies) > 2 * WORLDS_KEPT
    assert sum(tally.instants_refused for tally in tallies) > WORLDS_KEPT / 4
    assert sum(tally.instants_named for tally in tallies) > WORLDS_KEPT / 4
    assert sum(tally.rewinds for tally in tallies) > WORLDS_KEPT / 8


def include_what_came_after(patch: Patch) -> None:
    """An image has the writes of 5 ms after its time."""
    early_of = kept_entries.early_of
    patch.setattr(image_build, "early_of", lambda chunk, ns: early_of(chunk, ns + 5 * MILLISECOND_NS))


def release_too_much(patch: Patch) -> None:
    """More of the oldest history is given up than it is said to be."""
    take_through = KeptEntries.take_through
    patch.setattr(KeptEntries, "take_through", lambda self, ns: take_through(self, ns + 50 * MILLISECOND_NS))


def free_tracks_that_the_history_needs(patch: Patch) -> None:
    """A commit keeps entries and does not count them."""
    commit = PoolState._commit

    def broken(self: PoolState, chunk: Chunk, history: History | None) -> object:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Allocator, "share", lambda *_: None)
            return commit(self, chunk, history)

    patch.setattr(PoolState, "_commit", broken)


def keep_a_volume_that_left(patch: Patch) -> None:
    """A pair leaves the session, and images go on to show its secondary."""
    patch.setattr(Pool, "history_end", lambda *_: None)


def forget_gaps(patch: Patch) -> None:
    """A resync leaves no gap: instants of which tracks came late can be asked for."""
    patch.setattr(SessionHistory, "resync_ended", lambda *_: None)


def forget_that_a_pair_is_behind(patch: Patch) -> None:
    """There is no gap while a pair is suspended by itself."""
    patch.setattr(session_history, "open_gaps", lambda *_: [])


def see_gaps_everywhere(patch: Patch) -> None:
    """After a restart every instant is in a gap: nothing wrong is served, because nothing is."""
    resync_ended = SessionHistory.resync_ended

    def broken(self: SessionHistory, gap: Gap) -> None:
        resync_ended(self, Gap(0, gap.to_ns))

    patch.setattr(SessionHistory, "resync_ended", broken)


def forget_named_instants(patch: Patch) -> None:
    """J passes a named instant that nobody wrote down."""
    patch.setattr(SessionHistory, "was_named", lambda *_: None)


def forget_what_changed_since(patch: Patch) -> None:
    """A rewind leaves no marks."""
    patch.setattr(OwnMarks, "mark", lambda *_: None)


def say_that_it_went_back(patch: Patch) -> None:
    """A recovery to an instant ends, and the volumes are what they were."""
    finish = Recovery._finish

    def broken(self: Recovery) -> None:
        self._core.pool.discard(self._core.document.number, self._core.document.recovered_ns)
        finish(self)

    patch.setattr(Recovery, "_begin_rewind", broken)


@pytest.mark.parametrize(
    "breakage",
    [
        include_what_came_after,
        release_too_much,
        free_tracks_that_the_history_needs,
        keep_a_volume_that_left,
        forget_gaps,
        see_gaps_everywhere,
        forget_named_instants,
        forget_what_changed_since,
        say_that_it_went_back,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_breakage_is_caught(breakage: Breakage, monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert is_caught(MILD), f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}"


def test_a_pair_that_is_behind_and_forgotten_is_caught(monkeypatch: Patch) -> None:
    forget_that_a_pair_is_behind(monkeypatch)
    assert is_caught(PAIRS)


def is_caught(odds: Odds) -> bool:
    """Whether some world ends in a broken promise, or in an error of the product's own."""
    for seed in range(WORLDS_MAX):
        try:
            live(seed, odds)
        except (OracleError, IsochroneError):
            return True
    return False
