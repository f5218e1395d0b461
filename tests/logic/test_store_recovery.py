"""What is left after a process or a machine died: at rest, in a sync, at every step of a checkpoint and of opening."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest

from isochrone.model.errors import DamagedError, RefusedError
from isochrone.model.records import RecordKind
from isochrone.store.check import check_pool
from isochrone.store.head import CLAIM, CLAIM_OFFSET, HEAD_NAME
from isochrone.store.pool import Pool
from isochrone.store.recovery import load_root, load_superblock
from isochrone.store.segment import SEGMENT_HEADER_SIZE_BYTES, segment_name
from isochrone.store.superblock import SUPERBLOCK_NAME, Superblock, encode_superblock
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash, crash_nth
from support.store import TRACK, new_pool, records, run, tags, tracks

DATA, ZERO = RecordKind.DATA, RecordKind.ZERO


def sim_pool(track_count: int = 64) -> tuple[SimDisk, Pool]:
    disk = SimDisk(seed=1)
    return disk, new_pool(disk, track_count=track_count)[1]


def reopened(disk: SimDisk, *, power_loss: bool = False, seed: int = 0) -> Pool:
    if power_loss:
        disk.power_loss(Random(seed))
    else:
        disk.kill()
    pool = Pool.open(disk)
    pool.verify()
    assert pool.reopened_after_loss == power_loss
    pool.settle_loss()
    return pool


def flip(disk: SimDisk, name: str, offset: int) -> None:
    file = disk.open(name)
    file.pwrite(bytes([file.pread(1, offset)[0] ^ 0x40]), offset)


def test_a_logged_write_survives_the_death_of_the_process() -> None:
    disk, pool = sim_pool()
    pool.create_volume("a", 16 * TRACK).write(0, tracks(1, 2))
    pool.log_write()
    pool.volumes["a"].write(2 * TRACK, tracks(3))
    pool = reopened(disk)
    assert tags(pool, "a", 3) == [1, 2, 0]
    assert pool.used_track_count == 2


@pytest.mark.parametrize("seed", range(8))
def test_a_synced_write_survives_power_loss_and_an_unsynced_one_leaves_no_trace(seed: int) -> None:
    disk, pool = sim_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2))
    run(pool.sync())
    volume.write(2 * TRACK, tracks(3))
    volume.zero(0, TRACK, allocate=False)
    pool.log_write()
    pool = reopened(disk, power_loss=True, seed=seed)
    assert tags(pool, "a", 3) == [1, 2, 0]


def test_everything_survives_a_clean_stop_and_a_restart_of_the_machine() -> None:
    disk, pool = sim_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2))
    pool.copy_volume("a", "b").write(0, tracks(9))
    pool.put_document("k", b"v")
    pool.stage(7, 1, 30, records((10, 1, 0, 1, DATA), (20, 1, 1, 2, ZERO)), tracks(5))
    pool.commit(7, 10)
    pool.close()
    disk.power_loss(Random(1))
    pool = Pool.open(disk)
    assert not pool.reopened_after_loss
    assert pool.replayed_count == 0
    assert (tags(pool, "a", 2), tags(pool, "b", 2)) == ([5, 2], [9, 2])
    assert dict(pool.documents) == {"k": b"v"}
    assert (pool.staged_count(7), pool.staged_through_ns(7, 1), pool.committed_through_ns(7)) == (2, 30, 10)
    pool.verify()


def test_every_kind_of_record_is_replayed() -> None:
    disk, pool = sim_pool()
    volume = pool.create_volume("a", 3000 * TRACK)
    pool.create_volume("gone", TRACK)
    pool.delete_volume("gone")
    volume.write(1022 * TRACK, tracks(1, 2, 3, 4))
    volume.write(0, tracks(5))
    pool.copy_volume("a", "b")
    volume.zero(1000 * TRACK, 1023 * TRACK, allocate=False)
    volume.zero(0, 1500 * TRACK, allocate=False)
    pool.resize_volume("b", 1025 * TRACK)
    pool.put_document("k", b"1")
    pool.put_document("gone", b"2")
    pool.delete_document("gone")
    pool.stage(1, 0, 9, records((5, 1, 7, 2, DATA), (6, 1, 8, 1, ZERO), (9, 1, 9, 1, DATA)), tracks(6, 7, 8))
    pool.commit(1, 6)
    pool.stage(2, 0, 9, records((5, 1, 70, 1, DATA), (9, 1, 71, 1, DATA)), tracks(1, 2))
    pool.discard(2, 7)
    pool.stage(3, 0, 9, records((5, 1, 70, 1, DATA)), tracks(1))
    pool.end_session(3)
    pool.log_write()
    before = pool.stats()
    pool = reopened(disk)
    after = pool.stats()
    assert sorted(pool.volumes) == ["a", "b"]
    assert tags(pool, "a", 12) == [0] * 7 + [6, 0, 0, 0, 0]
    assert tags(pool, "b", 4, 1021) == [0, 1, 2, 3]
    assert dict(pool.documents) == {"k": b"1"}
    assert [pool.staged_count(session) for session in (1, 2, 3)] == [1, 1, 0]
    assert [pool.staged_through_ns(session, 0) for session in (1, 2, 3)] == [9, 7, 0]
    assert after.used_track_count == before.used_track_count
    assert after.free_track_count == before.free_track_count + before.pending_free_count
    assert after.mapped_track_count == before.mapped_track_count


def test_a_freed_track_is_not_reused_before_power_loss_could_bring_it_back() -> None:
    disk, pool = sim_pool(track_count=3)
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2))
    run(pool.sync())
    volume.zero(0, TRACK, allocate=False)
    volume.write(5 * TRACK, tracks(3))
    pool.log_write()
    pool = reopened(disk, power_loss=True)
    assert tags(pool, "a", 6) == [1, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("nth", range(1, 22))
def test_death_at_every_step_of_a_checkpoint_loses_nothing(nth: int, power_loss: bool) -> None:
    disk, pool = sim_pool()
    volume = pool.create_volume("a", 3000 * TRACK)
    volume.write(0, tracks(1))
    run(pool.checkpoint())
    volume.write(1500 * TRACK, tracks(2))
    pool.put_document("k", b"v")
    run(pool.sync())
    disk.hook = crash_nth(nth)
    try:
        run(pool.checkpoint())
        volume.write(2500 * TRACK, tracks(3))
        run(pool.sync())
        died = False
    except SimulatedCrash:
        died = True
    disk.hook = None
    pool = reopened(disk, power_loss=power_loss, seed=nth)
    assert [tags(pool, "a", 1, first)[0] for first in (0, 1500)] == [1, 2]
    assert dict(pool.documents) == {"k": b"v"}
    assert died or tags(pool, "a", 1, 2500) == [3]
    pool.volumes["a"].write(0, tracks(4))
    pool.close()
    assert check_pool(disk).is_clean


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("nth", range(1, 40, 2))
def test_death_at_every_step_of_opening_loses_nothing(nth: int, power_loss: bool) -> None:
    disk, pool = sim_pool()
    pool.create_volume("a", 3000 * TRACK).write(0, tracks(1))
    run(pool.checkpoint())
    pool.volumes["a"].write(1500 * TRACK, tracks(2))
    run(pool.sync())
    disk.kill()
    disk.hook = crash_nth(nth)
    with suppress(SimulatedCrash):
        Pool.open(disk)
    disk.hook = None
    if power_loss:
        disk.power_loss(Random(nth))
    else:
        disk.kill()
    pool = Pool.open(disk)
    assert [tags(pool, "a", 1, first)[0] for first in (0, 1500)] == [1, 2]
    pool.verify()


def test_writes_during_a_checkpoint_are_in_the_log_behind_it() -> None:
    disk, pool = sim_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1))
    steps = pool.checkpoint()
    call = next(steps)
    volume.write(TRACK, tracks(2))
    pool.log_write()
    call()
    for later in steps:
        volume.write(TRACK, tracks(3))
        later()
    pool = reopened(disk)
    assert pool.replayed_count == 1
    assert tags(pool, "a", 2) == [1, 3]


def test_a_generation_whose_header_was_lost_is_never_used_again() -> None:
    """A checkpoint begun before a power loss: records of its segment may survive without the segment's header."""
    for seed in range(12):
        disk, pool = sim_pool()
        pool.create_volume("a", 16 * TRACK)
        run(pool.sync())
        steps = pool.checkpoint()
        next(steps)
        for index in range(3):
            pool.put_document(f"k{index}", bytes(500))
            pool.log_write()
        pool = reopened(disk, power_loss=True, seed=seed)
        assert not pool.documents
        assert not reopened(disk).documents


def test_a_full_log_is_emptied_by_a_checkpoint_inline() -> None:
    disk, pool = sim_pool()
    for index in range(40):
        pool.put_document(f"k{index % 3}", bytes([index]) * 100_000)
        pool.log_write()
    assert pool.stats().checkpoint_count >= 3
    assert pool.stats().log_used_bytes <= pool.stats().log_segment_size_bytes
    pool = reopened(disk)
    assert {key: value[0] for key, value in pool.documents.items()} == {"k0": 39, "k1": 37, "k2": 38}


def test_a_record_bigger_than_the_log_goes_into_the_checkpoint() -> None:
    disk, pool = sim_pool()
    pool.put_document("a", b"1")
    pool.put_document("big", bytes(1 << 20))
    pool.put_document("b", b"2")
    pool.log_write()
    pool = reopened(disk)
    assert {key: len(value) for key, value in pool.documents.items()} == {"a": 1, "big": 1 << 20, "b": 1}


def test_a_log_that_fills_up_during_a_checkpoint_completes_it_first() -> None:
    disk, pool = sim_pool()
    steps = pool.checkpoint()
    call = next(steps)
    for index in range(30):
        pool.put_document("k", bytes([index]) * 100_000)
        pool.log_write()
    assert pool.stats().checkpoint_count >= 2
    call()
    for later in steps:
        later()
    pool = reopened(disk)
    assert pool.documents["k"][0] == 29


def test_an_abandoned_checkpoint_is_completed_by_the_next() -> None:
    disk, pool = sim_pool()
    pool.create_volume("a", 16 * TRACK).write(0, tracks(1))
    steps = pool.checkpoint()
    next(steps)()
    steps.close()
    run(pool.checkpoint())
    run(pool.checkpoint())
    pool = reopened(disk)
    assert pool.replayed_count == 0
    assert tags(pool, "a", 1) == [1]


def test_a_checkpoint_writes_only_pages_that_changed() -> None:
    disk, pool = sim_pool(track_count=200)
    volume = pool.create_volume("a", 100 * 1024 * TRACK)
    for page in range(100):
        volume.write(page * 1024 * TRACK, tracks(1))
    run(pool.checkpoint())
    volume.write(5 * TRACK, tracks(2))
    written: list[int] = []
    disk.hook = lambda operation: written.append(operation.length) if operation.name == "pages" else None
    run(pool.checkpoint())
    assert sum(written) == 4096


def test_a_checkpoint_becomes_due_when_the_log_is_half_full_and_not_while_one_runs() -> None:
    _, pool = sim_pool()
    due = [pool.checkpoint_due]
    pool.put_document("k", bytes(600_000))
    pool.log_write()
    due.append(pool.checkpoint_due)
    for call in pool.checkpoint():
        due.append(pool.checkpoint_due)
        call()
    assert due == [False, True, False, False, False, False]
    assert not pool.checkpoint_due


def test_a_checkpoint_becomes_due_when_the_log_would_be_slow_to_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isochrone.store.log.REPLAY_WEIGHT_MAX", 40)
    _, pool = sim_pool()
    pool.put_document("k", b"1")
    pool.put_document("k", b"2")
    pool.log_write()
    due = [pool.checkpoint_due]
    pool.put_document("k", b"3")
    pool.log_write()
    assert [*due, pool.checkpoint_due] == [False, True]


def test_page_slots_do_not_leak_over_many_checkpoints() -> None:
    disk, pool = sim_pool(track_count=200)
    volume = pool.create_volume("a", 20 * 1024 * TRACK)
    for turn in range(60):
        for page in range(20):
            volume.write((page * 1024 + turn % 7) * TRACK, tracks(turn))
        if turn % 3 == 0:
            volume.zero(0, volume.size_bytes // 2, allocate=False)
        run(pool.sync())
        run(pool.checkpoint())
    assert disk.open("pages").size_bytes() == 1 << 20
    pool = reopened(disk)
    assert tags(pool, "a", 1, 19 * 1024 + 59 % 7) == [59]


# Damage


def damaged_log(where: Callable[[int], int], *, power_loss: bool = False) -> SimDisk:
    """A pool with three logged and synced documents; one byte of its log changed at `where(end of the log)`."""
    disk, pool = sim_pool()
    for key in "abc":
        pool.put_document(key, b"v")
        run(pool.sync())
    end = pool.stats().log_used_bytes
    if power_loss:
        disk.power_loss(Random(3))
    else:
        disk.kill()
    superblock = load_superblock(disk)
    flip(disk, segment_name(load_root(disk, superblock).generation), where(end))
    return disk


@pytest.mark.parametrize("where", [0, 8, 32, 40, -8, -40, -1])
def test_damage_anywhere_in_the_log_is_found_after_the_death_of_the_process(where: int) -> None:
    disk = damaged_log(lambda end: where + (SEGMENT_HEADER_SIZE_BYTES if where >= 0 else end))
    assert check_pool(disk).problems[0].file.startswith("log.")
    with pytest.raises(DamagedError, match=r"log\.[ab], byte \d+: record \d+ is broken"):
        Pool.open(disk)


def test_damage_to_what_a_later_sync_claims_durable_is_found_after_power_loss() -> None:
    disk = damaged_log(lambda _: SEGMENT_HEADER_SIZE_BYTES + 36, power_loss=True)
    with pytest.raises(DamagedError, match="had been made durable"):
        Pool.open(disk)


def test_damage_to_the_last_sync_is_found_once_the_head_has_reached_the_disk() -> None:
    disk, pool = sim_pool()
    pool.put_document("k", b"v")
    run(pool.sync())
    disk.open(HEAD_NAME).datasync()
    disk.power_loss(Random(3))
    flip(
        disk, segment_name(load_root(disk, load_superblock(disk)).generation), SEGMENT_HEADER_SIZE_BYTES + 36
    )
    with pytest.raises(DamagedError, match="had been made durable"):
        Pool.open(disk)


def test_a_tail_that_may_be_torn_or_damaged_is_noted() -> None:
    disk, pool = sim_pool()
    pool.put_document("k", b"v")
    run(pool.sync())
    disk.power_loss(Random(3))
    disk.open(HEAD_NAME).pwrite(bytes(CLAIM.size), CLAIM_OFFSET)  # it did not reach the disk
    flip(
        disk, segment_name(load_root(disk, load_superblock(disk)).generation), SEGMENT_HEADER_SIZE_BYTES + 36
    )
    report = check_pool(disk)
    assert report.is_clean
    assert "cut off, or damage" in report.notes[-1]


def test_a_torn_tail_is_left_out_after_power_loss() -> None:
    disk, pool = sim_pool()
    pool.put_document("kept", b"v")
    run(pool.sync())
    at = pool.stats().log_used_bytes
    pool.put_document("torn", bytes(3000))
    pool.log_write()
    disk.power_loss(Random(5))
    name = segment_name(load_root(disk, load_superblock(disk)).generation)
    flip(disk, name, at + 700)
    assert set(Pool.open(disk).documents) == {"kept"}


@pytest.mark.parametrize("name", ["superblock", "root", "pages", "log.a", "log.b", HEAD_NAME])
def test_a_missing_or_short_file_is_named(name: str) -> None:
    disk, pool = sim_pool()
    pool.create_volume("a", 16 * TRACK).write(0, tracks(1))
    run(pool.checkpoint())
    disk.kill()
    disk.open(name).truncate(7)
    with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
        Pool.open(disk)
    disk.kill()
    assert name in {problem.file for problem in check_pool(disk).problems}
    if name != SUPERBLOCK_NAME:
        disk.remove(name)
        with pytest.raises(DamagedError, match=f"{name} is missing"):
            Pool.open(disk)


def test_tracks_that_are_too_few_are_named() -> None:
    disk, pool = sim_pool()
    pool.close()
    disk.open("tracks").truncate(10 * TRACK)
    with pytest.raises(DamagedError, match="tracks ends at"):
        Pool.open(disk)


def test_a_pool_of_another_version_or_with_unknown_features_is_refused() -> None:
    disk, pool = sim_pool()
    pool.close()
    superblock = load_superblock(disk)
    values = {field: getattr(superblock, field) for field in Superblock.__slots__}
    disk.open(SUPERBLOCK_NAME).pwrite(encode_superblock(Superblock(**{**values, "features": 4})), 0)
    with pytest.raises(RefusedError, match="features 0x4"):
        Pool.open(disk)
