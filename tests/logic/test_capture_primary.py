"""The door of application writes: mark, write, stamp, acknowledge; and what becomes of a write that fails (P2.3)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest

from isochrone.capture.document import CaptureState
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import (
    Ack,
    Configure,
    CopyProgress,
    Fence,
    Forget,
    Message,
    Quiesce,
    RecordSet,
    Suspended,
    TrackRun,
    Unquiesce,
    VolumeCopy,
    WantedVolume,
)
from isochrone.model.choices import OverflowPolicy
from isochrone.model.errors import (
    ConflictError,
    DamagedError,
    NotFoundError,
    PoolFullError,
    PoolReadOnlyError,
)
from isochrone.model.policy import SessionPolicy
from isochrone.store.track_errors import TrackReadError
from isochrone.store.volume import Volume
from isochrone.testing.sim_disk import Operation, SimulatedCrash, crash_nth, fail_nth
from support.cores import MILLISECOND_NS, SECOND_NS, SESSION_ID, PrimarySite, Replica, hello
from support.store import TRACK, run, tags, tracks

OTHER_ID = "5f" * 16
SIZE = TRACK + 24


def streaming(**options: object) -> PrimarySite:
    """A site whose session "s" streams volume "a", with nothing left to copy."""
    site = PrimarySite(**options)  # type: ignore[arg-type]
    site.open_stream()
    site.copied()
    return site


# The order of things


def test_p2_3_the_mark_is_set_before_the_volume_is_touched() -> None:
    site = streaming()
    seen: list[set[int]] = []

    def look(operation: Operation) -> None:
        if operation.kind == "write" and operation.name == "tracks":
            site.disk.hook = None
            seen.append(site.marked())

    site.disk.hook = look
    site.write("a", 3, 1, 2)
    assert seen == [{3, 4}]


def test_p2_3_a_write_that_kills_the_process_half_way_is_marked_in_the_next_life() -> None:
    site = streaming()
    site.write("a", 3, 1)
    site.disk.hook = crash_nth(1, kind="write", name="tracks")
    with pytest.raises(SimulatedCrash):
        site.write("a", 5, 2, 2)
    site.restart()
    assert site.marked() >= {5, 6}
    assert site.primary.streams[SESSION_ID].state is CaptureState.MARKING


def test_p2_3_an_acknowledged_write_survives_a_kill_and_is_marked() -> None:
    site = streaming()
    site.write("a", 3, 7)
    site.restart()
    assert (tags(site.pool, "a", 5), site.marked()) == ([0, 0, 0, 7, 0], {3})


def test_a_restarted_session_marks_from_the_first_write_on_and_captures_nothing() -> None:
    site = streaming()
    site.restart()
    site.write("a", 9, 1)
    assert site.marked() >= {9}
    assert site.primary.side_file.used_bytes == 0


def test_after_a_power_loss_the_marks_are_not_trusted_and_everything_is_marked() -> None:
    site = streaming()
    run(site.pool.sync())
    site.disk.sync()
    site.disk.power_loss(Random(1))
    site.start()
    assert site.marked() == set(range(16))


def test_a_map_that_is_gone_at_the_start_counts_as_everything_marked() -> None:
    site = streaming()
    site.disk.remove(f"changes-{SESSION_ID}-1")
    site.restart()
    assert site.marked() == set(range(16))


def test_a_map_that_no_session_names_is_removed_at_the_start() -> None:
    site = streaming()
    site.disk.open(f"changes-{OTHER_ID}-1", create=True)
    site.restart()
    assert [name for name in site.disk.names() if name.startswith("changes-")] == [f"changes-{SESSION_ID}-1"]


def test_a_session_document_that_does_not_read_is_refused_at_the_start() -> None:
    site = PrimarySite()
    site.pool.put_document("capture/x", b"{}")
    with pytest.raises(DamagedError, match="capture/x"):
        Primary(site.pool, site.disk, site.clock, site.settings, 0)


# Capture


def test_a_volume_in_no_session_is_written_without_mark_or_capture() -> None:
    site = PrimarySite(volumes={"a": 4, "b": 4})
    site.open_stream(["a"])
    site.write("b", 1, 7)
    site.trim("b", 1, 1)
    assert (site.primary.side_file.used_bytes, site.marked()) == (0, set())


def test_writes_of_one_batch_have_rising_times_and_travel_as_one() -> None:
    site = streaming()
    volume = site.pool.volumes["a"]
    for track in (1, 2, 3):
        site.primary.write(volume, track * TRACK, tracks(track))
    assert site.primary.side_file.used_bytes == 0
    site.primary.end_batch(1)
    (batch,) = site.primary.streams[SESSION_ID].backlog.take_unsent(1 << 30)
    assert (batch.record_count, batch.payload) == (3, tracks(1, 2, 3))
    assert batch.first_time_ns < batch.last_time_ns == site.primary.stamper.last_ns


def test_a_small_write_travels_as_the_whole_image_of_its_tracks() -> None:
    site = streaming()
    site.write("a", 0, 1, 2)
    site.primary.write(site.pool.volumes["a"], TRACK - 10, b"\x09" * 20)
    site.primary.end_batch(1)
    image = site.primary.streams[SESSION_ID].backlog.take_unsent(1 << 30)[-1].payload
    assert image == b"\x01" * (TRACK - 10) + b"\x09" * 20 + b"\x02" * (TRACK - 10)
    assert site.marked() == {0, 1}


def test_volumes_written_in_turn_keep_their_order() -> None:
    site = PrimarySite(volumes={"a": 4, "b": 4})
    site.open_stream(["a", "b"])
    site.copied()
    for name, tag in (("a", 1), ("b", 2), ("a", 3)):
        site.primary.write(site.pool.volumes[name], 0, tracks(tag))
    site.primary.end_batch(1)
    batches = site.primary.streams[SESSION_ID].backlog.take_unsent(1 << 30)
    assert [(batch.volume, batch.payload[0]) for batch in batches] == [(1, 1), (2, 2), (1, 3)]
    times = [time for batch in batches for time in (batch.first_time_ns, batch.last_time_ns)]
    assert times == sorted(times)


def test_two_sessions_of_a_volume_share_one_captured_batch() -> None:
    site = streaming()
    site.open_stream(link=2, greeting=hello(session_id=OTHER_ID, session_name="t"))
    site.copied(2)
    site.write("a", 0, 1)
    assert site.primary.side_file.used_bytes == SIZE
    assert site.copied(1).tags(1, 1) == site.copied(2).tags(1, 1) == [1]
    assert site.marked(session_id=SESSION_ID) == site.marked(session_id=OTHER_ID) == {0}


def test_a_trim_marks_and_sends_only_what_was_mapped() -> None:
    site = streaming()
    site.write("a", 2, 1, 1)
    replica = site.copied()
    site.trim("a", 0, 8)
    assert site.marked() == {2, 3}
    before = replica.track_count
    assert site.copied(replica=replica).tags(1, 8) == [0] * 8
    assert replica.track_count - before == 2


@pytest.mark.parametrize("allocate", [True, False])
def test_zeroing_across_track_borders_leaves_the_secondary_equal(allocate: bool) -> None:
    site = streaming()
    site.write("a", 0, 1, 2, 3, 4)
    site.primary.zero(site.pool.volumes["a"], TRACK // 2, 2 * TRACK, allocate=allocate)
    site.primary.end_batch(1)
    assert site.copied().tags(1, 4) == [1, 0, 0, 4]
    assert site.marked() == {0, 1, 2, 3}


# Acknowledgements


def test_acknowledgements_are_not_held_on_one_host_without_a_backlog() -> None:
    assert streaming().write("a", 0, 1) == 0


def test_acknowledgements_wait_out_the_clock_error_between_hosts() -> None:
    assert streaming(settings=CaptureSettings(clock_error_ns=5)).write("a", 0, 1) == 5


@pytest.mark.parametrize(("policy", "held"), [(OverflowPolicy.PACE, True), (OverflowPolicy.SUSPEND, False)])
def test_pacing_holds_replies_only_under_the_policy_that_asks_for_it(
    policy: OverflowPolicy, held: bool
) -> None:
    site = PrimarySite(settings=CaptureSettings(side_file_bytes_max=10 * TRACK, clock_error_ns=5))
    site.open_stream(window_bytes=0, policy=policy, pace_delay_ns_max=MILLISECOND_NS)
    delays = [site.write("a", track, 1) for track in range(9)]
    assert delays == sorted(delays)
    assert delays[0] == 5
    assert (5 < delays[-1] <= MILLISECOND_NS) is held


# Refusals and failures


def test_a_full_pool_refuses_the_write_and_captures_nothing() -> None:
    site = streaming(pool_tracks=4)
    site.write("a", 0, 1, 2, 3, 4)
    used_bytes = site.primary.side_file.used_bytes
    with pytest.raises(PoolFullError):
        site.write("a", 4, 5)
    site.primary.end_batch(1)
    assert site.primary.side_file.used_bytes == used_bytes
    assert tags(site.pool, "a", 6) == [1, 2, 3, 4, 0, 0]


def test_the_writes_before_a_refused_one_are_captured() -> None:
    site = streaming(pool_tracks=4)
    volume = site.pool.volumes["a"]
    site.primary.write(volume, 0, tracks(1, 2, 3))
    with pytest.raises(PoolFullError):
        site.primary.write(volume, 4 * TRACK, tracks(5, 6))
    site.primary.end_batch(1)
    assert site.copied().tags(1, 6) == [1, 2, 3, 0, 0, 0]


def test_p2_3_what_a_failed_write_left_behind_is_captured_again() -> None:
    site = streaming()
    site.write("a", 2, 1)
    replica = site.copied()
    site.disk.hook = fail_nth(1, kind="write", name="tracks")
    with pytest.raises(OSError, match="simulated"):
        site.write("a", 2, 9)
    site.primary.end_batch(1)
    records = replica.record_count
    assert site.copied(replica=replica).tags(1, 3) == tags(site.pool, "a", 3)
    assert replica.record_count == records + 1
    assert 2 in site.marked()


def test_p2_3_where_not_even_reading_works_the_session_suspends_with_the_track_marked() -> None:
    site = streaming()
    site.write("a", 2, 1)
    site.copied()

    def broken(operation: Operation) -> None:
        if operation.name == "tracks" and operation.kind in ("write", "read"):
            raise OSError(errno.EIO, "broken")

    site.disk.hook = broken
    with pytest.raises(OSError, match="broken"):
        site.write("a", 2, 9)
    site.disk.hook = None
    stream = site.primary.streams[SESSION_ID]
    assert (stream.state, 2 in site.marked()) == (CaptureState.SUSPENDED, True)
    assert "cannot be read" in stream.document.reason
    assert any(isinstance(message, Suspended) for message in site.take(1))


@pytest.mark.parametrize(
    "request_part",
    [
        lambda site, volume: site.primary.write(volume, 2 * TRACK + 512, b"x" * 512),
        lambda site, volume: site.primary.write(volume, TRACK + 512, b"x" * TRACK),
        lambda site, volume: site.primary.zero(volume, TRACK + 512, TRACK, allocate=False),
        lambda site, volume: site.primary.zero(volume, TRACK, TRACK + 512, allocate=True),
    ],
)
def test_a_part_of_a_track_that_cannot_be_read_is_the_applications_error_and_changes_nothing(
    request_part: Callable[[PrimarySite, Volume], object],
) -> None:
    site = streaming()
    volume = site.pool.volumes["a"]
    site.write("a", 1, 7)
    site.primary.end_batch(1)
    site.write("a", 2, 8)
    site.primary.end_batch(1)
    replica = site.copied()
    site.disk.spoil_track(volume, 2)
    records = replica.record_count
    with pytest.raises(TrackReadError, match="track 2 of volume a cannot be read") as caught:
        request_part(site, volume)
    assert caught.value.errno == errno.EIO
    site.primary.end_batch(1)
    assert site.primary.streams[SESSION_ID].state is CaptureState.STREAMING
    assert site.copied(replica=replica).record_count == records
    site.write("a", 2, 9)  # all of the track: nothing old is needed
    site.primary.end_batch(1)
    assert site.copied(replica=replica).tags(1, 4) == [0, 7, 9, 0] == tags(site.pool, "a", 4)


def test_a_failed_trim_is_captured_as_what_the_volume_then_holds() -> None:
    site = streaming()
    site.write("a", 2, 1, 1)
    replica = site.copied()
    site.disk.hook = fail_nth(1, kind="write", name="tracks")
    with pytest.raises(OSError, match="simulated"):
        site.primary.zero(site.pool.volumes["a"], 2 * TRACK, TRACK + 100, allocate=True)
    site.primary.end_batch(1)
    assert site.copied(replica=replica).tags(1, 5) == tags(site.pool, "a", 5)


def test_tracks_that_the_copier_cannot_read_are_told_and_the_rest_is_copied() -> None:
    site = PrimarySite(volumes={"a": 8, "b": 4})
    site.write("a", 0, 1, 2, 3, 4, 5)
    for track in (1, 2, 4):
        site.disk.spoil_track(site.pool.volumes["a"], track)
    stream = site.open_stream()
    replica = Replica()
    told = []
    for _ in range(20):
        for message in site.tick():
            if isinstance(message, RecordSet):
                replica.receive(message)
            elif isinstance(message, CopyProgress):
                told += message.volumes
    assert replica.tags(1, 5) == [1, 0, 0, 4, 0]
    assert (stream.state, stream.is_copying) == (CaptureState.STREAMING, True)
    assert told[-1] == VolumeCopy(1, 3, 0, 3, [TrackRun(1, 2), TrackRun(4, 1)])
    site.write("a", 1, 7, 8, 9)  # the two, and one that is copied already
    site.trim("a", 4, 1)
    assert site.copied(replica=replica).tags(1, 5) == [1, 7, 8, 9, 0]
    assert stream.volumes[1].copied_through_ns > 0


def test_a_read_only_pool_refuses_writes_and_captures_nothing() -> None:
    site = streaming()
    site.disk.hook = fail_nth(1, kind="datasync")
    with pytest.raises(OSError, match="simulated"):
        run(site.pool.sync())
    with pytest.raises(PoolReadOnlyError):
        site.write("a", 0, 1)
    assert site.primary.side_file.used_bytes == 0


def test_a_quiesced_volume_refuses_writes_and_trims_until_the_switchover_is_given_up() -> None:
    site = streaming()
    site.say(1, Quiesce())
    with pytest.raises(ConflictError, match="switching over"):
        site.write("a", 0, 1)
    with pytest.raises(ConflictError, match="switching over"):
        site.trim("a", 0, 1)
    assert "switching over" in site.primary.write_refusal(1)
    assert (tags(site.pool, "a", 1), site.marked()) == ([0], set())
    site.say(1, Unquiesce())
    site.write("a", 0, 1)
    assert site.primary.write_refusal(1) == ""


@pytest.mark.parametrize("message", [Quiesce(), Fence(5, 100)], ids=["quiesced", "fenced"])
def test_a_refusal_of_writes_outlives_the_process(message: Quiesce | Fence) -> None:
    site = streaming()
    site.say(1, message)
    site.restart()
    with pytest.raises(ConflictError):
        site.write("a", 0, 1)


def test_a_fenced_volume_refuses_writes_until_the_session_is_deleted_here() -> None:
    site = streaming()
    site.say(1, Fence(5, 100))
    with pytest.raises(ConflictError, match="isochrone session delete s"):
        site.write("a", 0, 1)
    site.primary.delete_stream(SESSION_ID)
    site.write("a", 0, 1)
    assert [name for name in site.disk.names() if name.startswith("changes-")] == []
    assert dict(site.pool.documents) == {}


@pytest.mark.parametrize("fenced", [1, 2])
def test_one_fenced_session_is_enough_to_refuse_writes(fenced: int) -> None:
    site = streaming()
    site.open_stream(link=2, greeting=hello(session_id=OTHER_ID, session_name="t"))
    site.say(fenced, Fence(5, 100))
    with pytest.raises(ConflictError, match="was recovered"):
        site.write("a", 0, 1)


def test_deleting_a_session_that_is_not_here_is_refused() -> None:
    with pytest.raises(NotFoundError):
        PrimarySite().primary.delete_stream(SESSION_ID)


# Overflow


def test_a_full_side_file_suspends_the_session_and_lets_writes_go_on_marked() -> None:
    site = PrimarySite(settings=CaptureSettings(side_file_bytes_max=3 * SIZE))
    stream = site.open_stream(window_bytes=0)
    for track in range(3):
        site.write("a", track, 1)
    assert stream.state is CaptureState.STREAMING
    assert site.write("a", 3, 1) == 0
    assert (stream.state, site.primary.side_file.used_bytes) == (CaptureState.SUSPENDED, 0)
    assert "side file reached its limit" in stream.document.reason
    assert any(isinstance(message, Suspended) for message in site.take(1))
    site.write("a", 4, 1)
    assert site.marked() == {0, 1, 2, 3, 4}


def test_the_session_that_holds_most_suspends_and_the_other_goes_on() -> None:
    site = PrimarySite(volumes={"a": 8, "b": 8}, settings=CaptureSettings(side_file_bytes_max=4 * SIZE))
    small = site.open_stream(["a"], window_bytes=0)
    large = site.open_stream(
        ["b"], link=2, greeting=hello(session_id=OTHER_ID, session_name="t"), window_bytes=0
    )
    site.write("a", 0, 1)
    for track in range(4):
        site.write("b", track, 2)
    assert (small.state, large.state) == (CaptureState.STREAMING, CaptureState.SUSPENDED)
    assert site.primary.side_file.used_bytes == SIZE


def test_sessions_that_share_what_fills_the_side_file_suspend_until_it_is_not_full() -> None:
    site = PrimarySite(settings=CaptureSettings(side_file_bytes_max=2 * SIZE))
    one = site.open_stream(window_bytes=0)
    two = site.open_stream(link=2, greeting=hello(session_id=OTHER_ID, session_name="t"), window_bytes=0)
    for track in range(3):
        site.write("a", track, 1)
    assert {one.state, two.state} == {CaptureState.SUSPENDED}
    assert site.primary.side_file.used_bytes == 0


def test_a_suspension_outlives_the_process() -> None:
    site = PrimarySite(settings=CaptureSettings(side_file_bytes_max=SIZE))
    site.open_stream(window_bytes=0)
    site.write("a", 0, 1, 2)
    site.restart()
    stream = site.primary.streams[SESSION_ID]
    assert stream.state is CaptureState.SUSPENDED
    assert "side file" in stream.document.reason


# Volumes of a session


def test_a_volume_that_does_not_exist_is_refused_by_name_and_the_others_are_captured() -> None:
    site = PrimarySite()
    stream = site.open_stream([])
    refused = site.primary.set_volumes(stream, [WantedVolume("a"), WantedVolume("nope")])
    assert list(stream.volumes) == [1]
    assert list(refused) == ["nope"]
    assert "create it" in refused["nope"]


def test_a_volume_is_captured_from_its_configuration_on_and_no_longer_once_it_left() -> None:
    site = PrimarySite(volumes={"a": 4, "b": 4})
    stream = site.open_stream(["a"])
    assert site.primary.sessions_of_volume(2) == []
    site.say(1, Configure(1, [WantedVolume("b")], SessionPolicy()))
    assert (list(stream.volumes), site.primary.sessions_of_volume(2)) == ([2], ["s"])
    site.write("a", 0, 1)
    assert site.primary.side_file.used_bytes == 0
    assert [name for name in site.disk.names() if name.startswith("changes-")] == [f"changes-{SESSION_ID}-2"]


@pytest.mark.parametrize(("not_empty", "copied"), [([], 2), (["a"], 16)])
def test_of_an_empty_secondary_only_mapped_tracks_are_copied_of_another_one_all(
    not_empty: list[str], copied: int
) -> None:
    site = PrimarySite()
    site.write("a", 3, 1, 2)
    site.open_stream(not_empty=not_empty)
    replica = site.copied()
    assert replica.track_count == copied
    assert replica.tags(1, 5) == [0, 0, 0, 1, 2]


def test_the_shell_is_told_how_much_waits_to_be_sent() -> None:
    site = streaming()
    assert site.primary.unsent_bytes == 0
    site.write("a", 0, 1)
    assert site.primary.unsent_bytes == SIZE
    site.clock.advance(SECOND_NS)
    site.tick()
    assert site.primary.unsent_bytes == 0


@pytest.mark.parametrize("leaving", [Configure(2, [], SessionPolicy()), Forget()])
def test_a_map_that_cannot_be_removed_leaves_the_volume_writable(leaving: Message) -> None:
    site = PrimarySite()
    site.open_stream()
    site.copied()
    site.disk.hook = fail_nth(1, errno.EIO, kind="remove", name="changes-")
    site.say(1, leaving)
    site.disk.hook = None
    site.write("a", 3, 7)
    assert site.pool.volumes["a"].read(3 * TRACK, 1) == b"\x07"
    site.tick()
    site.restart()
    site.write("a", 4, 8)
    assert not [name for name in site.disk.names() if name.startswith("changes-")]


def test_a_session_that_cannot_remember_what_is_hardened_holds_up_no_other() -> None:
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    site.open_stream()
    site.open_stream(link=2, greeting=hello(session_id=OTHER_ID, session_name="t", mover_id=OTHER_ID))
    site.copied()
    site.copied(link=2)
    site.write("a", 3, 7)
    first = site.primary.streams[SESSION_ID]
    site.tick()
    site.disk.hook = fail_nth(1, kind="datasync")
    with pytest.raises(OSError, match="simulated"):
        run(site.pool.sync())
    site.say(1, Ack(first.sent_through_ns, 1 << 40, first.sent_through_ns))
    site.take(2)
    sent_ns = site.primary.streams[OTHER_ID].sent_through_ns
    site.clock.advance(100 * MILLISECOND_NS)
    with pytest.raises(PoolReadOnlyError):
        site.primary.tick()
    assert site.primary.streams[OTHER_ID].sent_through_ns > sent_ns
