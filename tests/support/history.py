"""Plain models of a session's history, and pools to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

from isochrone.model.records import RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history_keeper import Rewinding, VolumeImages
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume
from support.store import TRACK, records, tracks

SESSION = 7


def put(pool: Pool, time_ns: int, number: int, track: int, *tags: int, source: int = 0) -> None:
    """Stage one record of DATA tracks, each filled with its tag."""
    row = (time_ns, number, track, len(tags), RecordKind.DATA)
    pool.stage(SESSION, source, time_ns, records(row), tracks(*tags))


def put_zeros(pool: Pool, time_ns: int, number: int, track: int, count: int, *, source: int = 0) -> None:
    """Stage one record of ZERO tracks."""
    pool.stage(SESSION, source, time_ns, records((time_ns, number, track, count, RecordKind.ZERO)), b"")


Value = TypeVar("Value")


def finish(steps: Generator[Callable[[], None], None, Value]) -> Value:
    """Make all calls of a generator; return its value."""
    try:
        while True:
            next(steps)()
    except StopIteration as end:
        value: Value = end.value
        return value


def made(steps: VolumeImages) -> list[Volume]:
    """Make all calls of `Pool.history_image`; return the volumes."""
    return finish(steps)


def rewound(steps: Rewinding) -> dict[int, list[int]]:
    """Make all calls of `Pool.history_rewind`; return the changed tracks as lists."""
    return {number: changed.tolist() for number, changed in finish(steps).items()}


def image(
    pool: Pool, at_ns: int, names: Mapping[int, str], kind: VolumeKind = VolumeKind.COPY
) -> list[Volume]:
    """Make the image of SESSION at a time."""
    return made(pool.history_image(SESSION, at_ns, names, kind))


def shown(volume: Volume) -> list[int]:
    """First byte of each track of a volume."""
    return list(volume.read(0, volume.size_bytes)[::TRACK])


def shown_at(pool: Pool, at_ns: int, number: int, name: str = "looked-at") -> list[int]:
    """First byte of each track of volume `number` as it was at a time; leaves nothing behind."""
    (volume,) = image(pool, at_ns, {number: name})
    tags = shown(volume)
    pool.delete_volume(name)
    return tags
