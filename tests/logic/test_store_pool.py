"""What an open pool does: volumes, documents, limits, a full pool, a device that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from isochrone.model.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    PoolFullError,
    PoolReadOnlyError,
    RefusedError,
)
from isochrone.store import limits
from isochrone.store.os_disk import OsDisk
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk, fail_nth
from support.store import TRACK, new_pool, run, tags, tracks


def test_unwritten_bytes_read_as_zeros_and_take_no_space() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 1000 * TRACK)
    assert volume.read(5 * TRACK + 7, 3 * TRACK) == bytes(3 * TRACK)
    assert pool.used_track_count == 0


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (4095, 2), (1, 4096), (5000, 20_000), (8192, 12_288), (3 * TRACK - 1, 1)]
)
def test_any_range_reads_back_and_leaves_its_surroundings(offset: int, length: int) -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, b"\xaa" * 16 * TRACK)
    data = bytes(range(1, 252)) * (length // 251 + 1)
    first, count, image = volume.write(offset, data[:length])
    expected = bytearray(b"\xaa" * 16 * TRACK)
    expected[offset : offset + length] = data[:length]
    assert volume.read(0, 16 * TRACK) == expected
    assert volume.read(offset, length) == data[:length]
    assert bytes(image) == expected[first * TRACK : (first + count) * TRACK]
    buffer = bytearray(length)
    volume.read_into(offset, buffer)
    assert buffer == data[:length]
    pool.verify()


def test_an_aligned_write_returns_its_own_data_as_image() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    for data in (memoryview(tracks(1)), memoryview(tracks(1, 2, 3))):
        for _ in range(2):
            assert volume.write(TRACK, data)[2] is data


def test_an_owned_track_is_overwritten_in_place() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2, 3))
    volume.write(0, tracks(4, 5, 6))
    volume.write(TRACK, tracks(7))
    assert tags(pool, "a", 3) == [4, 7, 6]
    assert (pool.used_track_count, pool.pending_free_count) == (3, 0)


@pytest.mark.parametrize("mapped", [[3], [3, 4, 5], [2, 7], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_a_run_over_mapped_and_unmapped_tracks_is_written_whole(mapped: list[int]) -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    for track in reversed(mapped):
        volume.write(track * TRACK, tracks(99))
    volume.write(0, tracks(1, 2, 3, 4, 5, 6, 7, 8))
    assert tags(pool, "a", 10) == [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]
    assert pool.used_track_count == volume.mapped_track_count == 8
    pool.verify()


def test_writes_to_copies_do_not_meet() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2, 3))
    copy = pool.copy_volume("a", "b")
    volume.write(0, tracks(11))
    copy.write(TRACK, tracks(22, 33))
    copy.write(0, tracks(44))
    assert tags(pool, "a", 3) == [11, 2, 3]
    assert tags(pool, "b", 3) == [44, 22, 33]
    pool.verify()


@pytest.mark.parametrize(
    "call",
    [
        lambda volume: volume.read(15 * TRACK, TRACK + 1),
        lambda volume: volume.read(-TRACK, TRACK),
        lambda volume: volume.read(0, -1),
        lambda volume: volume.read_into(16 * TRACK, bytearray(1)),
        lambda volume: volume.write(16 * TRACK, bytes(TRACK)),
        lambda volume: volume.write(-TRACK, bytes(TRACK)),
        lambda volume: volume.write(16 * TRACK - 1, b"xy"),
        lambda volume: volume.zero(0, 17 * TRACK, allocate=False),
        lambda volume: list(volume.mapped_runs(0, 17 * TRACK)),
    ],
)
def test_ranges_beyond_a_volume_are_refused(call: Callable[[object], object]) -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    with pytest.raises(RefusedError, match="not within volume a"):
        call(volume)


def test_zero_unmaps_whole_tracks_and_patches_edges() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(*range(1, 9)))
    result = volume.zero(TRACK + 100, 4 * TRACK, allocate=False)
    assert [(track, count) for track, count, _ in result.edges] == [(1, 1), (5, 1)]
    assert result.runs == [(2, 3)]
    assert volume.read(TRACK, 100) == b"\2" * 100
    assert volume.read(TRACK + 100, 4 * TRACK) == bytes(4 * TRACK)
    assert volume.read(5 * TRACK + 100, 10) == b"\6" * 10
    assert volume.mapped_track_count == 5
    pool.verify()


def test_zero_of_unmapped_tracks_changes_nothing() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 4000 * TRACK)
    result = volume.zero(100, 3000 * TRACK, allocate=False)
    assert (result.edges, result.runs) == ([], [])
    assert pool.used_track_count == 0


def test_zero_with_allocation_takes_space_and_reads_as_zeros() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(2 * TRACK, tracks(7))
    result = volume.zero(TRACK, 5 * TRACK, allocate=True)
    assert result.runs == [(1, 5)]
    assert volume.mapped().tolist() == [False] + [True] * 5 + [False] * 10
    assert tags(pool, "a", 16) == [0] * 16


def test_mapped_runs_are_clipped_to_the_bytes_asked_for() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 3000 * TRACK)
    volume.write(1023 * TRACK, tracks(1, 2))
    assert list(volume.mapped_runs(0, volume.size_bytes)) == [
        (0, 1023 * TRACK, False),
        (1023 * TRACK, 2 * TRACK, True),
        (1025 * TRACK, 1975 * TRACK, False),
    ]
    assert list(volume.mapped_runs(1023 * TRACK + 5, 10)) == [(1023 * TRACK + 5, 10, True)]
    assert list(volume.mapped_runs(0, 0)) == []


def test_a_full_pool_refuses_what_needs_space_and_nothing_else() -> None:
    _, pool = new_pool(track_count=8)
    volume = pool.create_volume("a", 100 * TRACK)
    volume.write(0, tracks(1, 2, 3, 4, 5, 6, 7))
    with pytest.raises(PoolFullError, match="2 tracks are needed, 1 of 8 are free"):
        volume.write(6 * TRACK, tracks(9, 9, 9))
    assert tags(pool, "a", 9) == [1, 2, 3, 4, 5, 6, 7, 0, 0]
    volume.write(7 * TRACK, tracks(8))
    with pytest.raises(PoolFullError):
        volume.write(8 * TRACK, tracks(9))
    with pytest.raises(PoolFullError):
        volume.zero(7 * TRACK, 2 * TRACK, allocate=True)
    volume.write(0, tracks(11))
    assert tags(pool, "a", 9) == [11, 2, 3, 4, 5, 6, 7, 8, 0]
    pool.verify()


def test_freed_tracks_are_made_reusable_by_a_sync_before_the_pool_is_full() -> None:
    _, pool = new_pool(track_count=4)
    volume = pool.create_volume("a", 100 * TRACK)
    volume.write(0, tracks(1, 2, 3, 4))
    volume.zero(0, 2 * TRACK, allocate=False)
    assert (pool.free_track_count, pool.pending_free_count) == (0, 2)
    volume.write(10 * TRACK, tracks(5))
    assert (pool.free_track_count, pool.pending_free_count) == (1, 0)
    pool.verify()


def test_an_inline_sync_releases_what_a_sync_under_way_has_taken() -> None:
    _, pool = new_pool(track_count=4)
    volume = pool.create_volume("a", 100 * TRACK)
    volume.write(0, tracks(1, 2, 3, 4))
    volume.zero(0, 2 * TRACK, allocate=False)
    steps = pool.sync()
    call = next(steps)
    volume.write(10 * TRACK, tracks(5, 6))
    call()
    for later in steps:
        later()
    assert (pool.free_track_count, pool.pending_free_count) == (0, 0)
    pool.verify()


def test_a_sync_that_is_given_up_releases_nothing() -> None:
    _, pool = new_pool(track_count=4)
    volume = pool.create_volume("a", 100 * TRACK)
    volume.write(0, tracks(1, 2, 3, 4))
    volume.zero(0, 2 * TRACK, allocate=False)
    steps = pool.sync()
    next(steps)
    steps.close()
    assert (pool.free_track_count, pool.pending_free_count) == (0, 2)
    assert pool.read_only_reason is None


def test_a_sync_after_overwrites_in_place_is_one_datasync() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1))
    assert run(pool.sync()) == 2
    volume.write(0, tracks(2))
    assert run(pool.sync()) == 1
    pool.put_document("k", b"v")
    assert run(pool.sync()) == 2


def test_a_failed_datasync_ends_writing_for_good() -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1))
    disk.hook = fail_nth(1, kind="datasync")
    with pytest.raises(OSError, match="simulated"):
        run(pool.sync())
    disk.hook = None
    assert "making tracks durable failed" in (pool.read_only_reason or "")
    changes: list[Callable[[], object]] = [
        lambda: volume.write(0, tracks(2)),
        lambda: volume.zero(0, TRACK, allocate=False),
        lambda: pool.create_volume("b", TRACK),
        lambda: pool.put_document("k", b"v"),
        lambda: run(pool.sync()),
        lambda: run(pool.checkpoint()),
    ]
    for change in changes:
        with pytest.raises(PoolReadOnlyError, match="repair the device"):
            change()
    assert tags(pool, "a", 2) == [1, 0]
    pool.close()


def test_a_failed_log_write_ends_writing() -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    pool.put_document("k", b"v")
    disk.hook = fail_nth(1, kind="write")
    with pytest.raises(OSError, match="simulated"):
        pool.log_write()
    assert "writing the log failed" in (pool.read_only_reason or "")


def test_a_write_that_the_device_fails_leaves_the_volume_as_it_was() -> None:
    disk = SimDisk(seed=1)
    _, pool = new_pool(disk)
    volume = pool.create_volume("a", 16 * TRACK)
    for count in (1, 3):
        disk.hook = fail_nth(1, kind="write")
        with pytest.raises(OSError, match="simulated"):
            volume.write(TRACK, tracks(*range(1, count + 1)))
    assert (volume.mapped_track_count, pool.used_track_count) == (0, 0)
    assert pool.read_only_reason is None
    pool.verify()


def test_volumes_are_created_resized_and_deleted() -> None:
    _, pool = new_pool()
    first = pool.create_volume("a", 16 * TRACK)
    first.write(8 * TRACK, tracks(1))
    pool.resize_volume("a", 8 * TRACK)
    assert (first.size_bytes, first.track_count, first.mapped_track_count) == (8 * TRACK, 8, 0)
    pool.resize_volume("a", 16 * TRACK)
    assert tags(pool, "a", 16) == [0] * 16
    pool.delete_volume("a")
    assert not pool.volumes
    with pytest.raises(RefusedError):
        first.write(0, tracks(1))
    second = pool.create_volume("a", TRACK)
    assert second.number > first.number
    assert pool.volume_by_number(second.number) is second
    with pytest.raises(NotFoundError):
        pool.volume_by_number(first.number)
    pool.verify()


@pytest.mark.parametrize("size_bytes", [0, -TRACK, TRACK + 512, (1 << 32) * TRACK])
def test_sizes_that_a_volume_cannot_have_are_refused(size_bytes: int) -> None:
    _, pool = new_pool()
    with pytest.raises(RefusedError, match="choose a multiple of 4096"):
        pool.create_volume("a", size_bytes)
    assert not pool.volumes


def test_names_are_checked_and_unique() -> None:
    _, pool = new_pool()
    pool.create_volume("a", TRACK)
    with pytest.raises(RefusedError, match="volume name"):
        pool.create_volume("a/b", TRACK)
    with pytest.raises(ConflictError, match="exists already"):
        pool.create_volume("a", TRACK)
    for call in (pool.delete_volume, lambda name: pool.resize_volume(name, TRACK)):
        with pytest.raises(NotFoundError, match="does not exist"):
            call("b")


def test_volumes_are_limited_in_number_and_in_size_together(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool = new_pool()
    pool.create_volume("a", limits.TABLE_PAGE_COUNT_MAX * 1024 * TRACK // 32)
    for index in range(31):
        pool.copy_volume("a", f"b{index}")
    with pytest.raises(BusyError, match="choose a smaller size"):
        pool.create_volume("c", TRACK)
    monkeypatch.setattr("isochrone.store.volume_set.VOLUME_COUNT_MAX", 32)
    with pytest.raises(BusyError, match="32 volumes"):
        pool.create_volume("c", TRACK)


def test_documents_are_small_and_few() -> None:
    _, pool = new_pool()
    pool.put_document("k", b"1")
    pool.put_document("k", b"2")
    assert dict(pool.documents) == {"k": b"2"}
    for key, value in (("", b""), ("k" * 257, b""), ("k", bytes(limits.DOCUMENT_BYTES_MAX + 1))):
        with pytest.raises(RefusedError, match="not usable"):
            pool.put_document(key, value)
    for index in range(64):
        pool.put_document(f"big{index}", bytes(limits.DOCUMENT_BYTES_MAX - 1))
    with pytest.raises(BusyError):
        pool.put_document("more", bytes(200))
    pool.delete_document("big0")
    pool.put_document("more", bytes(200))
    with pytest.raises(NotFoundError):
        pool.delete_document("big0")


def test_stats_add_up() -> None:
    _, pool = new_pool()
    volume = pool.create_volume("a", 16 * TRACK)
    volume.write(0, tracks(1, 2, 3))
    volume.zero(0, TRACK, allocate=False)
    stats = pool.stats()
    assert stats.used_track_count == stats.mapped_track_count == 2
    assert stats.pending_free_count == 1
    assert (
        stats.used_track_count + stats.free_track_count + stats.pending_free_count == stats.track_count == 64
    )


def test_a_pool_is_refused_a_second_opener() -> None:
    disk, _ = new_pool()
    with pytest.raises(BusyError):
        Pool.open(disk)


def test_there_must_be_a_pool_to_open() -> None:
    with pytest.raises(NotFoundError, match="create one"):
        Pool.open(SimDisk(seed=1))


def test_a_folder_that_holds_a_pool_is_not_made_into_another() -> None:
    disk, pool = new_pool()
    with pytest.raises(ConflictError, match="holds a pool already"):
        Pool.create(disk, size_bytes=TRACK)
    pool.close()
    disk.remove("superblock")
    with pytest.raises(ConflictError, match="root"):
        Pool.create(disk, size_bytes=TRACK)


@pytest.mark.parametrize(
    "values",
    [
        {"size_bytes": 100},
        {"size_bytes": 1 << 20, "track_size_bytes": 5000},
        {"size_bytes": 1 << 20, "track_size_bytes": 2048},
        {"size_bytes": 1 << 20, "track_size_bytes": 1 << 17},
        {"size_bytes": 1 << 50},
        {"size_bytes": 1 << 20, "tracks_path": "relative"},
        {"size_bytes": 1 << 20, "log_segment_size_bytes": 1000},
    ],
)
def test_a_pool_of_unusable_values_is_refused_and_leaves_no_file(values: dict[str, int]) -> None:
    disk = SimDisk(seed=1)
    with pytest.raises(RefusedError):
        Pool.create(disk, **values)  # type: ignore[arg-type]
    assert disk.names() == []


def test_files_are_preallocated_unless_asked_otherwise(tmp_path: Path) -> None:
    Pool.create(OsDisk(tmp_path / "full", create=True), size_bytes=1 << 20)
    Pool.create(OsDisk(tmp_path / "thin", create=True), size_bytes=1 << 20, preallocate=False)
    used = {
        name: {file.name: file.stat().st_blocks * 512 for file in (tmp_path / name).iterdir()}
        for name in ("full", "thin")
    }
    assert used["full"]["tracks"] >= 1 << 20
    assert used["full"]["log.a"] >= 1 << 20
    assert used["full"]["pages"] >= 1 << 20
    assert used["thin"]["tracks"] == 0
    assert used["thin"]["log.a"] >= 1 << 20  # what is pending for it has changed the state already
    assert used["thin"]["pages"] == 0


def test_tracks_may_be_kept_in_a_file_of_the_users_choice(tmp_path: Path) -> None:
    tracks_path = tmp_path / "device"
    tracks_path.write_bytes(bytes(1 << 20))
    Pool.create(OsDisk(tmp_path / "pool", create=True), size_bytes=1 << 20, tracks_path=str(tracks_path))
    assert not (tmp_path / "pool" / "tracks").exists()
    pool = Pool.open(OsDisk(tmp_path / "pool"))
    pool.create_volume("a", 4 * TRACK).write(0, tracks(7))
    pool.close()
    assert tracks_path.read_bytes()[:TRACK] == tracks(7)
    assert tracks_path.stat().st_size == 1 << 20


@pytest.mark.parametrize("track_size", [4096, 16384, 65536])
def test_tracks_of_any_allowed_size_work_on_a_real_folder(tmp_path: Path, track_size: int) -> None:
    Pool.create(OsDisk(tmp_path), size_bytes=64 * track_size, track_size_bytes=track_size)
    pool = Pool.open(OsDisk(tmp_path))
    volume = pool.create_volume("a", 20 * track_size)
    data = np.random.default_rng(1).bytes(5 * track_size + 100)
    volume.write(700, data)
    pool.close()
    pool = Pool.open(OsDisk(tmp_path))
    assert pool.volumes["a"].read(700, len(data)) == data
    assert pool.volumes["a"].mapped_track_count == 6
    pool.close()
