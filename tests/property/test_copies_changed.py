"""For every history of a volume: what a client is not told as changed is equal, and the answer covers what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.controller import copy_views
from isochrone.controller.copy_views import ChangedMap
from isochrone.model.volume_kind import VolumeKind
from isochrone.nbd import constants as c
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume
from isochrone.store.volume_set import CopyItem
from support.store import TRACK, new_pool, tracks

TRACKS = 2100
"""Three pages of the table, the last one short."""

track_ranges = st.tuples(st.integers(0, TRACKS - 1), st.integers(1, 40)).map(
    lambda pair: (pair[0], min(pair[1], TRACKS - pair[0]))
)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("write"), track_ranges, st.integers(1, 255)),
        st.tuples(st.just("trim"), track_ranges),
        st.tuples(st.just("part"), st.integers(0, TRACKS - 1), st.integers(1, TRACK - 1)),
        st.tuples(st.just("copy")),
        st.tuples(st.just("resize"), st.integers(1, TRACKS + 1100)),
    ),
    max_size=12,
)


def do(pool: Pool, change: tuple[object, ...], number: int) -> None:
    """Make one change to volume v, within its present size."""
    volume = pool.volumes["v"]
    match change:
        case ("write", (int(first), int(count)), int(tag)) if first + count <= volume.track_count:
            volume.write(first * TRACK, tracks(*[tag] * count))
        case ("trim", (int(first), int(count))) if first + count <= volume.track_count:
            volume.zero(first * TRACK, count * TRACK, allocate=False)
        case ("part", int(first), int(length)) if first < volume.track_count:
            volume.write(first * TRACK, b"p" * length)
        case ("copy",):
            pool.create_copies([CopyItem("v", f"v@{number}", VolumeKind.SNAPSHOT)])
        case ("resize", int(count)):
            pool.resize_volume("v", count * TRACK)


def pairs(pool: Pool) -> Iterator[tuple[str, str]]:
    """Every copy, with every later one and the volume."""
    copies = [name for name in pool.volumes if name != "v"]
    for position, base in enumerate(copies):
        for later in [*copies[position + 1 :], "v"]:
            yield base, later


def check_extents(states: ChangedMap, older: Volume, volume: Volume, offset: int, length: int) -> None:
    """What is told of a range covers it, and is equal where it says so."""
    position = offset
    for run, flags in states.extents(offset, length):
        assert run > 0
        if flags != c.STATE_CHANGED:
            assert flags == 0
            assert position + run <= older.size_bytes
            assert volume.read(position, run) == older.read(position, run)
        position += run
    assert position == offset + length


@settings(max_examples=60, deadline=None)
@given(history=changes, start=st.integers(0, TRACKS * TRACK - 1), length=st.integers(1, TRACKS * TRACK))
def test_what_is_not_told_as_changed_is_equal(
    history: list[tuple[object, ...]], start: int, length: int
) -> None:
    _, pool = new_pool(track_count=2048)
    pool.create_volume("v", TRACKS * TRACK).write(0, tracks(1, 2, 3))
    pool.create_copies([CopyItem("v", "v@first", VolumeKind.SNAPSHOT)])
    for number, change in enumerate(history):
        do(pool, change, number)
    with patch.object(copy_views, "PIECE_TRACKS_MIN", 5), patch.object(copy_views, "PIECE_TRACKS_MAX", 700):
        for base, later in pairs(pool):
            volume, older = pool.volumes[later], pool.volumes[base]
            offset = start % volume.size_bytes
            ranges = ((0, volume.size_bytes), (offset, min(length, volume.size_bytes - offset)))
            for position, wanted in ranges:
                check_extents(ChangedMap(pool, older, volume, lambda: None), older, volume, position, wanted)


def test_a_change_of_one_byte_is_told_as_one_track() -> None:
    _, pool = new_pool()
    pool.create_volume("v", 8 * TRACK).write(0, tracks(*[1] * 8))
    pool.create_copies([CopyItem("v", "v@first", VolumeKind.SNAPSHOT)])
    pool.volumes["v"].write(3 * TRACK + 7, b"x")
    told = ChangedMap(pool, pool.volumes["v@first"], pool.volumes["v"], lambda: None).extents(0, 8 * TRACK)
    assert list(told) == [(3 * TRACK, 0), (TRACK, c.STATE_CHANGED), (4 * TRACK, 0)]
