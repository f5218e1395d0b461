"""For every order of copies, flash copies, writes and trims: each volume reads as a plain list of contents says.

After each step all references are counted anew and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from isochrone.store import doomed_pages, pointer_copy
from isochrone.store.allocator import Allocator
from isochrone.store.arena import Arena
from isochrone.store.doomed_pages import RECLAIM_PAGE_COUNT_MAX
from isochrone.store.pointer_copy import repeats_after
from isochrone.store.tables import TrackTables
from support.pointers import COUNTS, Pointers, draw_extents, step


def walk(data: DataObject) -> None:
    """Some steps, each checked; what is given up is reclaimed at once, or bit by bit and late."""
    pointers = Pointers()
    pointers.write(1, 0, data.draw(COUNTS, "first write"))
    at_once = data.draw(st.sampled_from([RECLAIM_PAGE_COUNT_MAX, 1]), "reclaimed at once")
    with patch.object(doomed_pages, "RECLAIM_PAGE_COUNT_MAX", at_once):
        for _ in range(data.draw(st.integers(1, 12), "steps")):
            step(data, pointers)
            if data.draw(st.booleans(), "check"):
                pointers.check()
        pointers.check()


SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SETTINGS
@given(st.data())
def test_every_volume_reads_as_a_plain_list_says(data: DataObject) -> None:
    walk(data)


@given(st.data())
def test_no_volume_holds_a_track_more_often_than_foretold(data: DataObject) -> None:
    pointers = Pointers()
    pointers.write(1, 0, 3000)
    for _ in range(3):
        extents = draw_extents(data, 3000, 3000)
        if extents:
            table = pointers.state.volumes[1]
            foretold = repeats_after(table, table, np.array(extents, np.int64))
            pointers.establish(1, 1, extents)
            assert max(pointers.references().values(), default=0) <= foretold


Patch = pytest.MonkeyPatch
PHASES = (Phase.explicit, Phase.generate)


def count_no_reference_for_single_entries(patch: Patch) -> None:
    patch.setattr(Allocator, "share", lambda *_: None)


def count_no_reference_for_pages(patch: Patch) -> None:
    patch.setattr(Arena, "share", lambda *_: None)


def read_a_volume_that_is_copied_onto_itself_while_it_changes(patch: Patch) -> None:
    patch.setattr(pointer_copy, "_aside", lambda _tables, source, _extents: source)


def drop_a_track_once_that_was_held_twice(patch: Patch) -> None:
    patch.setattr(TrackTables, "drop_of", lambda self, _, tracks: self.drop(tracks))


def take_the_last_page_for_whole_in_any_volume(patch: Patch) -> None:
    plan = pointer_copy._plan

    def broken(*arguments: object) -> object:
        source, target, extents = arguments
        made = plan(source, target, extents)  # type: ignore[arg-type]
        rest = made.entries
        short = (rest[:, 0] % 1024 == 0) & (rest[:, 1] % 1024 == 0)
        return pointer_copy._Plan(
            np.concatenate([made.source_pages, rest[short, 0] >> 10]),
            np.concatenate([made.target_pages, rest[short, 1] >> 10]),
            rest[~short],
        )

    patch.setattr(pointer_copy, "_plan", broken)


@pytest.mark.parametrize(
    "breakage",
    [
        count_no_reference_for_single_entries,
        count_no_reference_for_pages,
        read_a_volume_that_is_copied_onto_itself_while_it_changes,
        drop_a_track_once_that_was_held_twice,
        take_the_last_page_for_whole_in_any_volume,
    ],
    ids=lambda breakage: breakage.__name__,
)
def test_the_walk_catches(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)

    @settings(SETTINGS, database=None, max_examples=400, report_multiple_bugs=False, phases=PHASES)
    @given(st.data())
    def run(data: DataObject) -> None:
        walk(data)

    with pytest.raises(AssertionError):
        run()
