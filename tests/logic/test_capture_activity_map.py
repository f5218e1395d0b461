"""Activity maps and the threads that sync them."""

from __future__ import annotations

from isochrone.capture.activity_map import ActivityMap
from isochrone.capture.change_map import ChangeMap
from isochrone.store.disk import File
from isochrone.testing.sim_disk import SimDisk

NAME = "activity-x-7"


def idle_map(disk: SimDisk) -> ActivityMap:
    """Return a map without an active region."""
    activity = ActivityMap(disk, NAME, 7, 64, 4, File.datasync, is_new=True)
    activity._store(list(range(activity.region_count)), 0)
    activity._active[:] = bytes(activity.region_count)
    activity.active_count = 0
    return activity


def test_a_volume_may_leave_while_a_thread_syncs_its_map() -> None:
    disk = SimDisk()
    activity = idle_map(disk)
    assert not activity.ask(3, 8)
    steps = activity.activate()
    sync = next(steps)
    activity.remove()
    sync()  # would fail on a closed file, and the pool would take it for the device
    assert list(steps) == []
    assert NAME not in disk.names()


def test_a_map_that_left_before_its_turn_is_not_synced() -> None:
    activity = idle_map(SimDisk())
    assert not activity.ask(3, 8)
    steps = activity.activate()
    activity.remove()
    assert list(steps) == []


def test_a_region_is_not_given_up_while_a_sync_is_under_way_that_makes_it_active() -> None:
    disk = SimDisk()
    activity = idle_map(disk)
    marks = ChangeMap(SimDisk(), "changes-x-7", 7, 64)
    assert not activity.ask(8, 1)
    activity.enter(8, 1)  # somebody who could not wait
    steps = activity.activate()
    sync = next(steps)
    for now_ns in (1, 2, 3):
        activity.begin_trim(now_ns, 0)
        activity.end_trim(marks, 0)
    sync()
    assert list(steps) == []
    assert activity.ask(8, 1)
    reopened = ActivityMap(disk, NAME, 7, 64, 4, File.datasync)
    assert reopened.suspected()[8]
