"""Orders of events that once lost or refused something: found by the state machine or by thinking, kept as they are."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from isochrone.store.check import check_pool
from isochrone.store.establish import Extent
from isochrone.store.head import HEAD, HEAD_MARK, HEAD_NAME
from isochrone.store.pool import Pool
from isochrone.store.root import ROOT_NEW_NAME
from isochrone.store.segment import SEGMENT_NAMES
from isochrone.testing.sim_disk import Operation, SimDisk, SimulatedCrash, crash_nth, fail_nth
from support.store import new_pool, run, tags, tracks
from support.store_walks import (
    die_while_opening_after_a_power_loss,
    give_a_track_up_again_during_a_sync,
    lose_a_write_to_a_failed_datasync,
    overwrite_after_a_copy_is_deleted,
    sync_while_the_log_switches,
)
from support.store_world import TRACK, StoreWorld

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_records_written_while_a_sync_waits_for_its_thread_are_not_taken_for_durable(seed: int) -> None:
    sync_while_the_log_switches(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_while_opening_after_a_power_loss_leaves_a_pool_that_opens(seed: int) -> None:
    """The head in shared memory reached the disk, the records that it counts did not."""
    world = StoreWorld(seed)
    world.create_volume("a", 30 * TRACK)
    world.whole_sync()
    disk = world.disk
    disk.power_loss(Random(seed))
    head = disk.open(HEAD_NAME)
    ahead = HEAD.unpack(head.pread(HEAD.size, 0))[0] + 100
    head.pwrite(HEAD.pack(ahead, ahead ^ HEAD_MARK), 0)
    disk.hook = crash_at_segment_write
    with pytest.raises(SimulatedCrash):
        Pool.open(disk)
    disk.kill()
    Pool.open(disk)


def crash_at_segment_write(operation: Operation) -> None:
    if operation.kind == "write" and operation.name in SEGMENT_NAMES:
        raise SimulatedCrash


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "order",
    [
        overwrite_after_a_copy_is_deleted,
        give_a_track_up_again_during_a_sync,
        lose_a_write_to_a_failed_datasync,
        die_while_opening_after_a_power_loss,
    ],
    ids=lambda order: order.__name__,
)
def test_a_kept_order_shows_nothing_that_its_model_forbids(order: Callable[[int], None], seed: int) -> None:
    order(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_power_loss_while_opening_finds_the_pages_of_the_root_that_it_brings_back(seed: int) -> None:
    """A kill came between the renaming of the newer root and the sync of its name: slots of both are in use."""
    disk = SimDisk(seed=seed)
    pool = new_pool(disk)[1]
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1))
    run(pool.checkpoint())
    volume.write(TRACK, tracks(2))
    steps = pool.checkpoint()
    next(steps)()
    volume.write(2 * TRACK, tracks(3))
    pool.log_write()
    disk.hook = crash_nth(1, kind="sync")
    with pytest.raises(SimulatedCrash):
        run(steps)
    disk.kill()
    disk.hook = crash_nth(1, kind="write", name=ROOT_NEW_NAME)
    with pytest.raises(SimulatedCrash):
        Pool.open(disk)
    disk.power_loss(Random(seed))
    assert tags(Pool.open(disk), "a", 1) == [1]


def test_a_full_pool_overwrites_what_a_copy_gave_up_after_a_sync_of_its_own() -> None:
    pool = new_pool(track_count=3)[1]
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2))
    copy = pool.copy_volume("a", "b")
    volume.write(0, tracks(3))
    assert pool.free_track_count == 0
    copy.write(0, tracks(4))
    assert (tags(pool, "a", 2), tags(pool, "b", 2)) == ([3, 2], [4, 2])
    pool.delete_volume("b")
    volume.write(0, tracks(5, 6))
    volume.zero(0, 2 * TRACK, allocate=True)
    assert tags(pool, "a", 2) == [0, 0]
    pool.verify()


@pytest.mark.parametrize("kind", ["datasync", "sync"])
def test_every_failure_to_make_something_durable_is_told_at_the_next_open(kind: str) -> None:
    """Whatever it was that failed: tracks, log, pages, the root or its name, also in opening and in closing."""
    for nth in range(1, 12):
        disk = SimDisk(seed=nth)
        pool = new_pool(disk)[1]
        pool.create_volume("a", 16 * TRACK).write(0, tracks(1))
        disk.hook = fail_nth(nth, kind=kind)
        try:
            run(pool.sync())
            run(pool.checkpoint())
            pool.close()
            Pool.open(disk)
        except OSError:
            disk.kill()
            pool = Pool.open(disk)
            assert pool.reopened_after_loss
            assert "failed to make writes durable" in str(pool.opening_note)
            pool.settle_loss()
            disk.kill()
            assert not Pool.open(disk).reopened_after_loss


def test_a_track_given_up_by_a_copy_is_not_overwritten_before_that_is_durable() -> None:
    """Power loss brings the copy's table back: it must not show what the other volume wrote afterwards."""
    for seed in SEEDS:
        world = StoreWorld(seed)
        world.create_volume("a", 4 * TRACK)
        world.write(1, 0, TRACK)
        world.copy_volume(1, "b")
        world.whole_sync()
        before = world.pool.volumes["b"].read(0, TRACK)
        world.zero(2, 0, TRACK, allocate=False)
        world.write(1, 0, TRACK)
        world.log_write()
        world.disk.power_loss(Random(seed))
        assert Pool.open(world.disk).volumes["b"].read(0, TRACK) in (before, bytes(TRACK))


def test_a_restart_after_a_failed_datasync_does_not_call_lost_writes_durable() -> None:
    """Their pages read as written, but are clean: the next sync, in the next process, does not store them."""
    for seed in SEEDS:
        world = StoreWorld(seed)
        world.create_volume("a", 4 * TRACK)
        world.whole_sync()
        world.write(1, 0, TRACK)
        world.log_write()
        world.disk.hook = fail_nth(1, kind="datasync")
        with pytest.raises(OSError, match="simulated"):
            run(world.pool.sync())
        world.disk.kill()
        pool = Pool.open(world.disk)
        shown = pool.volumes["a"].read(0, TRACK)
        run(pool.sync())
        world.disk.power_loss(Random(seed))
        assert Pool.open(world.disk).volumes["a"].read(0, TRACK) == shown


def test_a_log_of_many_copies_of_a_volume_onto_itself_replays_to_a_pool_that_agrees_with_itself() -> None:
    """Each may double how often a track stands in the volume; the pool counts anew when that becomes too much."""
    disk = SimDisk(seed=1)
    pool = new_pool(disk)[1]
    pool.create_volume("a", 4 * TRACK).write(0, tracks(1, 2))
    for _ in range(40):
        pool.establish("a", "a", [Extent(0, 2, 2)])
    disk.kill()
    assert not check_pool(disk)
    reopened = Pool.open(disk)
    reopened.verify()
    assert tags(reopened, "a", 4) == [1, 2, 1, 2]
