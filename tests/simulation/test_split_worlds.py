"""Split brains from seeds: both sites write after a recovery, either side gives in, and nothing of the kept side is lost."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from isochrone.capture.fencing import Fencing
from isochrone.capture.own_marks import OwnMarks
from isochrone.link.messages import Marked
from isochrone.model.errors import IsochroneError
from isochrone.session.split import Split
from isochrone.testing.oracle import OracleError
from isochrone.testing.split_world import run_split_world

SEEDS_PER_TEST = 20
SEED_COUNT = int(os.environ.get("ISOCHRONE_SPLIT_SEEDS", "100"))
WORLDS_MAX = 60

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("first", range(0, SEED_COUNT, SEEDS_PER_TEST))
def test_a_split_is_mended_as_the_operator_said_in_worlds_from(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        try:
            run_split_world(seed)
        except OracleError as error:
            pytest.fail(f"split world {seed}: {error}")


def test_the_worlds_give_in_at_either_side_and_go_back_in_the_middle() -> None:
    met = {word for seed in range(30) for word in run_split_world(seed)}
    assert met == {"primary", "secondary", "back", "rewound"}


def marks_of_the_side_that_gives_in_not_sent(patch: Patch) -> None:
    """The other side is appointed without hearing what was written here."""
    patch.setattr(Split, "_pieces", lambda _self, _source: iter(()))


def marks_of_the_side_that_gives_in_not_taken(patch: Patch) -> None:
    """The marks are answered and forgotten."""
    patch.setattr(Fencing, "handle_marks", lambda _self, stream, _marks: stream.send(Marked()))


def what_changed_since_a_rewind_is_not_marked(patch: Patch) -> None:
    """What was hardened after the instant that was gone back to has no marks at either side."""
    patch.setattr(OwnMarks, "mark", lambda _self, _session, _tracks: None)


@pytest.mark.parametrize(
    "breakage",
    [
        what_changed_since_a_rewind_is_not_marked,
        marks_of_the_side_that_gives_in_not_sent,
        marks_of_the_side_that_gives_in_not_taken,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_breakage_is_caught(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    for seed in range(WORLDS_MAX):
        try:
            run_split_world(seed)
        except (OracleError, IsochroneError):
            return
    pytest.fail(f"{WORLDS_MAX} worlds did not notice: {breakage.__doc__}")
