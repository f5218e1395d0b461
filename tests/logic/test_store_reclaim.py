"""What is given up in bulk: at once gone from every table, free bit by bit, and whenever it is needed."""

from __future__ import annotations

import pytest

from isochrone.model.volume_kind import VolumeKind
from isochrone.store import doomed_pages, references
from isochrone.store.check import check_pool
from isochrone.store.pool import Pool
from isochrone.store.volume_set import CopyItem
from isochrone.testing.sim_disk import SimDisk
from support.store import TRACK, new_pool, run, tags, tracks

PAGE_COUNT = 6


@pytest.fixture(autouse=True)
def _a_step_is_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doomed_pages, "RECLAIM_PAGE_COUNT_MAX", 1)


def pool_with_volume() -> tuple[SimDisk, Pool]:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk, track_count=20)
    volume = pool.create_volume("a", PAGE_COUNT * 1024 * TRACK)
    for page in range(PAGE_COUNT):
        volume.write(page * 1024 * TRACK, tracks(page + 1, page + 1))
    return disk, pool


def test_what_is_given_up_is_reclaimed_in_steps_and_free_after_a_sync() -> None:
    _, pool = pool_with_volume()
    pool.delete_volumes(["a"])
    assert (pool.used_track_count, pool.reclaiming_page_count) == (12, PAGE_COUNT)
    counts = []
    while pool.reclaim():
        counts.append((pool.used_track_count, pool.reclaiming_page_count))
        pool.verify()
    assert counts == [(10, 5), (8, 4), (6, 3), (4, 2), (2, 1), (0, 0)]
    run(pool.sync())
    assert pool.free_track_count == 20
    pool.verify()


def test_a_write_that_needs_the_room_gets_it_at_once() -> None:
    _, pool = pool_with_volume()
    pool.delete_volumes(["a"])
    volume = pool.create_volume("b", 20 * TRACK)
    for track in range(20):
        volume.write(track * TRACK, tracks(track))
    assert tags(pool, "b", 20) == list(range(20))
    pool.verify()


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_crash_before_it_was_reclaimed_leaves_it_free(is_checkpointed: bool) -> None:
    disk, pool = pool_with_volume()
    run(pool.checkpoint())
    pool.delete_volumes(["a"])
    pool.reclaim()
    if is_checkpointed:
        run(pool.checkpoint())
    disk.kill()
    pool = Pool.open(disk)
    assert pool.free_track_count == 20
    pool.verify()
    pool.close()
    assert check_pool(disk).is_clean


def test_a_page_is_not_used_again_before_its_tracks_were_dropped() -> None:
    _, pool = pool_with_volume()
    pool.delete_volumes(["a"])
    volume = pool.create_volume("b", PAGE_COUNT * 1024 * TRACK)
    for page in range(3):
        volume.write(page * 1024 * TRACK, tracks(9))
    pool.verify()
    while pool.reclaim():
        pool.verify()
    assert pool.used_track_count == 3


def test_what_a_given_up_copy_shared_is_not_overwritten_before_it_is_reclaimed() -> None:
    _, pool = pool_with_volume()
    pool.create_copies([CopyItem("a", "a@x", VolumeKind.SNAPSHOT)])
    for page in range(PAGE_COUNT):
        pool.volumes["a"].write(page * 1024 * TRACK, tracks(9))
    pool.delete_volumes(["a@x"])
    assert pool.reclaiming_page_count == PAGE_COUNT
    assert not next_space(pool)
    assert pool.space("a").exclusive_bytes == 12 * TRACK
    assert pool.reclaiming_page_count == 0
    assert next_space(pool)
    assert pool.used_track_count == 12
    pool.verify()


def next_space(pool: Pool) -> bool:
    """Whether space in steps is exact now."""
    steps = pool.space_steps("a")
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            is_exact: bool = stop.value.is_exact
            return is_exact


def test_references_that_are_still_to_be_reclaimed_count_against_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references, "REFERENCE_COUNT_MAX", 6)
    _, pool = pool_with_volume()
    for index in range(20):
        pool.create_copies([CopyItem("a", f"a@{index}", VolumeKind.SNAPSHOT)])
        for page in range(PAGE_COUNT):
            pool.volumes["a"].write(page * 1024 * TRACK, tracks(index))
        pool.delete_volumes([f"a@{index}"])
        assert max(pool._state.allocator.references()) <= 6
    assert pool.reclaiming_page_count > 0
    pool.verify()
