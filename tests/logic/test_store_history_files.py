"""Sealed history: written once, named by the root, read in pieces, gone when nobody wants it; whole after every crash."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.model.errors import ConflictError, DamagedError
from isochrone.model.volume_kind import VolumeKind
from isochrone.store import history_files, kept_entries
from isochrone.store.check import check_pool
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash, crash_nth
from support.history import SESSION, made, put, rewound, shown_at
from support.store import TRACK, run, tags

A = 1
TIMES = range(10, 30)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 4 entries, sealed from 8 records on."""
    monkeypatch.setattr(kept_entries, "PIECE_ENTRY_COUNT_MAX", 4)
    monkeypatch.setattr(history_files, "HISTORY_SEAL_RECORD_COUNT", 8)


def pool_with(times: range = TIMES) -> tuple[SimDisk, Pool]:
    """A session that wrote the track of each time modulo 4, kept from the beginning."""
    disk = SimDisk(seed=1)
    Pool.create(disk, size_bytes=256 * TRACK)
    pool = Pool.open(disk)
    pool.create_volume("a", 8 * TRACK)
    pool.history_begin(SESSION, [A])
    write(pool, times)
    return disk, pool


def write(pool: Pool, times: range) -> None:
    """Commit a track per time."""
    for time_ns in times:
        put(pool, time_ns, A, time_ns % 4, time_ns)
        pool.commit(SESSION, time_ns)


def files(disk: SimDisk) -> list[str]:
    """Names of the files of history."""
    return [name for name in disk.names() if name.startswith("history-")]


def expected(at_ns: int, first_ns: int = 10) -> list[int]:
    """What volume a showed at a time."""
    seen = [0] * 8
    for time_ns in range(first_ns, at_ns + 1):
        seen[time_ns % 4] = time_ns
    return seen


def test_a_checkpoint_seals_what_is_much_and_leaves_what_is_little_to_the_root() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    assert len(files(disk)) == 1
    write(pool, range(30, 37))
    run(pool.checkpoint())
    assert len(files(disk)) == 1
    write(pool, range(37, 38))
    run(pool.checkpoint())
    assert len(files(disk)) == 2
    assert [shown_at(pool, at, A) for at in (9, 10, 13, 29, 30, 37)] == [
        expected(at) for at in (9, 10, 13, 29, 30, 37)
    ]
    pool.verify()


def test_sealed_history_takes_no_memory() -> None:
    _, pool = pool_with()
    run(pool.checkpoint())
    pieces = pool._state.histories[SESSION].entries.pieces
    assert len(pieces) == 5
    assert all(piece._content is None for piece in pieces)


def test_a_checkpoint_does_not_write_sealed_history_again() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    root_size_bytes = int.from_bytes(disk.open("root").pread(8, 24), "little")
    written: list[str] = []
    disk.hook = lambda operation: written.append(operation.name) if operation.kind == "write" else None
    run(pool.checkpoint())
    disk.hook = None
    assert not [name for name in written if name.startswith("history-")]
    assert root_size_bytes < 1024


def test_sealed_history_is_read_after_a_restart_with_the_log_replayed_on_top() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    write(pool, range(30, 33))
    pool.history_release(SESSION, 14)
    pool.log_write()
    disk.kill()
    assert not check_pool(disk).problems
    again = Pool.open(disk)
    assert [shown_at(again, at, A) for at in (14, 20, 29, 32)] == [expected(at) for at in (14, 20, 29, 32)]
    assert again.history(SESSION) == pool.history(SESSION)
    again.verify()


def test_a_file_goes_when_nobody_wants_it_and_not_before_a_root_says_so() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    (first,) = files(disk)
    pool.history_release(SESSION, 25)
    run(pool.checkpoint())
    assert files(disk) == [first]
    pool.history_release(SESSION, 29)
    assert files(disk) == [first]
    run(pool.sync())
    assert files(disk) == [first]
    run(pool.checkpoint())
    assert files(disk) == []
    assert tags(pool, "a", 4) == expected(29)[:4]
    pool.verify()


def test_dropped_history_keeps_its_files_until_its_tracks_are_back() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    pool.history_drop(SESSION)
    run(pool.checkpoint())
    assert len(files(disk)) == 1
    disk.kill()
    again = Pool.open(disk)
    again.verify()
    run(again.sync())
    run(again.sync())
    assert again.free_track_count == 252
    run(again.checkpoint())
    assert files(disk) == []
    again.verify()


def test_a_piece_that_was_released_in_part_is_sealed_anew() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    pool.history_release(SESSION, 15)
    write(pool, range(30, 37))
    run(pool.checkpoint())
    assert len(files(disk)) == 2
    disk.kill()
    again = Pool.open(disk)
    assert [shown_at(again, at, A) for at in (15, 16, 36)] == [expected(at) for at in (15, 16, 36)]
    again.verify()


@pytest.mark.parametrize("lost_power", [False, True])
def test_a_crash_at_any_step_of_a_checkpoint_leaves_all_history_and_no_file_too_many(
    lost_power: bool,
) -> None:
    """The checkpoint seals one file and removes another."""
    step = 0
    crashed = True
    while crashed:
        step += 1
        disk, pool = pool_with()
        run(pool.checkpoint())
        pool.history_release(SESSION, 29)
        write(pool, range(30, 45))
        run(pool.sync())
        disk.hook = crash_nth(step)
        crashed = False
        try:
            run(pool.checkpoint())
        except SimulatedCrash:
            crashed = True
        if lost_power:
            disk.power_loss(Random(step))
        else:
            disk.kill()
        assert not check_pool(disk).problems, step
        again = Pool.open(disk)
        assert [shown_at(again, at, A) for at in (29, 30, 44)] == [expected(at) for at in (29, 30, 44)], step
        assert len(files(disk)) == 1, step
        again.verify()
        again.close()
    assert step > 8


@pytest.mark.parametrize("offset", [0, 40, 100, 300, 700])
def test_a_changed_byte_is_found_by_the_check_and_by_opening(offset: int) -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    pool.close()
    (name,) = files(disk)
    file = disk.open(name)
    file.pwrite(bytes([file.pread(1, offset)[0] ^ 1]), offset)
    problems = check_pool(disk).problems
    assert {problem.file for problem in problems} == {name}
    with pytest.raises(DamagedError, match=name):
        Pool.open(disk)


def test_a_missing_file_is_found() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    pool.close()
    disk.remove(files(disk)[0])
    assert check_pool(disk).problems
    with pytest.raises(DamagedError, match="missing"):
        Pool.open(disk)


def test_an_image_whose_file_has_gone_with_its_history_says_so() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    steps = pool.history_image(SESSION, 29, {A: "t"}, VolumeKind.COPY)
    call = next(steps)
    pool.history_drop(SESSION)
    run(pool.sync())
    run(pool.sync())
    run(pool.checkpoint())
    assert files(disk) == []
    call()
    with pytest.raises(ConflictError, match="given up"):
        made(steps)
    pool.verify()


def test_without_room_for_sealed_history_a_checkpoint_waits_and_loses_nothing() -> None:
    disk, pool = pool_with()
    disk.space_bytes_max = disk.used_bytes
    with pytest.raises(Exception, match="sealed history"):
        run(pool.checkpoint())
    assert shown_at(pool, 20, A) == expected(20)
    disk.space_bytes_max = None
    run(pool.checkpoint())
    assert len(files(disk)) == 1
    disk.kill()
    again = Pool.open(disk)
    assert shown_at(again, 20, A) == expected(20)
    again.verify()


def test_a_rewind_that_cannot_read_what_came_since_leaves_everything_as_it_was() -> None:
    disk, pool = pool_with()
    run(pool.checkpoint())
    (name,) = files(disk)
    file = disk.open(name)
    last = file.size_bytes() - 1
    right = file.pread(1, last)
    file.pwrite(bytes([right[0] ^ 1]), last)
    volumes = set(pool._state.volumes)
    with pytest.raises(DamagedError, match=name):
        rewound(pool.history_rewind(SESSION, 11))
    assert set(pool._state.volumes) == volumes
    assert tags(pool, "a", 4) == expected(29)[:4]
    file.pwrite(right, last)
    pool.verify()


def test_a_rewind_reads_what_came_since_piece_by_piece_and_tells_all_of_it() -> None:
    _, pool = pool_with()
    run(pool.checkpoint())
    write(pool, range(30, 32))
    steps = pool.history_rewind(SESSION, 27)
    for _ in range(12):  # six pieces for the image, and once more for what came since
        next(steps)()
    put(pool, 32, A, 6, 1)
    pool.commit(SESSION, 32)
    assert rewound(steps) == {A: [0, 1, 2, 3, 6]}
    pool.verify()
