"""Change maps: two generations, freeze and thaw, and what survives the death of the process (S3: P3.1, P3.2, P3.4)."""

from __future__ import annotations

import struct
from random import Random

import numpy as np
import pytest

from isochrone.capture.change_map import HEADER_SIZE_BYTES, REGION_TRACKS, ChangeMap, change_map_name
from isochrone.model.errors import DamagedError
from isochrone.testing.sim_disk import SimDisk

NAME = change_map_name("5e" * 16, 7)


def new_map(track_count: int = 32, disk: SimDisk | None = None, *, thawed: bool = True) -> ChangeMap:
    change_map = ChangeMap(disk or SimDisk(seed=1), NAME, 7, track_count)
    if thawed:
        change_map.thaw(0)
        change_map.release(0)
    return change_map


def marks(change_map: ChangeMap) -> list[int]:
    found = np.flatnonzero(change_map.marked()).tolist()
    assert change_map.marked_count == len(found)
    return found


def test_a_new_map_is_empty_frozen_and_says_that_it_is_new() -> None:
    change_map = new_map(thawed=False)
    assert (marks(change_map), change_map.frozen, change_map.was_created) == ([], True, True)


@pytest.mark.parametrize("run", [(0, 1), (31, 1), (0, 32), (5, 3)])
def test_a_mark_covers_exactly_its_run(run: tuple[int, int]) -> None:
    change_map = new_map()
    change_map.mark(*run)
    assert marks(change_map) == list(range(run[0], run[0] + run[1]))


def test_marks_beyond_the_first_region_are_counted_released_and_kept_apart() -> None:
    change_map = new_map(2 * REGION_TRACKS + 5)
    runs = [(REGION_TRACKS - 1, 2), (2 * REGION_TRACKS + 4, 1)]
    for run in runs:
        change_map.mark(*run)
    assert marks(change_map) == [REGION_TRACKS - 1, REGION_TRACKS, 2 * REGION_TRACKS + 4]
    change_map.toggle(10)
    change_map.mark(REGION_TRACKS, 1)
    change_map.release(10)
    assert marks(change_map) == [REGION_TRACKS]


def test_suspect_all_and_mark_where_mark_what_they_say() -> None:
    change_map = new_map(5)
    change_map.mark_where(np.array([True, False, False, True, False]))
    assert marks(change_map) == [0, 3]
    change_map.suspect_all()
    assert marks(change_map) == [0, 1, 2, 3, 4]


def suspects(change_map: ChangeMap) -> list[int]:
    return list(np.flatnonzero(change_map.suspected()))


def test_a_mark_is_only_suspected_until_a_write_makes_it_certain() -> None:
    change_map = new_map(5, thawed=False)
    change_map.mark(1, 1)
    change_map.suspect_where(np.array([True, True, True, False, False]))
    assert (marks(change_map), suspects(change_map)) == ([0, 1, 2], [0, 2])
    change_map.mark(2, 1)
    assert (marks(change_map), suspects(change_map)) == ([0, 1, 2], [0])


def test_suspicion_survives_a_kill_and_ends_when_all_is_copied() -> None:
    disk = SimDisk(seed=1)
    new_map(5, disk).suspect_all()
    disk.kill()
    change_map = new_map(5, disk, thawed=False)
    assert suspects(change_map) == [0, 1, 2, 3, 4]
    change_map.thaw(100)
    assert (marks(change_map), suspects(change_map)) == ([0, 1, 2, 3, 4], [])
    change_map.release(100)
    assert marks(change_map) == []


def test_after_a_copy_that_found_tracks_equal_no_single_mark_is_discarded() -> None:
    change_map = new_map(5, thawed=False)
    change_map.suspect_all()
    change_map.thaw(100, found_equal=True)
    assert change_map.discard(np.zeros(5, np.bool_), 0, 5) == 0
    assert marks(change_map) == [0, 1, 2, 3, 4]
    change_map.release(100)
    change_map.mark(1, 2)
    change_map.toggle(200)
    assert change_map.discard(np.zeros(5, np.bool_), 0, 5) == 2


def test_a_release_takes_no_suspicion_away() -> None:
    change_map = new_map(5)
    change_map.mark(1, 2)
    change_map.suspect_where(np.array([False, True, False, False, False]))
    change_map.toggle(10)
    change_map.release(10)
    assert (marks(change_map), suspects(change_map)) == ([1], [1])


def test_p3_2_a_mark_goes_once_the_hardened_time_reaches_its_toggle_and_no_sooner() -> None:
    change_map = new_map()
    change_map.mark(1, 2)
    assert change_map.toggle(100)
    assert not change_map.release(99)
    assert marks(change_map) == [1, 2]
    assert change_map.release(100)
    assert marks(change_map) == []


def test_p3_1_a_track_written_again_after_the_toggle_stays_marked() -> None:
    change_map = new_map()
    change_map.mark(1, 2)
    change_map.toggle(100)
    change_map.mark(2, 2)
    change_map.release(100)
    assert marks(change_map) == [2, 3]
    assert change_map.toggle(200)
    change_map.release(200)
    assert marks(change_map) == []


def test_p3_1_a_map_is_never_toggled_twice_without_a_release() -> None:
    change_map = new_map()
    change_map.mark(1, 1)
    assert change_map.toggle(100)
    change_map.mark(2, 1)
    assert not change_map.toggle(200)
    assert change_map.toggle_ns == 100
    change_map.release(150)
    assert marks(change_map) == [2]


def test_a_release_without_a_toggle_clears_nothing() -> None:
    change_map = new_map()
    change_map.mark(1, 1)
    assert not change_map.release(1 << 60)
    assert marks(change_map) == [1]


def test_p3_4_a_frozen_map_is_neither_toggled_nor_released() -> None:
    change_map = new_map()
    change_map.mark(1, 1)
    change_map.toggle(100)
    change_map.freeze()
    assert not change_map.release(1 << 60)
    assert not change_map.toggle(200)
    assert marks(change_map) == [1]


def test_thaw_makes_every_mark_of_either_generation_wait_for_the_last_image() -> None:
    change_map = new_map()
    change_map.mark(1, 1)
    change_map.toggle(50)
    change_map.mark(2, 1)
    change_map.freeze()
    change_map.mark(3, 1)
    change_map.thaw(100)
    assert (change_map.frozen, change_map.toggle_ns) == (False, 100)
    assert not change_map.release(99)
    assert marks(change_map) == [1, 2, 3]
    change_map.mark(3, 1)
    assert change_map.release(100)
    assert marks(change_map) == [3]


def test_p3_1_marks_survive_a_kill_of_the_process_and_come_back_frozen() -> None:
    disk = SimDisk(seed=1)
    change_map = new_map(disk=disk)
    change_map.mark(1, 1)
    change_map.toggle(100)
    change_map.mark(2, 1)
    disk.kill()
    change_map = new_map(disk=disk, thawed=False)
    assert (marks(change_map), change_map.frozen, change_map.was_created) == ([1, 2], True, False)
    assert not change_map.release(1 << 60)
    change_map.thaw(300)
    change_map.mark(2, 1)
    change_map.release(300)
    assert marks(change_map) == [2]


def test_a_map_opened_for_a_bigger_volume_keeps_every_mark_and_adds_unmarked_tracks() -> None:
    disk = SimDisk(seed=1)
    change_map = new_map(8, disk)
    change_map.mark(7, 1)
    change_map.close()
    change_map = new_map(REGION_TRACKS + 8, disk, thawed=False)
    assert marks(change_map) == [7]
    change_map.mark(REGION_TRACKS + 7, 1)
    assert marks(change_map) == [7, REGION_TRACKS + 7]


def test_tracks_cut_off_and_grown_again_are_unmarked() -> None:
    disk = SimDisk(seed=1)
    change_map = new_map(8, disk)
    change_map.mark(2, 6)
    for track_count in (4, 8):
        change_map.close()
        change_map = new_map(track_count, disk, thawed=False)
        assert marks(change_map) == [2, 3]


def test_a_closed_map_keeps_its_marks_and_a_removed_one_is_gone() -> None:
    disk = SimDisk(seed=1)
    change_map = new_map(disk=disk)
    change_map.mark(1, 1)
    change_map.close()
    change_map = new_map(disk=disk, thawed=False)
    assert marks(change_map) == [1]
    change_map.remove()
    assert disk.names() == []


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<8sIIQ", b"ISOCHMAP", 1, 8, 0),
        struct.pack("<8sIIQ", b"ISOCHMAP", 2, 7, 0),
        struct.pack("<8sIIQ", b"ISOCHMAX", 1, 7, 0),
    ],
    ids=["another volume", "another version", "no map"],
)
def test_a_header_that_is_not_this_maps_is_refused_and_the_message_says_what_to_do(header: bytes) -> None:
    disk = SimDisk(seed=1)
    new_map(disk=disk).close()
    disk.open(NAME).pwrite(header, 0)
    with pytest.raises(DamagedError, match="remove the file and restart"):
        ChangeMap(disk, NAME, 7, 32)
    assert disk.open(NAME).pread(len(header), 0) == header


@pytest.mark.parametrize("size_bytes", [0, 100, HEADER_SIZE_BYTES, HEADER_SIZE_BYTES + 32])
def test_a_file_that_lost_its_header_counts_as_new(size_bytes: int) -> None:
    disk = SimDisk(seed=1)
    disk.open(NAME, create=True).truncate(size_bytes)
    change_map = ChangeMap(disk, NAME, 7, 32)
    assert change_map.was_created
    assert marks(change_map) == []


def test_p3_1_a_map_in_use_when_the_machine_died_marks_everything() -> None:
    disk = SimDisk(seed=1)
    new_map(disk=disk)
    disk.power_loss(Random(3))
    assert marks(ChangeMap(disk, NAME, 7, 4, is_known=True)) == [0, 1, 2, 3]


def test_marks_closed_durably_are_believed_after_a_power_loss() -> None:
    disk = SimDisk(seed=1)
    change_map = new_map(disk=disk)
    change_map.mark(1, 2)
    change_map.close_durably()
    disk.sync()
    disk.power_loss(Random(3))
    assert marks(ChangeMap(disk, NAME, 7, 32, is_known=True)) == [1, 2]


def test_a_missing_map_that_a_session_names_marks_everything() -> None:
    assert marks(ChangeMap(SimDisk(seed=1), NAME, 7, 3, is_known=True)) == [0, 1, 2]
