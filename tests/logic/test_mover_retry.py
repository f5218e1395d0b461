"""Tracks that the device does not take wait and are tried again; times stop before them, everything else goes on (S6)."""

from __future__ import annotations

import errno

import numpy as np

from isochrone.mover.mover import Mover, ReceivedSet
from isochrone.mover.settings import MoverSettings
from isochrone.mover.waiting import RETRY_NS_MAX
from isochrone.store.pool import Pool
from isochrone.store.superblock import TRACKS_NAME
from isochrone.testing.device_trouble import BadSpots
from isochrone.testing.sim_disk import SimDisk
from support.cores import IDLE_LOG, MILLISECOND_NS, SECOND_NS, data, form_and_harden, heartbeat
from support.store import TRACK, new_pool, run, tags


class Site:
    """A mover of primaries 0 and 1 over volumes "a" (of 0) and "b" (of 1), on a device that can be troubled."""

    def __init__(self, settings: MoverSettings = IDLE_LOG) -> None:
        self.disk = SimDisk(seed=1)
        self.settings = settings
        _, self.pool = new_pool(self.disk, track_count=256)
        self.pool.create_volume("a", 16 * TRACK)
        self.pool.create_volume("b", 16 * TRACK)
        self.now_ns = SECOND_NS
        self._start()
        for source in (0, 1):
            self.mover.receive(source, heartbeat(1))

    def _start(self) -> None:
        self.mover = Mover(self.pool, 1, self.settings)
        for source in (0, 1):
            self.mover.add_source(source)

    def restart(self) -> None:
        """kill -9."""
        self.disk.kill()
        self.pool = Pool.open(self.disk)
        self._start()

    def trouble(self, number: int = errno.EIO, until_ns: int | None = None) -> BadSpots:
        spots = BadSpots(TRACKS_NAME, ((0, 256 * TRACK),), lambda: self.now_ns, number, until_ns)
        self.disk.trouble = spots
        return spots

    def refuse(self, time_ns: int, track: int, tag: int) -> None:
        """A write of primary 0 comes, and the device does not take it."""
        self.trouble()
        self.mover.receive(0, data(time_ns, track, tag))
        self.disk.trouble = None

    def tick(self, advance_ns: int = 20 * MILLISECOND_NS) -> None:
        """Retry, form, harden and commit, as a session does."""
        self.now_ns += advance_ns
        self.mover.retry_waiting(self.now_ns)
        form_and_harden(self.mover, self.pool, self.now_ns)
        self.mover.commit(self.mover.journal_ns)

    def settle(self) -> None:
        for _ in range(3):
            self.tick()


def test_p6_2_other_tracks_and_later_writes_go_on_while_one_waits() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.mover.receive(0, data(20, 1, 2))
    site.mover.receive(0, data(30, 0, 3))
    assert site.pool.staged_count(1) == 2
    assert site.mover.waiting_summary().track_count == 1
    assert site.mover.full_reason == ""


def test_times_stop_before_the_oldest_that_waits_and_go_on_when_it_is_stored() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.trouble()
    site.mover.receive(0, heartbeat(50))
    site.mover.receive(1, heartbeat(50))
    site.settle()
    mover = site.mover
    assert (mover.consistency_ns, mover.journal_ns, mover.form_ns, mover.hardened_ns(0)) == (9, 9, 9, 9)
    assert mover.waiting_ns == 10
    site.disk.trouble = None
    site.tick(2 * RETRY_NS_MAX)
    assert (mover.consistency_ns, mover.journal_ns, mover.form_ns) == (50, 50, 50)
    assert mover.waiting_summary().track_count == 0
    assert tags(site.pool, "a", 1) == [1]


def test_p6_1_an_older_image_never_overwrites_a_newer_one_however_late_it_is_stored() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.mover.receive(0, data(20, 0, 2))
    site.refuse(30, 0, 3)
    site.mover.receive(0, data(40, 0, 4))
    site.mover.receive(1, heartbeat(50))
    seen = []
    site.mover.retry_waiting(site.now_ns)
    form_and_harden(site.mover, site.pool, site.now_ns)
    for limit_ns in (9, 10, 20, 30, 40):
        site.mover.commit(limit_ns)
        seen.append(tags(site.pool, "a", 1))
    assert seen == [[0], [1], [2], [3], [4]]


def test_a_kill_loses_nothing_the_primary_is_asked_for_what_only_memory_held() -> None:
    site = Site()
    site.mover.receive(0, data(5, 3, 5))
    site.refuse(10, 0, 1)
    site.mover.receive(0, data(20, 0, 2))
    site.mover.receive(1, heartbeat(50))
    site.trouble()
    site.settle()
    site.disk.trouble = None
    site.restart()
    assert site.mover.sources[0].taken_ns == 9
    assert site.pool.staged_count(1) == 0
    for received in (data(10, 0, 1), data(20, 0, 2), heartbeat(50)):
        site.mover.receive(0, received)
    site.mover.receive(1, heartbeat(50))
    site.settle()
    assert (site.mover.consistency_ns, tags(site.pool, "a", 4)) == (50, [2, 0, 0, 5])


def test_records_of_a_batch_that_comes_again_are_staged_once() -> None:
    site = Site()
    site.mover.receive(0, data(10, 0, 1))
    site.mover.continue_stream(0)
    both = data(10, 0, 9)
    more = data(20, 1, 2)
    both = ReceivedSet(
        20, np.concatenate([both.records, more.records]), bytes(both.payload) + bytes(more.payload)
    )
    site.mover.receive(0, both)
    site.mover.receive(1, heartbeat(50))
    site.settle()
    assert tags(site.pool, "a", 2) == [1, 2]


def test_a_link_that_opens_anew_does_not_have_the_primary_send_what_waits_here() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.mover.restart_window(0)
    assert (site.mover.sources[0].taken_ns, site.mover.sources[0].through_ns) == (10, 9)


def test_a_new_stream_copies_what_waits_so_it_goes() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.mover.begin_stream(0)
    assert (site.mover.waiting_ns, site.mover.sources[0].taken_ns) == (None, 9)
    site.mover.receive(0, data(60, 0, 6))
    site.mover.receive(1, heartbeat(60))
    site.settle()
    assert tags(site.pool, "a", 1) == [6]


def test_what_waits_of_a_volume_that_leaves_goes_with_it() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.mover.forget_volume(1)
    assert site.mover.waiting_ns is None
    assert site.mover.sources[0].through_ns == 10


def test_tries_that_store_nothing_come_less_and_less_often() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.trouble()
    for _ in range(1000):
        site.tick(10 * MILLISECOND_NS)
    assert 10 < site.mover.retry_count < 25
    site.disk.trouble = None
    site.tick(2 * RETRY_NS_MAX)
    assert site.mover.waiting_ns is None


def test_p6_5_after_the_trouble_everything_is_stored_in_bounded_time() -> None:
    site = Site()
    site.trouble()
    for number in range(16):
        site.mover.receive(0, data(10 + number, number, number + 1))
    for _ in range(20):
        site.tick()
    assert site.mover.waiting_summary().track_count == 16
    site.disk.trouble = None
    began_ns = site.now_ns
    while site.mover.waiting_ns is not None:
        site.tick(5 * MILLISECOND_NS)
        assert site.now_ns - began_ns <= 2 * RETRY_NS_MAX
    site.mover.receive(1, heartbeat(50))
    site.mover.receive(0, heartbeat(50))
    site.settle()
    assert tags(site.pool, "a", 16) == list(range(1, 17))


def test_what_waits_is_bounded_past_the_limit_the_stream_waits() -> None:
    site = Site(MoverSettings(waiting_bytes_max=2 * TRACK))
    site.trouble()
    for number in range(5):
        site.mover.receive(0, data(10 + number, number, 1))
    summary = site.mover.waiting_summary()
    assert summary.track_count == 2
    assert len(site.mover.sources[0].waiting) == 3
    assert "too many tracks wait" in site.mover.full_reason
    site.disk.trouble = None
    site.mover.retry_waiting(site.now_ns)
    site.mover.stage_waiting()
    assert (site.mover.waiting_ns, site.mover.full_reason, site.mover.form_ns) == (None, "", 1)


def test_a_device_without_space_makes_tracks_wait_and_the_pool_takes_writes_on() -> None:
    site = Site()
    site.trouble(errno.ENOSPC)
    site.mover.receive(0, data(10, 0, 1))
    assert "space" in site.mover.waiting_summary().reason
    assert site.pool.read_only_reason is None
    site.disk.trouble = None
    site.mover.retry_waiting(site.now_ns)
    assert site.mover.waiting_ns is None


def test_while_times_stand_still_behind_a_track_no_sync_is_spent_on_them() -> None:
    site = Site()
    site.refuse(10, 0, 1)
    site.trouble()
    site.settle()
    count = site.pool.stats().sync_count
    for _ in range(50):
        site.tick(10 * MILLISECOND_NS)
    assert site.pool.stats().sync_count - count <= 2


def test_the_summary_says_which_volumes_have_how_many_tracks_waiting_and_since_when() -> None:
    site = Site()
    site.mover.retry_waiting(site.now_ns)
    site.refuse(10, 0, 1)
    site.refuse(20, 0, 2)
    site.refuse(30, 5, 2)
    summary = site.mover.waiting_summary()
    assert (summary.track_count, dict(summary.by_volume), summary.since_ns) == (2, {1: 2}, site.now_ns)
    assert summary.size_bytes == 3 * (TRACK + 24)
    assert site.mover.waiting_summary(without=[0]).track_count == 0


def test_a_full_pool_is_timed_and_progress_starts_the_time_anew() -> None:
    site = Site()
    site.pool.create_volume("c", 300 * TRACK)
    while site.pool.free_track_count > 4:
        free = site.pool.free_track_count
        site.pool.volumes["c"].write((256 - free) * TRACK, bytes(TRACK))
    site.mover.receive(1, heartbeat(100))
    site.mover.receive(0, data(10, 0, 1, 2, 3))
    site.mover.receive(0, data(20, 4, 1, 2, 3))
    site.tick()
    since_ns = site.mover.no_room_since_ns
    assert since_ns == site.now_ns
    site.tick()
    assert site.mover.no_room_since_ns == since_ns
    site.pool.delete_volume("c")
    run(site.pool.sync())
    site.mover.stage_waiting()
    site.tick()
    assert site.mover.no_room_since_ns is None
