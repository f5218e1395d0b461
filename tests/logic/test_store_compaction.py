"""Compaction keeps exactly the newest staged entry of each track, and gives back the tracks of the others."""

from __future__ import annotations

import numpy as np

from isochrone.model.records import RECORD_DTYPE, RecordArray, RecordKind
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk

TRACK = 4096


def _records(*rows: tuple[int, int, int, int, RecordKind]) -> RecordArray:
    return np.array(
        [(t, v, track, count, int(kind)) for t, v, track, count, kind in rows], dtype=RECORD_DTYPE
    )


def _pool() -> tuple[SimDisk, Pool]:
    disk = SimDisk()
    Pool.create(disk, size_bytes=64 * TRACK)
    pool = Pool.open(disk)
    pool.create_volume("a", 16 * TRACK)
    return disk, pool


def test_entries_superseded_within_the_range_are_dropped_and_the_commit_is_the_same() -> None:
    disk, pool = _pool()
    number = pool.volumes["a"].number
    data, zero = RecordKind.DATA, RecordKind.ZERO
    pool.stage(
        1,
        0,
        40,
        _records((10, number, 0, 4, data), (20, number, 1, 2, data)),
        b"a" * 4 * TRACK + b"b" * 2 * TRACK,
    )
    pool.stage(1, 0, 60, _records((50, number, 3, 1, zero), (60, number, 0, 1, data)), b"c" * TRACK)
    before = pool.stats().staged_track_count
    assert pool.compact(1, 0, 50) == 3  # tracks 1, 2 of the first write, and track 3 zeroed since
    pool.log_write()
    assert pool.stats().staged_track_count == before - 3
    pool.verify()
    disk.kill()
    pool = Pool.open(disk)
    pool.verify()
    pool.commit(1, 60)
    expected = b"c" * TRACK + b"b" * 2 * TRACK + bytes(TRACK)
    assert pool.volumes["a"].read(0, 4 * TRACK) == expected


def test_entries_outside_the_range_are_untouched() -> None:
    _, pool = _pool()
    number = pool.volumes["a"].number
    for time_ns in (10, 20, 30):
        pool.stage(
            1, 0, time_ns, _records((time_ns, number, 0, 1, RecordKind.DATA)), bytes([time_ns]) * TRACK
        )
    assert pool.compact(1, 10, 20) == 0
    assert pool.compact(1, 9, 20) == 1
    pool.commit(1, 20)
    assert pool.volumes["a"].read(0, TRACK) == bytes([20]) * TRACK
