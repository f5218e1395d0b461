"""Orders of events that once lost or refused something: found by the state machine or by thinking, kept as they are."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.store.log import HEAD, HEAD_MARK, HEAD_NAME
from isochrone.store.pool import Pool
from isochrone.store.segment import SEGMENT_NAMES
from isochrone.testing.sim_disk import Operation, SimulatedCrash
from support.store_machine import TRACK, StoreWorld, sync_while_the_log_switches

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
