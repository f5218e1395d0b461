"""The copier: every marked track once, at one time with the stream, and which writes beside it are sent (S2: P2.4, P2.6)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from xxhash import xxh3_128_digest

from isochrone.capture import copier as copier_module
from isochrone.capture.copier import Copier
from isochrone.model.records import RECORD_DTYPE, RecordBatch, RecordKind
from isochrone.store.volume import Volume
from isochrone.testing.sim_disk import Operation, SimDisk
from support.cores import SECOND_NS
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


def test_a_track_that_cannot_be_read_is_left_out_and_the_rest_is_copied() -> None:
    disk = SimDisk(seed=1)
    copier, volume = copier_on(disk, 1, 2, 3, 9, 12)
    disk.spoil_track(volume, 2)
    disk.spoil_track(volume, 12)
    copied = [row[1:3] for _ in range(6) if (batch := copier.step(10, 8)) for row in rows(batch)]
    assert copied == [(1, 1), (3, 1), (9, 1)]
    assert (copier.remaining, copier.unreadable_count) == (2, 2)
    assert copier.unreadable_runs(9) == [(2, 1), (12, 1)]
    assert copier.unreadable_runs(1) == [(2, 1)]
    assert copier.sendable_runs(3, 1) == [(3, 1)]


def test_an_unreadable_track_is_tried_again_ever_more_rarely_until_it_is_read() -> None:
    disk = SimDisk(seed=1)
    copier, volume = copier_on(disk, 2)
    disk.spoil_track(volume, 2)
    assert copier.step(0, 8) is None
    tries: list[int] = []

    def count(operation: Operation) -> None:
        tries.append(second)

    disk.hook = count
    for second in range(400):
        assert copier.reread(second * SECOND_NS) is None
    assert tries == [1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    disk.bad_sectors.heal()
    assert rows(copier.reread(500 * SECOND_NS)) == [(500 * SECOND_NS, 2, 1, DATA_IMAGE)]
    assert (copier.remaining, copier.unreadable_count, copier.unreadable_runs(9)) == (0, 0, [])


@pytest.mark.parametrize("heal", ["write", "trim"])
def test_a_write_or_trim_of_an_unreadable_track_has_it_read_again_at_once(heal: str) -> None:
    disk = SimDisk(seed=1)
    copier, volume = copier_on(disk, 2)
    disk.spoil_track(volume, 2)
    assert copier.step(10, 8) is None
    if heal == "write":
        volume.write(2 * TRACK, tracks(99))
    else:
        volume.zero(2 * TRACK, TRACK, allocate=False)
    assert copier.sendable_runs(2, 1) == []  # rule 1: the image to come contains it
    assert copier.unreadable_count == 0
    kind = DATA_IMAGE if heal == "write" else ZERO_IMAGE
    assert rows(copier.step(20, 8)) == [(20, 2, 1, kind)]


def comparing_copier(*suspected: int, to_copy: Iterable[int] = ()) -> tuple[Copier, Volume, SimDisk]:
    disk = SimDisk(seed=1)
    _, volume = copier_on(disk)
    wanted, doubtful = np.zeros(16, np.bool_), np.zeros(16, np.bool_)
    doubtful[list(suspected)] = True
    wanted[[*suspected, *to_copy]] = True
    return Copier(volume, wanted, TRACK, doubtful), volume, disk


def test_suspected_tracks_are_hashed_and_not_read_as_images() -> None:
    copier, volume, _ = comparing_copier(1, 2, 5, to_copy=[9])
    assert (copier.has_images, copier.has_suspects, copier.remaining) == (True, True, 4)
    assert rows(copier.step(10, 8)) == [(10, 9, 1, DATA_IMAGE)]
    assert copier.step(20, 8) is None
    asked = copier.ask(30, 2, seed=7)
    assert asked is not None
    assert asked.runs == [(1, 2)]
    assert asked.hashes == b"".join(
        xxh3_128_digest(volume.read(track * TRACK, TRACK), seed=7) for track in (1, 2)
    )
    assert copier.sendable_runs(0, 16) == [(0, 1), (3, 2), (6, 10)]


def test_p2_6_equal_tracks_are_done_and_those_that_differ_are_copied() -> None:
    copier, _, _ = comparing_copier(1, 2, 5)
    copier.ask(10, 9, seed=7)
    copier.answered(np.array([1, 2, 5]), np.array([False, True, False]))
    assert copier.sendable_runs(0, 6) == [(0, 2), (3, 3)]
    assert rows(copier.step(20, 9)) == [(20, 2, 1, DATA_IMAGE)]
    assert (copier.remaining, copier.compare_count.compared, copier.compare_count.equal) == (0, 3, 2)


def test_an_answer_equal_does_not_count_for_a_track_written_since() -> None:
    copier, volume, _ = comparing_copier(1)
    copier.ask(10, 9, seed=7)
    volume.write(TRACK, tracks(77))
    assert copier.sendable_runs(1, 1) == []
    copier.answered(np.array([1]), np.array([False]))
    batch = copier.step(20, 9)
    assert batch is not None
    assert batch.payload == tracks(77)


def test_a_suspected_track_that_cannot_be_read_is_no_part_of_the_query() -> None:
    copier, volume, disk = comparing_copier(1, 2, 3)
    disk.spoil_track(volume, 2)
    asked = copier.ask(10, 9, seed=7)
    assert asked is not None
    assert (asked.runs, len(asked.hashes)) == ([(1, 1), (3, 1)], 2 * 16)
    assert copier.unreadable_runs(9) == [(2, 1)]


def test_without_an_answer_a_track_is_asked_for_again() -> None:
    copier, _, _ = comparing_copier(1, 2)
    first = copier.ask(10, 9, seed=7)
    assert not copier.has_suspects
    copier.ask_again(np.array([1, 2]))
    assert copier.ask(20, 9, seed=7) == first


def test_p2_6_far_apart_tracks_are_found_without_reading_what_lies_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copier_module, "SCAN_TRACKS", 4)
    for far in range(5, 16):
        copier, _ = copier_of(0, far)
        assert rows(copier.step(10, 1)) == [(10, 0, 1, DATA_IMAGE)]
        assert rows(copier.step(20, 1)) == [(20, far, 1, DATA_IMAGE)]
        assert copier.step(30, 1) is None
