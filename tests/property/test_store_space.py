"""For every history of copies and writes: space is what deleting gives back, and differences are all tracks that differ."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray

from isochrone.store import differences, space
from isochrone.store.differences import difference_pieces, joined
from isochrone.store.space import VolumeSpace, space_steps
from isochrone.store.state import PoolState
from support.pointers import COUNTS, TRACK, TRACKS, Pointers, step

PHASES = (Phase.explicit, Phase.generate)
SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
Patch = pytest.MonkeyPatch
Numbers = NDArray[np.int64]


def lived(data: DataObject) -> Pointers:
    pointers = Pointers()
    pointers.write(1, 0, data.draw(COUNTS, "first write"))
    for _ in range(data.draw(st.integers(1, 12), "steps")):
        step(data, pointers)
    return pointers


def space_of(pointers: Pointers, numbers: list[int]) -> VolumeSpace:
    steps = space_steps(pointers.state, [pointers.state.volumes[number] for number in numbers])
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: VolumeSpace = stop.value
            return result


def space_walk(data: DataObject) -> None:
    pointers = lived(data)
    numbers = data.draw(st.lists(st.sampled_from(sorted(pointers.lists)), min_size=1, unique=True), "volumes")
    mine = [physical for number in numbers for physical in pointers.lists[number] if physical]
    told = space_of(pointers, numbers)
    used = pointers.state.allocator.used_count
    for number in numbers:
        pointers.delete(number)
    pointers.reclaim()
    given_back = (used - pointers.state.allocator.used_count) * TRACK
    assert told == VolumeSpace(
        len(mine) * TRACK, given_back, len(set(mine) & pointers.references().keys()) * TRACK
    )
    pointers.check()


def difference_walk(data: DataObject) -> None:
    pointers = lived(data)
    one, other = (data.draw(st.sampled_from(sorted(pointers.lists)), "volume") for _ in range(2))
    length = max(len(pointers.lists[one]), len(pointers.lists[other]))
    first = data.draw(TRACKS, "first") % length
    end = data.draw(st.one_of(st.just(length), st.integers(first, length)), "end")
    tables = pointers.state.volumes[one], pointers.state.volumes[other]
    runs = joined(difference_pieces(pointers.state.arena, *tables, first, end))
    lists = [pointers.lists[number] + [0] * (length - len(pointers.lists[number])) for number in (one, other)]
    wanted = [track for track in range(first, end) if lists[0][track] != lists[1][track]]
    told = [
        np.arange(first, first + count)
        for first, count in zip(runs.first_track, runs.track_count, strict=True)
    ]
    assert np.concatenate([[], *told]).tolist() == wanted
    assert (runs.first_track[1:] > (runs.first_track + runs.track_count)[:-1]).all()


@SETTINGS
@given(st.data())
def test_deleting_volumes_gives_back_exactly_what_was_told(data: DataObject) -> None:
    space_walk(data)


@SETTINGS
@given(st.data())
def test_all_tracks_that_differ_are_named_and_no_other_pointer(data: DataObject) -> None:
    difference_walk(data)


def take_every_page_for_shared_once(patch: Patch) -> None:
    patch.setattr(space, "REFERENCES", np.uint16(0))


def look_at_counts_alone(patch: Patch) -> None:
    def broken(
        state: PoolState, alone: NDArray[np.uint32], _: object
    ) -> Generator[None, None, tuple[int, int]]:
        exclusive = yield from space._count_single(state, alone)
        return exclusive, exclusive

    patch.setattr(space, "_count_repeated", broken)


def take_shared_page_numbers_for_all_that_can_be_equal(patch: Patch) -> None:
    def broken(_arena: object, pages: Numbers, _others: object, indexes: Numbers) -> Numbers:
        return (np.repeat(indexes, 1024) << 10) | np.tile(np.arange(1024), len(pages))

    patch.setattr(differences, "_different_tracks", broken)


@pytest.mark.parametrize(
    ("breakage", "walk"),
    [
        (take_every_page_for_shared_once, space_walk),
        (look_at_counts_alone, space_walk),
        (take_shared_page_numbers_for_all_that_can_be_equal, difference_walk),
    ],
    ids=lambda function: function.__name__,
)
def test_the_walks_catch(
    breakage: Callable[[Patch], None], walk: Callable[[DataObject], None], monkeypatch: Patch
) -> None:
    breakage(monkeypatch)

    @settings(SETTINGS, database=None, max_examples=300, report_multiple_bugs=False, phases=PHASES)
    @given(st.data())
    def run(data: DataObject) -> None:
        walk(data)

    with pytest.raises(AssertionError):
        run()
