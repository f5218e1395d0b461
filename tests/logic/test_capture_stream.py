"""One session's stream: promises, windows, progress and pruning, as its mover sees them (P2.3, P2.4, P3.1)."""

from __future__ import annotations

import pytest

from isochrone.capture.document import CaptureState
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Ack, Configure, CopyProgress, RecordSet, Resume, Suspended, WantedVolume
from isochrone.model.policy import SessionPolicy
from support.cores import MILLISECOND_NS, SECOND_NS, WINDOW_OPEN, PrimarySite, Replica, hello
from support.store import TRACK

SIZE = TRACK + 24


def progress(messages: list[object]) -> list[tuple[int, int, int]]:
    return [
        (volume.number, volume.tracks_remaining, volume.copied_through_ns)
        for message in messages
        if isinstance(message, CopyProgress)
        for volume in message.volumes
    ]


def test_the_initial_copy_brings_what_was_written_before_and_then_every_write() -> None:
    site = PrimarySite()
    site.write("a", 3, 7, 8)
    site.open_stream()
    replica = site.copied()
    assert replica.tags(1, 6) == [0, 0, 0, 7, 8, 0]
    site.write("a", 4, 9)
    site.trim("a", 3, 1)
    assert site.copied(replica=replica).tags(1, 6) == [0, 0, 0, 0, 9, 0]


def test_nothing_is_sent_before_the_mover_knows_the_volumes() -> None:
    site = PrimarySite()
    site.links.link_opened(1)
    site.say(1, hello())
    assert site.tick() == []
    site.say(1, Configure(1, [WantedVolume("a")], SessionPolicy()))
    assert any(isinstance(message, RecordSet) for message in site.tick())


def test_a_promise_never_runs_ahead_of_records_that_are_not_sent() -> None:
    site = PrimarySite()
    stream = site.open_stream(window_bytes=0)
    site.write("a", 0, 1)
    captured_ns = site.clock.ns
    for record_set in site.sets(ticks=5):
        assert (record_set.headers, record_set.payload) == (b"", b"")
        assert record_set.through_ns < captured_ns
    stream.acknowledged(Ack(0, WINDOW_OPEN, 0))
    (record_set,) = site.sets()
    assert len(record_set.payload) == TRACK
    assert record_set.through_ns >= captured_ns


def test_a_set_that_leaves_records_behind_promises_only_its_own() -> None:
    site = PrimarySite(settings=CaptureSettings(record_set_bytes_max=SIZE))
    site.open_stream(window_bytes=SIZE)
    site.write("a", 0, 1)
    site.write("a", 1, 2)
    first, *heartbeats = site.sets(ticks=4)
    replica = Replica()
    replica.receive(first)
    assert (replica.tags(1, 2), len(heartbeats)) == ([1, 0], 3)
    assert {heartbeat.through_ns for heartbeat in heartbeats} == {first.through_ns}


def test_heartbeats_go_on_while_the_window_is_closed() -> None:
    site = PrimarySite()
    site.open_stream(window_bytes=0)
    site.write("a", 0, 1)
    assert len(site.sets(ticks=10)) == 10


def test_heartbeats_come_at_the_interval_and_their_promises_rise() -> None:
    site = PrimarySite()
    site.open_stream()
    site.copied()
    promises = [
        m.through_ns
        for _ in range(20)
        for m in site.tick(advance_ns=MILLISECOND_NS)
        if isinstance(m, RecordSet)
    ]
    assert len(promises) == 2
    assert promises == sorted(set(promises))


@pytest.mark.parametrize("window_sets", [1, 3, 6])
def test_no_more_is_sent_than_the_window_allows_but_for_the_set_that_closes_it(window_sets: int) -> None:
    site = PrimarySite(settings=CaptureSettings(record_set_bytes_max=SIZE))
    site.open_stream(window_bytes=window_sets * SIZE - 1)
    for track in range(8):
        site.write("a", track, 1)
    sent = sum(len(m.headers) + len(m.payload) for m in site.sets(ticks=3))
    assert sent == window_sets * SIZE


def test_nothing_is_added_to_a_link_that_holds_too_much_already() -> None:
    site = PrimarySite(settings=CaptureSettings(link_pending_bytes_max=100))
    site.open_stream()
    site.write("a", 0, 1)
    site.clock.advance(10 * MILLISECOND_NS)
    site.links.link_pending_bytes(1, 100)
    site.primary.tick()
    assert all(not m.payload for m in site.take(1) if isinstance(m, RecordSet))
    assert any(m.payload for m in site.sets())


def test_records_of_a_volume_that_left_the_session_are_not_sent() -> None:
    site = PrimarySite(volumes={"a": 4, "b": 4})
    stream = site.open_stream(["a", "b"], window_bytes=0)
    site.write("a", 0, 1)
    site.write("b", 0, 2)
    site.say(1, Configure(1, [WantedVolume("b")], SessionPolicy()))
    stream.acknowledged(Ack(0, WINDOW_OPEN, 0))
    replica = site.copied()
    assert (replica.tags(1, 1), replica.tags(2, 1)) == ([0], [2])


def test_set_numbers_count_from_one_on_every_link() -> None:
    site = PrimarySite()
    site.open_stream()
    assert [m.sequence for m in site.sets(ticks=3)] == [1, 2, 3]
    site.open_stream(link=2)
    assert [m.sequence for m in site.sets(2, ticks=2)] == [1, 2]


def test_a_mover_that_returns_to_the_same_stream_gets_exactly_what_it_lacks() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    replica = site.copied()
    site.write("a", 0, 1)
    (received,) = site.sets()
    replica.receive(received)
    site.write("a", 1, 2)
    site.sets()  # lost on the way
    site.links.link_lost(1)
    site.write("a", 2, 3)
    greeting = hello(incarnation=stream.incarnation, received_through_ns=replica.through_ns)
    site.open_stream(link=2, greeting=greeting, not_empty=["a"])
    replica.record_count = 0
    assert site.copied(2, replica).tags(1, 3) == [1, 2, 3]
    assert replica.record_count == 2


def test_p2_4_a_write_to_a_track_still_to_be_copied_arrives_as_its_image_only() -> None:
    site = PrimarySite()
    site.write("a", 0, 1, 2, 3)
    site.open_stream()
    site.write("a", 1, 9)
    replica = site.copied()
    assert replica.tags(1, 3) == [1, 9, 3]
    assert replica.track_count == 3


def test_p2_3_a_write_across_copied_and_uncopied_tracks_is_wholly_there_in_the_end() -> None:
    site = PrimarySite(settings=CaptureSettings(copy_step_tracks_max=1, copy_ahead_bytes_max=4 * TRACK))
    site.write("a", 0, *range(1, 9))
    stream = site.open_stream(window_bytes=0)
    site.tick()
    remaining = stream.volumes[1].tracks_remaining
    assert 0 < remaining < 8
    site.write("a", 0, *range(11, 19))
    stream.acknowledged(Ack(0, WINDOW_OPEN, 0))
    replica = Replica()
    for _ in range(10):
        for record_set in site.sets():
            replica.receive(record_set)
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
    assert replica.tags(1, 8) == list(range(11, 19))


def test_images_never_take_more_than_the_copiers_share_of_the_side_file() -> None:
    settings = CaptureSettings(side_file_bytes_max=64 * TRACK, copy_step_tracks_max=2)
    site = PrimarySite(volumes={"a": 128}, settings=settings)
    for track in range(0, 128, 32):
        site.write("a", track, *range(1, 33))
    stream = site.open_stream(window_bytes=0)
    for _ in range(30):
        site.tick()
    assert stream.state is CaptureState.STREAMING
    assert 0 < stream.backlog.image_bytes <= settings.copy_share_bytes + 2 * SIZE


def test_the_copy_waits_while_the_side_file_is_nearly_full_of_writes() -> None:
    site = PrimarySite(volumes={"a": 64}, settings=CaptureSettings(side_file_bytes_max=16 * TRACK))
    site.write("a", 0, 1)
    stream = site.open_stream(window_bytes=0)
    for track in range(13):
        site.write("a", 40 + track, 2)
    site.tick()
    assert stream.backlog.image_bytes == 0
    assert stream.volumes[1].tracks_remaining == 1


def test_the_end_of_a_copy_is_told_at_once_with_a_time_not_before_its_last_image() -> None:
    site = PrimarySite()
    site.write("a", 0, 1, 2)
    site.open_stream()
    messages = site.tick()
    (record_set,) = [m for m in messages if isinstance(m, RecordSet)]
    ((number, remaining, copied_ns),) = progress(list(messages))
    assert (number, remaining) == (1, 0)
    image_ns = int.from_bytes(bytes(record_set.headers[:8]), "little")
    assert image_ns < copied_ns <= record_set.through_ns
    assert progress(list(site.tick())) == []


def test_progress_is_told_at_the_interval_while_tracks_remain() -> None:
    site = PrimarySite(volumes={"a": 200}, settings=CaptureSettings(copy_step_tracks_max=2), pool_tracks=512)
    for track in range(0, 200, 50):
        site.write("a", track, *([1] * 50))
    site.open_stream()
    told = [progress(list(site.tick())) for _ in range(10)]
    assert sum(map(bool, told)) <= 2


def test_p3_1_marks_stay_until_the_mover_has_hardened_what_they_stand_for() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    stream = site.open_stream()
    site.copied()
    site.write("a", 5, 1)
    replica = site.copied()
    assert site.marked() == {5}
    site.tick()
    assert site.marked() == {5}
    for _ in range(3):
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
        for record_set in site.sets():
            replica.receive(record_set)
    assert site.marked() == set()


def test_p3_1_the_marks_of_a_copy_stay_until_its_last_image_is_hardened() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    site.write("a", 2, 1, 2)
    stream = site.open_stream()
    replica = site.copied()
    for _ in range(3):
        for record_set in site.sets():
            replica.receive(record_set)
    assert site.marked() == {2, 3}
    stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
    site.tick()
    assert site.marked() == set()


def test_no_image_is_read_before_the_mover_says_which_volumes_it_wants() -> None:
    site = PrimarySite()
    site.write("a", 2, 1, 2)
    site.open_stream(window_bytes=0)
    site.restart()
    site.links.link_opened(1)
    site.say(1, hello())
    site.tick()
    stream = next(iter(site.primary.streams.values()))
    assert (stream.volumes[1].tracks_remaining, stream.backlog.held_bytes) == (2, 0)


def test_marks_are_toggled_no_more_often_than_the_interval() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=SECOND_NS))
    stream = site.open_stream()
    change_map = stream.volumes[1].change_map
    toggles = set()
    for _ in range(200):
        sets = site.sets()
        toggles.add(change_map.toggle_ns)
        stream.acknowledged(Ack(sets[-1].through_ns, WINDOW_OPEN, sets[-1].through_ns))
    assert 2 <= len(toggles - {None}) <= 4


def test_marks_are_toggled_early_when_many_tracks_were_captured() -> None:
    settings = CaptureSettings(prune_interval_ns=1000 * SECOND_NS, prune_tracks_max=4)
    site = PrimarySite(settings=settings)
    stream = site.open_stream()
    replica = site.copied()
    stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
    site.tick()
    change_map = stream.volumes[1].change_map
    assert change_map.toggle_ns is None
    site.write("a", 0, 1, 2, 3)
    site.tick()
    assert change_map.toggle_ns is None
    site.write("a", 0, 1)
    site.tick()
    assert change_map.toggle_ns is not None


def test_single_marks_are_discarded_while_their_generation_waits_for_its_last_write() -> None:
    settings = CaptureSettings(prune_interval_ns=0, discard_interval_ns=SECOND_NS)
    site = PrimarySite(settings=settings)
    stream = site.open_stream()
    replica = site.copied()
    for _ in range(3):
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
        for record_set in site.sets():
            replica.receive(record_set)
    site.write("a", 5, 1)
    first_ns = site.primary.stamper.last_ns
    site.write("a", 6, 1)
    site.tick()
    stream.acknowledged(Ack(first_ns, WINDOW_OPEN, first_ns))
    site.tick()
    assert site.marked() == {5, 6}
    site.clock.advance(2 * SECOND_NS)
    for _ in range(3):
        site.tick()
    assert site.marked() == {6}
    assert stream.document.hardened_record_ns == first_ns
    assert stream.pruner.counts.tracks_discarded == 1


def test_before_marks_are_cleared_the_time_that_proves_it_is_remembered() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    stream = site.open_stream()
    replica = site.copied()
    site.write("a", 5, 1)
    written_ns = site.primary.stamper.last_ns
    for _ in range(4):
        for record_set in site.sets():
            replica.receive(record_set)
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
    assert site.marked() == set()
    site.restart()
    assert site.primary.streams[stream.document.session_id].document.hardened_record_ns == written_ns


def test_p3_4_a_suspended_session_keeps_every_mark() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    stream = site.open_stream()
    replica = site.copied()
    site.write("a", 5, 1)
    site.tick()
    site.primary.suspend(stream, "enough")
    site.write("a", 6, 1)
    stream.acknowledged(Ack(replica.through_ns + SECOND_NS, WINDOW_OPEN, replica.through_ns + SECOND_NS))
    for _ in range(5):
        site.tick()
    assert site.marked() == {5, 6}


def test_suspended_names_the_last_promise_and_nothing_later_comes() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    (record_set,) = site.sets()
    site.write("a", 0, 1)
    site.primary.suspend(stream, "x" * 2000)
    (suspended,) = site.take(1)
    assert isinstance(suspended, Suspended)
    assert suspended.through_ns == record_set.through_ns
    assert len(suspended.reason) <= 1024
    assert site.sets(ticks=3) == []


def test_p2_6_a_resync_copies_what_was_written_meanwhile_and_no_more() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    stream = site.open_stream()
    site.write("a", 0, *range(1, 17))
    replica = site.copied()
    for _ in range(3):
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
        for record_set in site.sets():
            replica.receive(record_set)
    site.primary.suspend(stream, "x")
    site.write("a", 3, 99)
    site.trim("a", 4, 1)
    site.say(1, Resume())
    resynced = site.copied()
    assert (resynced.track_count, resynced.tags(1, 6)) == (2, [0, 0, 0, 99, 0, 0])
    assert stream.state is CaptureState.STREAMING


def test_the_smallest_copy_is_finished_first() -> None:
    site = PrimarySite(volumes={"big": 64, "small": 4}, settings=CaptureSettings(copy_step_tracks_max=2))
    site.write("big", 0, *([1] * 60))
    site.write("small", 0, 1, 2, 3, 4)
    stream = site.open_stream(["big", "small"])
    site.tick()
    assert stream.volumes[2].tracks_remaining == 0
    assert stream.volumes[1].tracks_remaining > 0


def test_a_volume_of_higher_priority_is_finished_before_smaller_ones() -> None:
    site = PrimarySite(volumes={"big": 64, "small": 4}, settings=CaptureSettings(copy_step_tracks_max=2))
    site.write("big", 0, *([1] * 60))
    site.write("small", 0, 1, 2, 3, 4)
    site.links.link_opened(1)
    site.say(1, hello())
    site.say(1, Configure(1, [WantedVolume("big", priority=1), WantedVolume("small")], SessionPolicy()))
    (stream,) = site.primary.streams.values()
    stream.acknowledged(Ack(0, WINDOW_OPEN, 0))
    site.tick()
    assert stream.volumes[2].tracks_remaining == 4
    assert stream.volumes[1].tracks_remaining < 60


def test_a_rate_limit_holds_images_back_and_may_be_lifted_while_they_are_copied() -> None:
    site = PrimarySite(volumes={"a": 64})
    site.write("a", 0, *([1] * 64))
    stream = site.open_stream(["a"])
    site.say(1, Configure(2, [WantedVolume("a")], SessionPolicy(copy_rate_bytes_max=1)))
    for _ in range(10):
        site.tick()
    assert stream.volumes[1].tracks_remaining >= 63
    site.say(1, Configure(3, [WantedVolume("a")], SessionPolicy()))
    for _ in range(10):
        site.tick()
    assert stream.volumes[1].tracks_remaining == 0
