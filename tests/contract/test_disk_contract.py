"""The contract of Disk and File, run on the real folder and on the simulated one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isochrone.model.errors import BusyError, DamagedError, RefusedError
from isochrone.store.disk import Disk
from isochrone.store.os_disk import VECTOR_COUNT_MAX, OsDisk
from isochrone.testing.sim_disk import SimDisk

Views = Callable[[], Disk]
"""Makes one more view of the same folder, as another process would."""


@pytest.fixture(params=["os", "sim"])
def views(request: pytest.FixtureRequest, tmp_path: Path) -> Views:
    if request.param == "os":
        return lambda: OsDisk(tmp_path / "pool", create=True)
    return SimDisk().second_view


@pytest.fixture
def disk(views: Views) -> Disk:
    return views()


def test_a_written_range_reads_back_through_another_handle(disk: Disk) -> None:
    disk.open("a", create=True).pwrite(b"0123456789", 5)
    other = disk.open("a")
    assert other.size_bytes() == 15
    assert other.pread(15, 0) == bytes(5) + b"0123456789"


def test_any_buffer_type_may_be_written(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwritev([b"ab", bytearray(b"cd"), memoryview(b"efgh")[1:3], b""], 0)
    file.pwrite(memoryview(b"xyz"), 6)
    assert file.pread(9, 0) == b"abcdfgxyz"


@pytest.mark.parametrize("count", [0, 1, VECTOR_COUNT_MAX, 2 * VECTOR_COUNT_MAX + 3])
def test_any_number_of_buffers_is_written_and_read_whole(disk: Disk, count: int) -> None:
    file = disk.open("a", create=True)
    pieces = [bytes([index % 251]) * (1 + index % 7) for index in range(count)]
    file.pwritev(pieces, 3)
    buffers = [bytearray(len(piece)) for piece in pieces]
    file.preadv(buffers, 3)
    assert [bytes(buffer) for buffer in buffers] == pieces


def test_preadv_fills_slices_in_place(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwrite(b"0123456789", 0)
    target = bytearray(6)
    view = memoryview(target)
    file.preadv([view[3:], view[:3]], 2)
    assert bytes(target) == b"567234"


def test_reading_past_the_end_is_damage(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwrite(b"0123", 0)
    with pytest.raises(DamagedError):
        file.pread(4, 1)
    with pytest.raises(DamagedError):
        file.preadv([bytearray(2), bytearray(3)], 0)
    assert file.pread(0, 0) == b""


def test_allocate_extends_with_zeros_and_never_shrinks(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwrite(b"abc", 0)
    file.allocate(10_000)
    assert file.size_bytes() == 10_000
    assert file.pread(10_000, 0) == b"abc" + bytes(9_997)
    file.allocate(0)
    file.allocate(100)
    assert file.size_bytes() == 10_000


def test_truncate_cuts_and_extends_with_zeros(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwrite(b"abcdef", 0)
    file.truncate(3)
    file.truncate(6)
    assert file.pread(6, 0) == b"abc\0\0\0"


def test_shared_memory_and_reads_and_writes_see_each_other(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.allocate(8192)
    view = file.map_shared()
    assert len(view) == 8192
    view[4096:4099] = b"abc"
    assert file.pread(4, 4096) == b"abc\0"
    file.pwrite(b"z", 4097)
    assert bytes(view[4096:4099]) == b"azc"
    file.datasync()
    file.close()
    assert disk.open("a").pread(3, 4096) == b"azc"


def test_dropping_the_cache_changes_nothing_that_was_written(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwrite(b"durable", 0)
    file.datasync()
    file.pwrite(b"dirty", 9000)
    file.drop_cache()
    assert file.pread(9005, 0) == b"durable" + bytes(8993) + b"dirty"
    assert disk.open("a").pread(5, 9000) == b"dirty"


def test_open_without_create_needs_the_file(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.open("a")


def test_open_with_create_keeps_what_is_there(disk: Disk) -> None:
    disk.open("a", create=True).pwrite(b"abc", 0)
    assert disk.open("a", create=True).size_bytes() == 3


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "lock"])
def test_a_name_that_leaves_the_folder_is_refused(disk: Disk, name: str) -> None:
    with pytest.raises(RefusedError):
        disk.open(name, create=True)


def test_a_file_elsewhere_opens_by_absolute_path_and_is_not_listed(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "tracks")
    disk.open(path, create=True).pwrite(b"abc", 0)
    assert disk.open(path).pread(3, 0) == b"abc"
    assert disk.names() == []


def test_names_are_sorted_and_without_the_lock(disk: Disk) -> None:
    disk.lock()
    for name in ("b", "a", "c"):
        disk.open(name, create=True)
    assert disk.names() == ["a", "b", "c"]


def test_rename_replaces_and_the_handle_follows(disk: Disk) -> None:
    new, old = disk.open("a.new", create=True), disk.open("a", create=True)
    new.pwrite(b"new", 0)
    old.pwrite(b"old", 0)
    disk.rename("a.new", "a")
    disk.sync()
    assert disk.names() == ["a"]
    assert disk.open("a").pread(3, 0) == b"new"
    new.pwrite(b"N", 0)
    assert disk.open("a").pread(3, 0) == b"New"
    assert old.pread(3, 0) == b"old"
    with pytest.raises(FileNotFoundError):
        disk.rename("a.new", "b")


def test_remove_leaves_open_handles_usable(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.pwrite(b"abc", 0)
    disk.remove("a")
    assert disk.names() == []
    assert file.pread(3, 0) == b"abc"
    with pytest.raises(FileNotFoundError):
        disk.remove("a")


def test_the_lock_admits_one_and_names_the_holder(views: Views) -> None:
    first, second = views(), views()
    first.lock()
    with pytest.raises(BusyError) as refusal:
        second.lock()
    assert refusal.value.fields["pid"] == (os.getpid() if isinstance(first, OsDisk) else 4242)
    assert str(refusal.value.fields["pid"]) in str(refusal.value)
    first.close()
    second.lock()


def test_the_boot_id_is_the_same_for_all_views_of_one_boot(views: Views) -> None:
    assert views().boot_id == views().boot_id != ""


def test_closed_handles_refuse_and_close_again(disk: Disk) -> None:
    file = disk.open("a", create=True)
    file.allocate(512)
    file.map_shared()
    file.close()
    file.close()
    with pytest.raises(OSError, match=r"closed|Bad file descriptor"):
        file.pwrite(b"a", 0)
    disk.close()
    disk.close()
