"""Small pools for tests: on simulated disks, with tracks whose content says where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from isochrone.model.errors import PoolFullError
from isochrone.model.records import RECORD_DTYPE, RecordArray, RecordKind
from isochrone.store.disk import Disk
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk

TRACK = 4096


def new_pool(disk: Disk | None = None, *, track_count: int = 64) -> tuple[Disk, Pool]:
    """A fresh pool, open, and its disk."""
    disk = disk or SimDisk(seed=1)
    Pool.create(disk, size_bytes=track_count * TRACK)
    return disk, Pool.open(disk)


def tracks(*tags: int) -> bytes:
    """Whole tracks, each filled with its tag."""
    return b"".join(bytes([tag]) * TRACK for tag in tags)


def run(steps: Generator[Callable[[], None], None, None]) -> int:
    """Make all calls of a sync or checkpoint, as a driver does. Returns their number."""
    count = 0
    try:
        call = next(steps)
        while True:
            count += 1
            try:
                call()
            except (OSError, PoolFullError) as error:
                call = steps.throw(error)
            else:
                call = next(steps)
    except StopIteration:
        return count


def records(*rows: tuple[int, int, int, int, RecordKind]) -> RecordArray:
    """Records from (time_ns, volume, track, track_count, kind)."""
    return np.array(list(rows), RECORD_DTYPE)


def tags(pool: Pool, volume: str, count: int, first: int = 0) -> list[int]:
    """First byte of each of `count` tracks: what `tracks` put there, 0 when unmapped."""
    data = pool.volumes[volume].read(first * TRACK, count * TRACK)
    return list(data[::TRACK])
