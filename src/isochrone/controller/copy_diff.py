"""What differs between two volumes, read in steps: other work has its turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.api.copy_requests import DIFF_EXTENTS_MAX
from isochrone.model.errors import NotFoundError
from isochrone.report.copy_models import ChangedExtent, DiffReport
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume

TRACKS_PER_STEP: Final = 1 << 20
"""Compared before others have their turn: a millisecond or a few."""

Runs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""First tracks and track counts, ascending."""


def changed_runs(pool: Pool, base: Volume, volume: Volume, first: int, end: int) -> Runs:
    """Return the runs of tracks `first` to `end - 1` of `volume` that may differ from `base`.

    What lies beyond a smaller `base` is changed.
    """
    both = min(end, base.track_count)
    runs = pool.diff(base.name, volume.name, first, both) if first < both else _NO_RUNS
    beyond = max(first, base.track_count)
    if beyond >= end:
        return runs
    starts, counts = runs
    return np.append(starts, np.int64(beyond)), np.append(counts, np.int64(end - beyond))


async def differing_bytes(
    pool: Pool, *, base: str, volume: str, offset: int = 0, end_offset: int | None = None
) -> int:
    """Return how many bytes of a range of `volume` may differ from `base`, in whole tracks.

    Args:
        end_offset: None for all of the longer one of both: what only one has counts.
    """
    size = pool.track_size_bytes
    tracks = 0
    if end_offset is None:
        tracks = max(0, _volume(pool, base).track_count - _volume(pool, volume).track_count)
        end_offset = _volume(pool, volume).size_bytes
    async for _, (_, counts) in _steps(pool, base, volume, offset // size, end_offset // size):
        tracks += int(counts.sum())
    return tracks * size


async def read_diff(pool: Pool, *, base: str, volume: str, offset: int) -> DiffReport:
    """Return the ranges of `volume` from `offset` on that may differ from `base`, at most DIFF_EXTENTS_MAX of them."""
    size = pool.track_size_bytes
    changed: list[ChangedExtent] = []
    end_offset = offset
    volume_end = _volume(pool, volume).track_count
    async for end, (starts, counts) in _steps(pool, base, volume, offset // size, volume_end):
        end_offset = end * size
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            if changed and changed[-1].offset + changed[-1].length == start * size:
                joined = changed.pop()
                changed.append(ChangedExtent(offset=joined.offset, length=joined.length + count * size))
            elif len(changed) == DIFF_EXTENTS_MAX:
                end_offset = start * size
                break
            else:
                changed.append(ChangedExtent(offset=start * size, length=count * size))
        else:
            continue
        break
    return DiffReport(
        base=base,
        volume=volume,
        size_bytes=_volume(pool, volume).size_bytes,
        end_offset=end_offset,
        changed=tuple(changed),
    )


async def _steps(pool: Pool, base: str, volume: str, first: int, end: int) -> AsyncIterator[tuple[int, Runs]]:
    """Yield (end, runs) of pieces of tracks `first` to `end - 1` of `volume`, which may shrink or go meanwhile."""
    while first < min(end, _volume(pool, volume).track_count):
        stop = min(first + TRACKS_PER_STEP, end, _volume(pool, volume).track_count)
        yield stop, changed_runs(pool, _volume(pool, base), _volume(pool, volume), first, stop)
        first = stop
        await asyncio.sleep(0)


def _volume(pool: Pool, name: str) -> Volume:
    volume = pool.volumes.get(name)
    if volume is None:
        raise NotFoundError(
            f"no volume or copy {name!r} here; see `isochrone volume list` and `isochrone copy list`",
            name=name,
        )
    return volume


_NO_RUNS: Final[Runs] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
