"""Orders of events that once lost or refused something: found by the state machine or by thinking, kept as they are."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.store.log import HEAD, HEAD_MARK, HEAD_NAME
from isochrone.store.pool import Pool
from isochrone.store.segment import SEGMENT_NAMES
from isochrone.testing.sim_disk import Operation, SimulatedCrash, fail_nth
from support.store_world import TRACK, StoreWorld, sync_while_the_log_switches

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


@pytest.mark.xfail(
    strict=True, reason="a track that a copy gave up is overwritten in place before that is durable"
)
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


@pytest.mark.xfail(strict=True, reason="a restart on the same boot forgets that a datasync failed")
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
            run_sync(world.pool)
        world.disk.kill()
        pool = Pool.open(world.disk)
        shown = pool.volumes["a"].read(0, TRACK)
        run_sync(pool)
        world.disk.power_loss(Random(seed))
        assert Pool.open(world.disk).volumes["a"].read(0, TRACK) == shown


def run_sync(pool: Pool) -> None:
    """Drive one sync as the controller does: what a call raises is thrown in."""
    steps = pool.sync()
    for call in steps:
        try:
            call()
        except OSError as error:
            steps.throw(error)
