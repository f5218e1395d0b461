"""What only one of the disks does: short system calls, locks of dead processes; crashes and faults."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest

from isochrone.model.errors import DamagedError, NotFoundError
from isochrone.store.disk import SECTOR_SIZE_BYTES, Buffer
from isochrone.store.os_disk import OsDisk
from isochrone.testing.sim_disk import SimDisk, SimFile, SimulatedCrash, crash_nth, fail_nth

SECTOR = SECTOR_SIZE_BYTES


# The real folder


def test_short_writes_and_reads_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, pwritev, pread, preadv = os.pwrite, os.pwritev, os.pread, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:3], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: pwritev(fd, [bytes(data[0])[:3]], at))
    monkeypatch.setattr(os, "pread", lambda fd, length, at: pread(fd, min(length, 3), at))
    monkeypatch.setattr(os, "preadv", lambda fd, data, at: preadv(fd, [data[0][:3]], at))
    file = OsDisk(tmp_path).open("a", create=True)
    file.pwrite(b"0123456789", 0)
    file.pwritev([b"abcde", b"", b"fghij"], 10)
    assert file.pread(20, 0) == b"0123456789abcdefghij"
    head, tail = bytearray(8), bytearray(7)
    file.preadv([head, tail], 2)
    assert bytes(head + tail) == b"23456789abcdefg"


def test_a_short_file_is_damage_that_names_file_and_offset(tmp_path: Path) -> None:
    file = OsDisk(tmp_path).open("a", create=True)
    file.pwrite(b"0123456789", 0)
    with pytest.raises(DamagedError, match=rf"{tmp_path}/a ends at byte 10.*at 10") as damage:
        file.pread(8, 4)
    assert damage.value.fields == {"path": str(tmp_path / "a"), "offset": 10}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="missing"):
        OsDisk(tmp_path / "missing")


def test_allocated_space_is_real_and_truncated_space_is_not(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path)
    disk.open("real", create=True).allocate(1 << 20)
    disk.open("hole", create=True).truncate(1 << 20)
    assert (tmp_path / "real").stat().st_blocks * 512 >= 1 << 20
    assert (tmp_path / "hole").stat().st_blocks * 512 < 1 << 20


def test_a_dropped_cache_holds_nothing_of_what_was_durable(tmp_path: Path) -> None:
    file = OsDisk(tmp_path).open("a", create=True)
    file.pwrite(bytes(1 << 20), 0)
    file.datasync()
    with (tmp_path / "a").open("rb") as other:
        room = [bytearray(4096)]
        try:
            assert os.preadv(other.fileno(), room, 0, os.RWF_NOWAIT) == 4096
        except OSError as error:
            pytest.skip(f"this file system does not tell what is cached: {error.strerror}")
        file.drop_cache()
        with pytest.raises(BlockingIOError):
            os.preadv(other.fileno(), room, 0, os.RWF_NOWAIT)


def test_a_mapping_closes_even_while_an_array_looks_into_it(tmp_path: Path) -> None:
    file = OsDisk(tmp_path).open("a", create=True)
    file.allocate(4096)
    array = np.frombuffer(file.map_shared(), dtype=np.uint8)
    file.close()
    assert array.sum() == 0


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        OsDisk(tmp_path).lock()
        os._exit(0)
    os.waitpid(child, 0)
    OsDisk(tmp_path).lock()


# The simulated one: crashes


def sectors(text: str) -> bytes:
    """Sectors filled with one letter each."""
    return b"".join(letter.encode() * SECTOR for letter in text)


def letters(data: Buffer) -> str:
    """The inverse of `sectors`; fails on a sector that is a mixture."""
    pieces = [bytes(data[at : at + SECTOR]) for at in range(0, len(data), SECTOR)]
    assert all(len(set(piece)) == 1 for piece in pieces)
    return "".join(chr(piece[0]) if piece[0] else "0" for piece in pieces)


def synced(disk: SimDisk, name: str, data: bytes) -> SimFile:
    file = disk.open(name, create=True)
    file.pwrite(data, 0)
    file.datasync()
    disk.sync()
    return file


def test_a_killed_process_keeps_its_writes_and_loses_its_handles() -> None:
    disk = SimDisk()
    disk.lock()
    file = disk.open("a", create=True)
    file.pwrite(sectors("ab"), 0)
    view = file.map_shared()
    view[0:SECTOR] = sectors("m")
    disk.kill()
    view[SECTOR : 2 * SECTOR] = sectors("z")
    with pytest.raises(SimulatedCrash):
        file.pwrite(b"x", 0)
    with pytest.raises(SimulatedCrash):
        file.datasync()
    disk.lock()
    assert letters(disk.open("a").pread(2 * SECTOR, 0)) == "mb"


def outcomes_of_power_loss(second: str, third: str = "") -> set[str]:
    """Contents that "aaaa", synced, can have after power loss in or after one or two unsynced overwrites."""
    seen = set()
    for seed in range(400):
        disk = SimDisk()
        file = synced(disk, "f", sectors("aaaa"))
        file.pwrite(sectors(second), 0)
        if third:
            file.pwrite(sectors(third), 0)
        disk.power_loss(Random(seed))
        seen.add(letters(disk.open("f").pread(4 * SECTOR, 0)))
    return seen


def test_power_loss_loses_keeps_or_tears_an_unsynced_write_by_sector() -> None:
    seen = outcomes_of_power_loss("bbbb")
    assert {"aaaa", "bbbb"} < seen
    assert len(seen) == 16


def test_power_loss_may_keep_an_older_unsynced_content_of_a_sector() -> None:
    seen = outcomes_of_power_loss("bbbb", "cccc")
    assert {"aaaa", "bbbb", "cccc"} < seen
    assert any(set(outcome) == {"a", "b", "c"} for outcome in seen)


def test_a_small_write_that_survives_brings_earlier_bytes_of_its_sector() -> None:
    for seed in range(200):
        disk = SimDisk()
        file = synced(disk, "f", bytes(SECTOR))
        file.pwrite(b"first", 0)
        file.pwrite(b"second", 100)
        disk.power_loss(Random(seed))
        data = disk.open("f").pread(SECTOR, 0)
        assert data[:5] == b"first" or data[100:106] == bytes(6)


def test_synced_writes_survive_power_loss_whatever_came_later() -> None:
    for seed in range(100):
        disk = SimDisk()
        file = synced(disk, "f", sectors("ab"))
        file.pwrite(sectors("x"), SECTOR)
        file.pwrite(sectors("y"), 5 * SECTOR)
        file.truncate(SECTOR)
        disk.power_loss(Random(seed))
        assert disk.open("f").pread(SECTOR, 0) == sectors("a")


def test_a_lost_cut_takes_the_writes_after_it_along() -> None:
    seen = set()
    for seed in range(200):
        disk = SimDisk()
        file = synced(disk, "f", sectors("ab"))
        file.truncate(0)
        file.pwrite(sectors("c"), 0)
        disk.power_loss(Random(seed))
        file = disk.open("f")
        seen.add(letters(file.pread(file.size_bytes(), 0)))
    assert seen == {"ab", "", "0", "c"}


def test_an_unsynced_size_may_be_lost() -> None:
    sizes = set()
    for seed in range(50):
        disk = SimDisk()
        file = synced(disk, "f", sectors("a"))
        file.pwrite(sectors("b"), SECTOR)
        disk.power_loss(Random(seed))
        sizes.add(disk.open("f").size_bytes())
    assert sizes == {SECTOR, 2 * SECTOR}


def test_unsynced_stores_to_shared_memory_may_be_lost_by_sector_and_synced_ones_not() -> None:
    seen = set()
    for seed in range(200):
        disk = SimDisk()
        file = synced(disk, "f", sectors("abc"))
        view = file.map_shared()
        view[0:SECTOR] = sectors("A")
        file.datasync()
        view[SECTOR:] = sectors("BC")
        disk.power_loss(Random(seed))
        seen.add(letters(disk.open("f").pread(3 * SECTOR, 0)))
    assert seen == {"Abc", "ABc", "AbC", "ABC"}


def test_unsynced_names_may_be_undone_each_alone_and_synced_ones_not() -> None:
    seen = set()
    for seed in range(200):
        disk = SimDisk()
        synced(disk, "a", sectors("a"))
        new = disk.open("a.new", create=True)
        new.pwrite(sectors("n"), 0)
        new.datasync()
        disk.rename("a.new", "a")
        disk.open("b", create=True)
        disk.power_loss(Random(seed))
        seen.add((letters(disk.open("a").pread(SECTOR, 0)), *disk.names()))
    assert seen == {
        (text, "a", *rest) for text in "an" for rest in ([], ["b"], ["a.new"], ["a.new", "b"])
    } - {
        ("n", "a", "a.new"),
        ("n", "a", "a.new", "b"),
    }


def test_power_loss_changes_the_boot_id_and_kill_does_not() -> None:
    disk = SimDisk()
    boot_id = disk.boot_id
    disk.kill()
    assert disk.boot_id == boot_id
    disk.power_loss(Random(0))
    assert disk.boot_id != boot_id


# The simulated one: faults


def test_the_nth_operation_of_a_kind_fails_once_and_changes_nothing() -> None:
    disk = SimDisk()
    file = synced(disk, "f", sectors("a"))
    disk.hook = fail_nth(2, kind="write", name="f")
    file.pwrite(sectors("b"), 0)
    with pytest.raises(OSError, match="device error") as failure:
        file.pwrite(sectors("c"), 0)
    assert failure.value.errno == errno.EIO
    assert letters(file.pread(SECTOR, 0)) == "b"
    file.pwrite(sectors("d"), 0)
    assert letters(file.pread(SECTOR, 0)) == "d"


def test_a_failed_datasync_leaves_clean_pages_that_a_second_one_does_not_store() -> None:
    lost = 0
    for seed in range(50):
        disk = SimDisk(seed=seed)
        file = synced(disk, "f", sectors("aaaa"))
        file.pwrite(sectors("bbbb"), 0)
        disk.hook = fail_nth(1, kind="datasync")
        with pytest.raises(OSError, match="device error"):
            file.datasync()
        assert letters(file.pread(4 * SECTOR, 0)) == "bbbb"
        file.datasync()
        disk.evict()
        evicted = letters(file.pread(4 * SECTOR, 0))
        disk.power_loss(Random(seed))
        assert letters(disk.open("f").pread(4 * SECTOR, 0)) == evicted
        lost += evicted != "bbbb"
    assert 0 < lost < 50


def test_a_crash_inside_a_write_leaves_a_prefix_of_sectors_and_a_dead_process() -> None:
    seen = set()
    for seed in range(100):
        disk = SimDisk(seed=seed)
        file = synced(disk, "f", sectors("aaaa"))
        disk.hook = crash_nth(1, kind="write")
        with pytest.raises(SimulatedCrash):
            file.pwritev([sectors("bb"), sectors("bb")], 0)
        with pytest.raises(SimulatedCrash):
            file.pwrite(sectors("zzzz"), 0)
        disk.kill()
        seen.add(letters(disk.open("f").pread(4 * SECTOR, 0)))
    assert {"aaaa", "baaa", "bbaa", "bbba"} <= seen <= {"aaaa", "baaa", "bbaa", "bbba", "bbbb"}


def test_a_crash_can_be_raised_at_every_operation() -> None:
    def work(disk: SimDisk) -> None:
        file = disk.open("f.new", create=True)
        file.allocate(SECTOR)
        file.pwrite(sectors("a"), 0)
        file.datasync()
        disk.rename("f.new", "f")
        disk.sync()

    whole = SimDisk()
    work(whole)
    assert whole.operation_count == 6
    for number in range(1, 7):
        disk = SimDisk()
        disk.hook = crash_nth(number)
        with pytest.raises(SimulatedCrash):
            work(disk)
        disk.kill()
        work(disk)


def test_space_is_limited_counted_and_given_back() -> None:
    disk = SimDisk(space_bytes_max=4 * 4096)
    file = disk.open("a", create=True)
    file.allocate(2 * 4096)
    file.truncate(100 * 4096)
    assert disk.used_bytes == 2 * 4096
    with pytest.raises(OSError, match="no space"):
        file.pwrite(b"x" * (5 * 4096), 4096)
    assert disk.used_bytes == 4 * 4096
    assert file.pread(3 * 4096, 4096) == b"x" * (3 * 4096)
    file.pwrite(b"y" * 4096, 0)
    with pytest.raises(OSError, match="no space"):
        disk.open("b", create=True).allocate(1)
    disk.sync()
    disk.remove("a")
    assert disk.used_bytes == 4 * 4096
    disk.sync()
    assert disk.used_bytes == 0
