"""The copier: every marked track once, at one time with the stream, and which writes beside it are sent (S2: P2.4, P2.6)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from isochrone.capture import copier as copier_module
from isochrone.capture.copier import Copier
from isochrone.model.records import RECORD_DTYPE, RecordBatch, RecordKind
from isochrone.store.volume import Volume
from isochrone.testing.sim_disk import SimDisk, fail_nth
from support.store import TRACK, new_pool, tracks

DATA_IMAGE = int(RecordKind.DATA | RecordKind.IMAGE)
ZERO_IMAGE = int(RecordKind.IMAGE)


def copier_of(
    *to_copy: int, track_count: int = 16, written: Iterable[int] = range(16)
) -> tuple[Copier, Volume]:
    """A copier of the tracks `to_copy`; each of `written` holds its number plus 1."""
    return copier_on(SimDisk(seed=1), *to_copy, track_count=track_count, written=written)


def copier_on(
    disk: SimDisk, *to_copy: int, track_count: int = 16, written: Iterable[int] = range(16)
) -> tuple[Copier, Volume]:
    _, pool = new_pool(disk, track_count=64)
    volume = pool.create_volume("a", track_count * TRACK)
    for track in written:
        volume.write(track * TRACK, tracks(track + 1))
    flags = np.zeros(track_count, np.bool_)
    flags[list(to_copy)] = True
    return Copier(volume, flags, TRACK), volume


def rows(batch: RecordBatch | None) -> list[tuple[int, ...]]:
    """(time, track, count, kind) of a batch's records, checked against its frame."""
    assert batch is not None
    records = np.frombuffer(batch.headers, RECORD_DTYPE)
    assert batch.record_count == len(records)
    assert set(records["volume"].tolist()) == {batch.volume}
    return [(time, track, count, kind) for time, _, track, count, kind in records.tolist()]


def test_marked_tracks_are_read_in_order_as_runs() -> None:
    copier, _ = copier_of(1, 2, 3, 7, 9, 10)
    batch = copier.step(50, 100)
    assert rows(batch) == [(50, 1, 3, DATA_IMAGE), (50, 7, 1, DATA_IMAGE), (50, 9, 2, DATA_IMAGE)]
    assert batch is not None
    assert (batch.first_time_ns, batch.last_time_ns) == (50, 50)
    assert batch.payload == tracks(2, 3, 4, 8, 10, 11)


def test_a_step_reads_no_more_tracks_than_allowed_and_the_next_goes_on_behind_it() -> None:
    copier, _ = copier_of(1, 2, 3, 7)
    assert rows(copier.step(10, 2)) == [(10, 1, 2, DATA_IMAGE)]
    assert copier.remaining == 2
    assert rows(copier.step(20, 2)) == [(20, 3, 1, DATA_IMAGE), (20, 7, 1, DATA_IMAGE)]
    assert copier.remaining == 0
    assert copier.step(30, 2) is None


def test_an_image_holds_what_the_volume_holds_at_the_step() -> None:
    copier, volume = copier_of(1)
    volume.write(TRACK, tracks(99))
    batch = copier.step(10, 1)
    assert batch is not None
    assert batch.payload == tracks(99)


def test_unmapped_tracks_travel_as_zeros_without_payload() -> None:
    copier, _ = copier_of(0, 1, 2, 3, written=[1])
    batch = copier.step(10, 100)
    assert rows(batch) == [(10, 0, 1, ZERO_IMAGE), (10, 1, 1, DATA_IMAGE), (10, 2, 2, ZERO_IMAGE)]
    assert batch is not None
    assert batch.payload == tracks(2)


def test_nothing_to_copy_is_nothing() -> None:
    copier, _ = copier_of()
    assert copier.remaining == 0
    assert copier.step(10, 1) is None


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ((0, 1), [(0, 1)]),
        ((4, 1), []),
        ((4, 2), []),
        ((3, 2), [(3, 1)]),
        ((5, 2), [(6, 1)]),
        ((3, 4), [(3, 1), (6, 1)]),
        ((0, 16), [(0, 4), (6, 3), (10, 6)]),
        ((9, 1), []),
    ],
)
def test_a_write_is_sent_where_no_image_of_it_is_still_to_come(
    written: tuple[int, int], sent: list[tuple[int, int]]
) -> None:
    copier, _ = copier_of(4, 5, 9)
    assert copier.sendable_runs(*written) == sent


def test_p2_4_once_a_track_was_copied_its_writes_are_sent_again() -> None:
    copier, _ = copier_of(4, 5)
    copier.step(10, 1)
    assert copier.sendable_runs(4, 2) == [(4, 1)]
    copier.step(20, 1)
    assert copier.sendable_runs(4, 2) == [(4, 2)]


def test_a_track_that_cannot_be_read_is_not_counted_as_copied_and_is_read_again() -> None:
    disk = SimDisk(seed=1)
    copier, _ = copier_on(disk, 1, 2, 3, 9)
    disk.hook = fail_nth(1, kind="read")
    with pytest.raises(OSError, match="simulated"):
        copier.step(10, 2)
    assert copier.remaining == 4
    assert copier.sendable_runs(1, 3) == []
    copied: list[int] = []
    while (batch := copier.step(20, 2)) is not None:
        copied += [track for _, first, count, _ in rows(batch) for track in range(first, first + count)]
    assert sorted(copied) == [1, 2, 3, 9]


def test_p2_6_far_apart_tracks_are_found_without_reading_what_lies_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copier_module, "SCAN_TRACKS", 4)
    for far in range(5, 16):
        copier, _ = copier_of(0, far)
        assert rows(copier.step(10, 1)) == [(10, 0, 1, DATA_IMAGE)]
        assert rows(copier.step(20, 1)) == [(20, far, 1, DATA_IMAGE)]
        assert copier.step(30, 1) is None
