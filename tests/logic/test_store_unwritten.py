"""Staging on a device that fails here and there: what it does not take is told by the track, the rest is stored (S6)."""

from __future__ import annotations

import errno
from contextlib import suppress

import numpy as np
import pytest

from isochrone.model.records import RecordKind
from isochrone.store import track_writer
from isochrone.store.pool import Pool
from isochrone.store.staging import Staged
from isochrone.store.superblock import TRACKS_NAME
from isochrone.testing.device_trouble import BadSpots
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash, crash_nth, fail_nth
from support.store import TRACK, new_pool, records, run, tags, tracks

DATA, ZERO = RecordKind.DATA, RecordKind.ZERO


def pool_on(disk: SimDisk, *, track_count: int = 64) -> Pool:
    _, pool = new_pool(disk, track_count=track_count)
    pool.create_volume("a", 32 * TRACK)
    return pool


def bad(*physicals: int, number: int = errno.EIO) -> BadSpots:
    """Physical tracks (1, 2, ...) that cannot be written."""
    spots = tuple(((one - 1) * TRACK, one * TRACK) for one in physicals)
    return BadSpots(TRACKS_NAME, spots, lambda: 0, number)


def everything(track_count: int, number: int = errno.EIO) -> BadSpots:
    return BadSpots(TRACKS_NAME, ((0, track_count * TRACK),), lambda: 0, number)


def stage_eight(pool: Pool) -> Staged:
    rows = records((10, 1, 0, 4, DATA), (20, 1, 4, 4, DATA))
    return pool.stage(1, 0, 20, rows, tracks(1, 2, 3, 4, 5, 6, 7, 8))


def test_an_error_that_comes_once_is_not_even_noticed() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    disk.hook = fail_nth(1, kind="write", name=TRACKS_NAME)
    assert stage_eight(pool) == Staged(8, 20)
    assert pool.stats().quarantined_track_count == 0


def test_what_counts_as_staged_survives_a_kill_also_when_no_record_could_be_stored() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    disk.trouble = everything(64)
    assert stage_eight(pool).through_ns == 9
    pool.log_write()
    disk.trouble = None
    disk.kill()
    assert Pool.open(disk).staged_through_ns(1, 0) == 9


@pytest.mark.parametrize("spots", [(1,), (8,), (3, 4), (1, 3, 5, 7), (2, 9, 10)])
def test_data_of_a_bad_track_goes_to_another_and_the_bad_one_is_set_aside(spots: tuple[int, ...]) -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    disk.trouble = bad(*spots)
    assert stage_eight(pool) == Staged(8, 20)
    pool.commit(1, 20)
    assert tags(pool, "a", 8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert pool.stats().quarantined_track_count == len(spots)
    pool.verify()


def test_a_track_in_quarantine_is_not_handed_out_before_the_pool_is_opened_anew() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk, track_count=16)
    disk.trouble = bad(2)
    pool.stage(1, 0, 10, records((10, 1, 0, 4, DATA)), tracks(1, 2, 3, 4))
    disk.trouble = None
    assert (pool.free_track_count, pool.used_track_count) == (11, 4)
    pool.stage(1, 0, 20, records((20, 1, 4, 11, DATA)), tracks(*range(11)))
    pool.verify()
    pool.close()
    pool = Pool.open(disk)
    assert (pool.free_track_count, pool.stats().quarantined_track_count) == (1, 0)
    pool.verify()


def test_not_the_whole_pool_is_set_aside_when_the_whole_device_fails() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    disk.trouble = everything(64)
    for _ in range(20):
        staged = stage_eight(pool)
        assert staged.unstored is not None
    assert pool.stats().quarantined_track_count == 8
    assert pool.free_track_count == 64 - 8
    disk.trouble = None
    assert stage_eight(pool) == Staged(8, 20)
    pool.verify()


def test_what_no_track_takes_is_told_and_the_promise_ends_before_it() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    pool.stage(1, 0, 5, records(), b"")
    disk.trouble = bad(*range(3, 65))
    staged = stage_eight(pool)
    assert staged.unstored is not None
    assert (staged.track_count, staged.through_ns, staged.unstored.before_ns) == (2, 9, 10)
    assert staged.unstored.entries.tolist() == [False] * 2 + [True] * 6
    assert "simulated" in staged.unstored.reason
    assert (pool.staged_count(1), pool.staged_through_ns(1, 0)) == (2, 9)
    pool.verify()


def test_a_device_without_space_is_not_a_bad_spot() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    disk.trouble = everything(64, errno.ENOSPC)
    staged = stage_eight(pool)
    assert staged.unstored is not None
    assert staged.unstored.entries.all()
    assert (pool.stats().quarantined_track_count, pool.free_track_count) == (0, 64)
    assert pool.read_only_reason is None


def test_a_dying_device_is_asked_a_limited_number_of_times() -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk, track_count=2000)
    pool.create_volume("a", 1000 * TRACK)
    disk.trouble = trouble = everything(2000)
    staged = pool.stage(1, 0, 10, records((10, 1, 0, 1000, DATA)), bytes(1000 * TRACK))
    assert staged.unstored is not None
    assert staged.unstored.entries.all()
    assert trouble.count <= track_writer.FAILED_WRITES_MAX + track_writer.PHYSICAL_TRACKS_TRIED_MAX


def test_no_entry_of_a_track_is_staged_beside_one_of_the_same_call_that_was_not() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    disk.trouble = bad(*range(1, 65))
    rows = records((10, 1, 3, 1, DATA), (20, 1, 3, 2, ZERO), (30, 1, 9, 1, ZERO))
    staged = pool.stage(1, 0, 30, rows, tracks(1))
    assert staged.unstored is not None
    assert staged.unstored.entries.tolist() == [True, True, False, False]
    assert pool.staged_count(1) == 2


def test_a_record_that_is_stored_late_takes_its_place_in_time() -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    pool.stage(1, 0, 30, records((20, 1, 0, 2, DATA), (30, 1, 2, 1, ZERO)), tracks(21, 22), before_ns=10)
    pool.stage(1, 0, 40, records((40, 1, 1, 1, DATA)), tracks(41), before_ns=10)
    assert pool.staged_through_ns(1, 0) == 9
    pool.stage(1, 0, 40, records((10, 1, 0, 3, DATA), (25, 1, 1, 1, DATA)), tracks(11, 12, 13, 99))
    assert pool.staged_through_ns(1, 0) == 40
    pool.verify()
    seen = []
    for time_ns in (10, 20, 25, 30, 40):
        pool.commit(1, time_ns)
        seen.append(tags(pool, "a", 3))
    assert seen == [[11, 12, 13], [21, 22, 13], [21, 99, 13], [21, 99, 0], [21, 41, 0]]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_records_staged_beyond_the_promise_come_back_after_a_kill_and_can_be_given_up(
    checkpoint: bool,
) -> None:
    disk = SimDisk(seed=1)
    pool = pool_on(disk)
    pool.stage(1, 0, 30, records((10, 1, 0, 1, DATA), (30, 1, 1, 1, DATA)), tracks(1, 3), before_ns=20)
    pool.stage(1, 1, 50, records((50, 1, 9, 1, DATA)), tracks(5))
    pool.log_write()
    if checkpoint:
        run(pool.checkpoint())
    disk.kill()
    pool = Pool.open(disk)
    assert (pool.staged_through_ns(1, 0), pool.staged_count(1)) == (19, 3)
    assert pool.discard_source(1, 0, 19) == 1
    assert pool.discard_source(1, 7, 19) == 0
    pool.log_write()
    disk.kill()
    pool = Pool.open(disk)
    assert (pool.staged_through_ns(1, 0), pool.staged_through_ns(1, 1), pool.staged_count(1)) == (19, 50, 2)
    pool.verify()
    pool.stage(1, 0, 30, records((20, 1, 2, 1, DATA), (30, 1, 1, 1, DATA)), tracks(2, 3))
    pool.commit(1, 50)
    assert tags(pool, "a", 3) == [1, 3, 2]


@pytest.mark.parametrize("operation", range(1, 12))
def test_a_kill_while_data_goes_elsewhere_leaves_a_sound_pool(operation: int) -> None:
    disk = SimDisk(seed=operation)
    pool = pool_on(disk)
    disk.trouble = bad(1, 2, 5)
    disk.hook = crash_nth(operation)
    with suppress(SimulatedCrash):
        stage_eight(pool)
        pool.log_write()
    disk.kill()
    pool = Pool.open(disk)
    assert pool.staged_count(1) in (0, 8)
    pool.verify()


def test_images_of_several_runs_land_where_they_belong() -> None:
    disk = SimDisk(seed=3)
    pool = pool_on(disk, track_count=40)
    volume = pool.volumes["a"]
    for track in range(0, 32, 2):  # every second track of the pool is free again after the sync
        volume.write(track * TRACK, tracks(track))
        volume.write((track + 1) * TRACK, tracks(200))
    for track in range(1, 32, 2):
        volume.zero(track * TRACK, TRACK, allocate=False)
    run(pool.sync())
    disk.trouble = bad(*np.flatnonzero(np.arange(41) % 6 == 0)[1:].tolist())
    rows = records((10, 1, 0, 12, DATA), (20, 1, 20, 3, DATA))
    staged = pool.stage(1, 0, 20, rows, tracks(*range(100, 115)))
    pool.commit(1, 20)
    if staged.unstored is None:
        assert tags(pool, "a", 12) == list(range(100, 112))
        assert tags(pool, "a", 3, first=20) == [112, 113, 114]
    pool.verify()
