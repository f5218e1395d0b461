"""Flash copies: ranges and whole volumes become what others are, also after restarts; what is refused changes nothing."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.model.errors import BusyError, NotFoundError, PoolFullError, RefusedError
from isochrone.model.records import RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store import references
from isochrone.store.check import check_pool
from isochrone.store.establish import Extent
from isochrone.store.pool import Pool
from isochrone.store.volume_set import CopyItem
from isochrone.testing.sim_disk import SimDisk
from support.store import TRACK, new_pool, records, run, tags, tracks
from support.torn_log import torn_everywhere


def two_volumes() -> tuple[SimDisk, Pool]:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    pool.create_volume("a", 8 * TRACK).write(0, tracks(1, 2, 3, 4))
    pool.create_volume("b", 6 * TRACK).write(0, tracks(5, 6, 7, 8, 9))
    return disk, pool


def test_a_whole_volume_becomes_another_with_its_size_and_gives_back_what_it_held() -> None:
    _, pool = two_volumes()
    pool.establish("a", "b")
    assert pool.volumes["b"].size_bytes == 8 * TRACK
    assert pool.volumes["b"].track_count == 8
    assert tags(pool, "b", 8) == [1, 2, 3, 4, 0, 0, 0, 0]
    assert pool.volumes["b"].mapped_track_count == 4
    assert pool.used_track_count == 4
    assert pool.pending_free_count == 5
    pool.volumes["b"].write(7 * TRACK, tracks(9))
    assert tags(pool, "a", 8) == [1, 2, 3, 4, 0, 0, 0, 0]
    pool.verify()


def test_a_snapshot_brings_back_content_and_size() -> None:
    _, pool = two_volumes()
    pool.create_copies([CopyItem("a", "a@then", VolumeKind.SNAPSHOT)])
    pool.resize_volume("a", 2 * TRACK)
    pool.volumes["a"].write(0, tracks(9))
    pool.establish("a@then", "a", documents={"restored": b"1"})
    assert tags(pool, "a", 8) == [1, 2, 3, 4, 0, 0, 0, 0]
    assert dict(pool.documents) == {"restored": b"1"}
    pool.establish("a@then", "a")
    pool.establish("a", "a")
    assert tags(pool, "a", 8) == [1, 2, 3, 4, 0, 0, 0, 0]
    pool.verify()


def test_ranges_are_copied_also_within_a_volume_where_they_overlap() -> None:
    _, pool = two_volumes()
    pool.establish("a", "b", [Extent(0, 1, 2), Extent(7, 0, 1)])
    assert tags(pool, "b", 6) == [0, 1, 2, 8, 9, 0]
    pool.establish("a", "a", [Extent(0, 1, 4), Extent(0, 5, 3)])
    assert tags(pool, "a", 8) == [1, 1, 2, 3, 4, 1, 2, 3]
    pool.verify()
    pool.volumes["a"].write(TRACK, tracks(9))
    pool.volumes["a"].zero(5 * TRACK, 3 * TRACK, allocate=False)
    assert tags(pool, "a", 8) == [1, 9, 2, 3, 4, 0, 0, 0]
    assert tags(pool, "b", 6) == [0, 1, 2, 8, 9, 0]
    pool.verify()


@pytest.mark.parametrize("crash", ["kill", "power", "checkpoint", "close"])
def test_what_was_copied_is_there_after_a_restart(crash: str) -> None:
    disk, pool = two_volumes()
    pool.establish("a", "b", [Extent(0, 1, 2), Extent(0, 3, 2)])
    pool.establish("b", "a")
    pool.volumes["b"].write(TRACK, tracks(9))
    run(pool.sync())
    if crash == "checkpoint":
        run(pool.checkpoint())
    if crash == "close":
        pool.close()
    elif crash == "power":
        disk.power_loss(Random(1))
    else:
        disk.kill()
    pool = Pool.open(disk)
    assert tags(pool, "a", 6) == [5, 1, 2, 1, 2, 0]
    assert tags(pool, "b", 6) == [5, 9, 2, 1, 2, 0]
    pool.verify()
    pool.close()
    assert check_pool(disk).is_clean


def test_what_is_refused_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool = two_volumes()
    pool.create_copies([CopyItem("a", "a@then", VolumeKind.SNAPSHOT)])
    monkeypatch.setattr("isochrone.store.establish.EXTENT_COUNT_MAX", 2)
    monkeypatch.setattr("isochrone.store.establish.ESTABLISH_ENTRY_COUNT_MAX", 3)
    for source, target, extents, documents, error in (
        ("none", "b", None, {}, NotFoundError),
        ("a", "none", None, {}, NotFoundError),
        ("a", "a@then", None, {}, RefusedError),
        ("a", "b", [], {}, RefusedError),
        ("a", "b", [Extent(0, 0, 0)], {}, RefusedError),
        ("a", "b", [Extent(-1, 0, 1)], {}, RefusedError),
        ("a", "b", [Extent(0, -1, 1)], {}, RefusedError),
        ("a", "b", [Extent(7, 0, 2)], {}, RefusedError),
        ("a", "b", [Extent(0, 5, 2)], {}, RefusedError),
        ("a", "b", [Extent(0, 0, 2), Extent(0, 1, 1)], {}, RefusedError),
        ("a", "b", [Extent(0, 0, 1), Extent(1, 1, 1), Extent(2, 2, 1)], {}, RefusedError),
        ("a", "b", [Extent(0, 0, 4)], {}, RefusedError),
        ("a", "b", None, {"none": None}, NotFoundError),
    ):
        with pytest.raises(error):
            pool.establish(source, target, extents, documents)
        assert tags(pool, "b", 6) == [5, 6, 7, 8, 9, 0]
    pool.verify()


def test_a_torn_record_of_a_flash_copy_leaves_all_or_nothing() -> None:
    seen = set()
    for is_whole, pool in torn_everywhere(
        two_volumes,
        lambda pool: pool.establish("a", "b", [Extent(0, 1, 2), Extent(2, 4, 1)], {"relation/x": b"1"}),
    ):
        if is_whole is None:
            is_whole = bool(pool.documents)
        assert tags(pool, "b", 6) == ([5, 1, 2, 8, 3, 0] if is_whole else [5, 6, 7, 8, 9, 0])
        assert dict(pool.documents) == ({"relation/x": b"1"} if is_whole else {})
        seen.add(is_whole)
    assert seen == {False, True}


def test_a_count_that_could_wrap_is_refused_and_bounds_are_made_exact_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references, "REFERENCE_COUNT_MAX", 10)
    _, pool = two_volumes()
    for _ in range(30):  # each replaces what the one before did: the bound grows, the truth does not
        pool.establish("a", "b", [Extent(0, 0, 2)])
    with pytest.raises(BusyError, match="referred to 10 times"):
        pool.establish("a", "b", spread(6))
    pool.establish("a", "b", spread(3))
    pool.copy_volume("b", "c")
    with pytest.raises(BusyError):
        pool.create_copies([CopyItem("b", "d", VolumeKind.COPY), CopyItem("b", "e", VolumeKind.COPY)])
    assert max(pool._state.allocator.references()) <= 10
    pool.verify()


def spread(count: int) -> list[Extent]:
    """One track onto many."""
    return [Extent(0, index, 1) for index in range(count)]


def test_a_track_that_stands_in_a_volume_many_times_is_freed_with_the_last() -> None:
    _, pool = two_volumes()
    pool.establish("a", "b", spread(6))
    pool.delete_volume("a")
    assert pool.used_track_count == 1
    for index in range(5):
        pool.volumes["b"].write(index * TRACK, tracks(9))
        pool.verify()
    assert tags(pool, "b", 6) == [9, 9, 9, 9, 9, 1]
    pool.volumes["b"].zero(5 * TRACK, TRACK, allocate=False)
    run(pool.sync())
    assert pool.used_track_count == 5
    pool.verify()


def test_without_room_for_table_pages_a_flash_copy_is_refused_and_nothing_is_changed() -> None:
    disk, pool = two_volumes()
    wide = pool.create_volume("wide", 60 * 1024 * TRACK)
    other = pool.create_volume("other", 60 * 1024 * TRACK)
    other.write(0, tracks(7))
    wide.write(0, tracks(1))
    run(pool.checkpoint())
    pool._slots.capacity = 10
    disk.space_bytes_max = disk.used_bytes
    with pytest.raises(PoolFullError, match="table pages"):
        pool.establish("wide", "other", [Extent(0, 1, 59 * 1024)])
    assert tags(pool, "other", 3) == [7, 0, 0]
    pool.verify()


def test_what_is_staged_for_a_target_is_committed_on_top() -> None:
    _, pool = two_volumes()
    number = pool.volumes["b"].number
    pool.stage(1, 1, 9, records((5, number, 0, 1, RecordKind.DATA)), tracks(99))
    pool.establish("a", "b")
    assert pool.stager.reserved_page_count == 1
    pool.commit(1, 9)
    assert tags(pool, "b", 4) == [99, 2, 3, 4]
    assert tags(pool, "a", 4) == [1, 2, 3, 4]
    pool.verify()
