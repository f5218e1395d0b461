"""A file system without room for a checkpoint: the old one stays in force, nothing is lost, and it is made later."""

from __future__ import annotations

import errno
from random import Random

import pytest

from isochrone.model.errors import PoolFullError, PoolReadOnlyError
from isochrone.model.records import RecordKind
from isochrone.store.check import check_pool
from isochrone.store.page_slots import PAGES_NAME
from isochrone.store.pool import Pool
from isochrone.store.root import ROOT_NEW_NAME
from isochrone.testing.sim_disk import Hook, Operation, SimDisk, fail_nth
from support.store import TRACK, records, run, tags, tracks

SESSION = 1
STEPS = 3
"""That need room, of one checkpoint in `Site`: pages written, the new root opened, and written."""


def full_at(nth: int, *, times: int = 1) -> Hook:
    """A file system that is full at the nth step of a checkpoint that needs room (1, 2, ...), and `times` - 1 more."""
    seen = 0

    def hook(operation: Operation) -> None:
        nonlocal seen
        if operation.kind in ("write", "open") and operation.name in (PAGES_NAME, ROOT_NEW_NAME):
            seen += 1
            if nth <= seen < nth + times:
                raise OSError(errno.ENOSPC, "simulated full file system")

    return hook


class Site:
    """A thin pool with a volume, staged records and a document; some of it since the last checkpoint."""

    def __init__(self) -> None:
        self.disk = SimDisk(seed=1)
        Pool.create(self.disk, size_bytes=256 * TRACK, preallocate=False)
        self.pool = Pool.open(self.disk)
        volume = self.pool.create_volume("a", 9000 * TRACK)
        for first in range(0, 9000, 1024):
            volume.write(first * TRACK, tracks(1))
        run(self.pool.checkpoint())
        for first in (0, 2048, 4096):
            volume.write((first + 1) * TRACK, tracks(2))
        self.time_ns = 0
        self.stage()
        self.pool.put_document("k", b"v")
        run(self.pool.sync())

    def stage(self) -> None:
        """Stage one more record; were it applied twice, there would be two."""
        self.time_ns += 10
        row = records((self.time_ns, 1, self.time_ns % 64, 1, RecordKind.DATA))
        self.pool.stage(SESSION, 0, self.time_ns, row, tracks(5))

    def fill_log(self) -> None:
        """Log until a checkpoint had to be made inline, with something pending that must not be applied twice."""
        generation = self.pool._log.generation
        while self.pool._log.generation == generation:
            self.stage()
            self.pool.put_document("big", bytes(50_000))
            self.pool.log_write()

    def reopen(self, *, power_loss: bool, seed: int = 0) -> None:
        """Die, be checked, and start again."""
        self.disk.hook = None
        if power_loss:
            self.disk.power_loss(Random(seed))
        else:
            self.disk.kill()
        assert check_pool(self.disk).is_clean
        self.pool = Pool.open(self.disk)

    def check(self) -> None:
        """Everything that was made durable is there, once."""
        assert [tags(self.pool, "a", 2, first) for first in (0, 1024, 2048)] == [[1, 2], [1, 0], [1, 2]]
        assert self.pool.staged_count(SESSION) == self.time_ns // 10
        assert self.pool.staged_through_ns(SESSION, 0) == self.time_ns
        assert self.pool.documents["k"] == b"v"
        self.pool.verify()

    def fail_checkpoint(self) -> None:
        with pytest.raises(PoolFullError, match="make room"):
            run(self.pool.checkpoint())
        assert self.pool.read_only_reason is None
        assert "no room" in (self.pool.stats().checkpoint_waits_because or "")


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("nth", range(1, STEPS + 1))
def test_a_crash_after_a_checkpoint_found_no_room_loses_nothing(nth: int, power_loss: bool) -> None:
    site = Site()
    site.disk.hook = full_at(nth)
    site.fail_checkpoint()
    site.check()
    site.stage()
    run(site.pool.sync())
    site.reopen(power_loss=power_loss, seed=nth)
    site.check()


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("nth", range(1, STEPS + 1))
def test_a_checkpoint_that_found_no_room_is_completed_later_with_what_came_since_in_the_log(
    nth: int, power_loss: bool
) -> None:
    site = Site()
    site.disk.hook = full_at(nth, times=2)
    site.fail_checkpoint()
    site.stage()
    run(site.pool.sync())
    site.fail_checkpoint()
    count = site.pool.stats().checkpoint_count
    run(site.pool.checkpoint())
    assert site.pool.stats().checkpoint_count == count + 1
    assert site.pool.checkpoint_waits_because is None
    site.reopen(power_loss=power_loss, seed=nth)
    site.check()
    site.pool.close()
    assert check_pool(site.disk).is_clean


def test_the_steps_of_a_checkpoint_that_need_room_are_those_counted_here() -> None:
    site = Site()
    site.disk.hook = full_at(STEPS + 1)
    run(site.pool.checkpoint())
    assert site.pool.checkpoint_waits_because is None


def test_a_checkpoint_that_waits_is_not_due_anew() -> None:
    site = Site()
    site.disk.hook = full_at(1)
    site.fail_checkpoint()
    assert not site.pool.checkpoint_due


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("completed", [False, True], ids=["waiting", "completed"])
@pytest.mark.parametrize("nth", range(1, STEPS + 1))
def test_a_full_log_whose_checkpoint_finds_no_room_goes_on_and_no_record_counts_twice(
    nth: int, completed: bool, power_loss: bool
) -> None:
    site = Site()
    site.disk.hook = full_at(nth)
    site.fill_log()
    assert site.pool.checkpoint_waits_because
    site.check()
    if completed:
        site.stage()
        site.pool.log_write()
        run(site.pool.checkpoint())
        assert site.pool.checkpoint_waits_because is None
    site.stage()
    run(site.pool.sync())
    site.reopen(power_loss=power_loss, seed=nth)
    site.check()
    site.pool.close()
    site.pool = Pool.open(site.disk)
    site.check()


@pytest.mark.parametrize("seed", range(12))
def test_a_power_loss_before_any_sync_finds_all_that_the_late_root_counts_on(seed: int) -> None:
    site = Site()
    site.disk.hook = full_at(1)
    site.fill_log()
    run(site.pool.checkpoint())  # its root begins behind records of its own segment
    site.reopen(power_loss=True, seed=seed)
    site.check()


def test_a_second_full_log_ends_writing_and_says_why_and_the_next_open_has_everything_written() -> None:
    site = Site()
    site.disk.hook = full_at(1, times=1 << 30)
    site.fill_log()
    with pytest.raises(PoolReadOnlyError, match="no room"):
        site.fill_log()
    assert "making room in the full log failed" in (site.pool.read_only_reason or "")
    site.reopen(power_loss=False)
    assert site.pool.staged_count(SESSION) in (site.time_ns // 10 - 1, site.time_ns // 10)
    site.pool.verify()


@pytest.mark.parametrize("name", [PAGES_NAME, ROOT_NEW_NAME])
def test_a_failed_datasync_of_a_checkpoint_stays_fatal_even_if_it_says_that_there_is_no_room(
    name: str,
) -> None:
    site = Site()
    site.disk.hook = fail_nth(1, errno.ENOSPC, kind="datasync", name=name)
    with pytest.raises(OSError, match="simulated"):
        run(site.pool.checkpoint())
    assert site.pool.read_only_reason


@pytest.mark.parametrize(("kind", "number"), [("write", errno.EIO), ("rename", errno.ENOSPC)])
def test_what_leaves_open_what_is_stored_stays_fatal(kind: str, number: int) -> None:
    site = Site()
    site.disk.hook = fail_nth(1, number, kind=kind, name=ROOT_NEW_NAME)
    with pytest.raises(OSError, match="simulated"):
        run(site.pool.checkpoint())
    assert site.pool.read_only_reason


def test_a_pool_without_room_for_its_last_checkpoint_is_closed_and_loses_nothing() -> None:
    site = Site()
    site.disk.hook = full_at(1, times=1 << 30)
    site.pool.close()
    site.disk.hook = None
    assert check_pool(site.disk).is_clean
    site.pool = Pool.open(site.disk)
    assert not site.pool.reopened_after_loss
    site.check()


def test_the_log_of_a_thin_pool_never_asks_for_room() -> None:
    site = Site()
    site.disk.space_bytes_max = site.disk.used_bytes
    for _ in range(10):
        site.pool.put_document("big", bytes(20_000))
        site.pool.log_write()
    run(site.pool.sync())
    site.fail_checkpoint()
    site.disk.space_bytes_max = None
    run(site.pool.checkpoint())
    site.reopen(power_loss=True)
    site.check()
