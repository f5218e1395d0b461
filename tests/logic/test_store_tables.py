"""Track tables beside a dict: sharing, copying of pages, redirected tracks."""

from __future__ import annotations

import numpy as np
import pytest

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.state import PoolState
from isochrone.store.tables import VolumeTable
from isochrone.store.verify import verify_state


def new_state(track_count: int = 20_000) -> PoolState:
    state = PoolState(track_count, 4096)
    state.rebuild()
    return state


def link(state: PoolState, table: VolumeTable, first: int, count: int) -> list[int]:
    fresh = state.allocator.take(count)
    state.tables.assign(table, np.arange(first, first + count), fresh)
    return [int(physical) for physical in fresh]


def entries(state: PoolState, table: VolumeTable, first: int, count: int) -> list[int]:
    return [int(physical) for physical in state.tables.lookup(table, first, count)]


def test_pages_exist_only_where_something_is_mapped() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 10_000 * 4096)
    assert state.arena.live_count == 0
    link(state, table, 5000, 1)
    assert state.arena.live_count == 1
    assert table.mapped_track_count == 1
    assert not verify_state(state)


def test_assign_across_pages_reads_back_and_frees_what_was_there() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 10_000 * 4096)
    old = link(state, table, 1000, 2000)
    new = link(state, table, 1500, 1000)
    assert entries(state, table, 1000, 2000) == old[:500] + new + old[1500:]
    assert state.allocator.pending_count == 1000
    assert table.mapped_track_count == 2000
    assert not verify_state(state)


def test_of_several_entries_for_one_track_the_last_wins_and_the_others_are_freed() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 100 * 4096)
    (before,) = link(state, table, 7, 1)
    fresh = state.allocator.take(3)
    done = state.tables.assign(table, np.array([7, 7, 8, 7]), np.array([*fresh[:2], 0, fresh[2]], np.uint32))
    assert entries(state, table, 7, 2) == [fresh[2], 0]
    assert (done.superseded, done.freed) == (2, 3)
    assert set(state.allocator.pending_tracks().tolist()) == {before, *fresh[:2].tolist()}
    assert not verify_state(state)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
def test_zero_and_data_for_one_track_in_one_call_obey_their_order(order: tuple[int, int]) -> None:
    state = new_state()
    table = state.create_volume(1, "a", 100 * 4096)
    link(state, table, 3, 1)
    physicals = np.array([int(state.allocator.take(1)[0]) if data else 0 for data in order], np.uint32)
    state.tables.assign(table, np.array([3, 3]), physicals)
    assert entries(state, table, 3, 1) == [physicals[1]]
    assert table.mapped_track_count == order[1]
    assert not verify_state(state)


def test_zeros_for_unmapped_tracks_create_no_page() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 10_000 * 4096)
    state.tables.assign(table, np.arange(3000), np.zeros(3000, np.uint32))
    assert state.arena.live_count == 0
    assert not state.arena.page(0).any()
    assert not verify_state(state)


def test_a_copy_shares_pages_until_one_of_them_is_changed() -> None:
    state = new_state()
    source = state.create_volume(1, "a", 3000 * 4096)
    old = link(state, source, 0, 3000)
    copy = state.copy_volume(1, 2, "b", VolumeKind.COPY)
    assert state.arena.live_count == 3
    new = link(state, source, 10, 1)
    assert state.arena.live_count == 4
    assert entries(state, copy, 0, 3000) == old
    assert entries(state, source, 9, 3) == [old[9], new[0], old[11]]
    assert state.allocator.pending_count == 0, "the copy still refers to the replaced track"
    assert state.allocator.counts[old[11]] == 2
    assert not verify_state(state)


def test_space_returns_when_a_copy_is_deleted() -> None:
    state = new_state()
    source = state.create_volume(1, "a", 3000 * 4096)
    link(state, source, 0, 3000)
    state.copy_volume(1, 2, "b", VolumeKind.COPY)
    link(state, source, 0, 500)
    assert state.allocator.used_count == 3500
    state.delete_volume(2)
    assert state.allocator.used_count == 3000
    assert state.arena.live_count == 3
    assert not verify_state(state)


@pytest.mark.parametrize("span", [(0, 3000), (5, 1), (1000, 48), (1024, 1024), (2047, 953), (0, 1024)])
def test_clear_unmaps_exactly_its_range_in_one_of_two_copies(span: tuple[int, int]) -> None:
    first, count = span
    state = new_state()
    source = state.create_volume(1, "a", 3000 * 4096)
    old = link(state, source, 0, 3000)
    copy = state.copy_volume(1, 2, "b", VolumeKind.COPY)
    state.tables.clear(copy, first, count)
    assert entries(state, source, 0, 3000) == old
    assert entries(state, copy, 0, 3000) == old[:first] + [0] * count + old[first + count :]
    assert copy.mapped_track_count == 3000 - count
    assert not verify_state(state)


def test_a_page_that_became_empty_is_given_back() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 3000 * 4096)
    link(state, table, 100, 2)
    state.tables.clear(table, 100, 1)
    assert state.arena.live_count == 1
    state.tables.clear(table, 101, 1)
    assert state.arena.live_count == 0
    link(state, table, 2000, 1)
    assert entries(state, table, 0, 3000).count(0) == 2999, "the page that is used again held nothing"


def test_shrink_and_grow_leave_zeros() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 3000 * 4096)
    old = link(state, table, 0, 3000)
    state.resize_volume(1, 1500 * 4096)
    state.resize_volume(1, 3000 * 4096)
    assert entries(state, table, 0, 3000) == old[:1500] + [0] * 1500
    assert not verify_state(state)


def test_the_arena_grows_and_keeps_its_pages() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 300 * 1024 * 4096)
    mapped = {page * 1024 + 5: link(state, table, page * 1024 + 5, 1)[0] for page in range(300)}
    assert {track: entries(state, table, track, 1)[0] for track in mapped} == mapped
    assert not verify_state(state)


def test_mapped_runs_alternate_and_cover_the_range() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 5000 * 4096)
    link(state, table, 1000, 100)
    link(state, table, 1100, 1)
    link(state, table, 4999, 1)
    runs = list(state.tables.mapped_runs(table, 0, 5000))
    assert runs == [(0, False), (1000, True), (1101, False), (4999, True)]
    assert list(state.tables.mapped_runs(table, 1050, 1060)) == [(1050, True)]


def test_verify_names_a_wrong_count_and_a_track_that_is_free_and_linked() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 100 * 4096)
    (physical,) = link(state, table, 0, 1)
    state.allocator.counts[physical] = 2
    assert any(f"tracks {physical} do not match" in finding for finding in verify_state(state))
    state.allocator.counts[physical] = 1
    state.allocator.give_back(np.array([physical], np.uint32))
    assert any("are free and referred to" in finding for finding in verify_state(state))


def test_a_page_of_zeros_goes_with_its_volume() -> None:
    state = new_state()
    table = state.create_volume(1, "a", 4096)
    link(state, table, 0, 1)
    state.tables.assign(table, np.array([0]), np.array([0], np.uint32))
    state.delete_volume(1)
    assert state.arena.live_count == 0
    assert not verify_state(state)
