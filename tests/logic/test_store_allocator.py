from __future__ import annotations

import numpy as np
import pytest

from isochrone.model.errors import InternalError
from isochrone.store.allocator import Allocator, TrackNumbers


def fresh(track_count: int) -> Allocator:
    allocator = Allocator(track_count)
    allocator.rebuild()
    return allocator


def test_tracks_come_in_a_row_while_free_space_is_in_a_row() -> None:
    allocator = fresh(100)
    assert allocator.take(10).tolist() == list(range(1, 11))
    assert allocator.take(5).tolist() == list(range(11, 16))
    assert allocator.free_count == 85


def test_the_window_gives_single_tracks_in_ascending_order_and_counts_as_free() -> None:
    allocator = fresh(2000)
    assert allocator.refill()
    assert [allocator.window.pop() for _ in range(3)] == [1, 2, 3]
    assert allocator.free_count == 1997


def test_a_sweep_goes_on_where_the_last_one_ended_and_wraps() -> None:
    allocator = fresh(10)
    taken = allocator.take(8)
    allocator.drop(taken[:4])
    allocator.release(allocator.take_pending())
    assert allocator.take(4).tolist() == [9, 10, 1, 2]


def test_the_last_track_can_be_taken_from_the_window() -> None:
    allocator = fresh(10)
    allocator.refill()
    assert sorted(allocator.take(10).tolist()) == list(range(1, 11))
    assert allocator.free_count == 0
    assert not allocator.refill()
    with pytest.raises(InternalError):
        allocator.take(1)


def test_a_dropped_track_is_not_given_out_before_it_is_released() -> None:
    allocator = fresh(4)
    taken = allocator.take(4)
    assert allocator.drop(taken[:2]) == 2
    assert (allocator.free_count, allocator.pending_count, allocator.used_count) == (0, 2, 2)
    batch = allocator.take_pending()
    assert allocator.pending_count == 2
    allocator.release(batch)
    assert (allocator.free_count, allocator.pending_count) == (2, 0)
    assert sorted(allocator.take(2).tolist()) == [1, 2]


def test_a_batch_that_was_put_back_is_released_with_the_next_one() -> None:
    allocator = fresh(4)
    taken = allocator.take(4)
    allocator.drop(taken[:1])
    batch = allocator.take_pending()
    allocator.drop(taken[1:2])
    allocator.put_back(batch)
    allocator.release(allocator.take_pending())
    assert allocator.free_count == 2


def test_a_shared_track_is_freed_by_the_last_reference_only() -> None:
    allocator = fresh(4)
    taken = allocator.take(2)
    allocator.share(taken)
    assert allocator.drop(taken) == 0
    assert allocator.drop(taken[:1]) == 1
    assert allocator.used_count == 1


def test_tracks_given_back_are_free_at_once() -> None:
    allocator = fresh(4)
    allocator.give_back(allocator.take(3))
    assert (allocator.free_count, allocator.pending_count) == (4, 0)
    assert not allocator.counts.any()


@pytest.mark.parametrize("seed", range(5))
def test_scattered_free_tracks_are_all_found_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    allocator = fresh(5000)
    taken = allocator.take(5000)
    freed = np.sort(rng.choice(taken, 700, replace=False))
    allocator.drop(freed)
    allocator.release(allocator.take_pending())
    parts = [allocator.take(int(count)) for count in (1, 64, 35, 600)]
    assert np.array_equal(np.sort(np.concatenate(parts)), freed)


def held_pair() -> tuple[Allocator, TrackNumbers]:
    """Two tracks that were shared; one reference to each was given up, one by one and in an array."""
    allocator = fresh(8)
    taken = allocator.take(2)
    allocator.share(taken)
    allocator.drop(taken[:1])
    allocator.drop_one(int(taken[1]))
    return allocator, taken


def test_a_track_that_ceased_to_be_shared_is_held_until_a_sync_releases_it() -> None:
    allocator, taken = held_pair()
    assert allocator.is_holding
    assert allocator.held_tracks().tolist() == taken.tolist()
    assert (allocator.counts[taken] != 1).all()
    assert (allocator.references()[taken] == 1).all()
    allocator.release(allocator.take_pending())
    assert allocator.counts[taken].tolist() == [1, 1]
    assert not allocator.is_holding


def test_a_track_held_again_after_a_sync_began_stays_held() -> None:
    allocator, taken = held_pair()
    batch = allocator.take_pending()
    allocator.share(taken)
    allocator.drop_one(int(taken[0]))
    allocator.drop(taken[1:])
    allocator.release(batch)
    assert allocator.held_tracks().tolist() == taken.tolist()
    assert (allocator.counts[taken] != 1).all()
    allocator.release(allocator.take_pending())
    assert allocator.counts[taken].tolist() == [1, 1]


def test_a_held_track_that_is_dropped_becomes_pending_and_then_free() -> None:
    allocator, taken = held_pair()
    batch = allocator.take_pending()
    assert allocator.drop(taken[:1]) == 1
    allocator.drop_one(int(taken[1]))
    assert (allocator.pending_count, allocator.used_count) == (2, 0)
    allocator.release(batch)
    assert not allocator.counts.any()
    allocator.release(allocator.take_pending())
    assert allocator.free_count == 8


def test_what_a_failed_sync_did_not_make_durable_stays_held() -> None:
    allocator, taken = held_pair()
    allocator.put_back(allocator.take_pending())
    assert (allocator.counts[taken] != 1).all()
    allocator.release(allocator.take_pending())
    assert allocator.counts[taken].tolist() == [1, 1]
