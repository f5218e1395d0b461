"""The spill at a primary: outages are caught up without a resync, and whatever fails there falls back to marks (P2.3)."""

from __future__ import annotations

import errno
from itertools import pairwise

import numpy as np
import pytest

from isochrone.capture.document import CaptureState
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.spill import REST_NS
from isochrone.link.messages import Ack, RecordSet
from isochrone.model.records import RECORD_DTYPE, RecordKind
from isochrone.testing.sim_disk import fail_nth
from support.cores import WINDOW_OPEN, PrimarySite, Replica, SecondarySite, Wire, hello
from support.store import TRACK, tags

SIZE = TRACK + 24
TRACKS = 16
MEMORY_TRACKS = 24
OTHER_ID = "5f" * 16


def spilling(
    memory_tracks: int = MEMORY_TRACKS, spill_tracks: int = 1000, segment_tracks: int = 20
) -> CaptureSettings:
    return CaptureSettings(
        side_file_bytes_max=memory_tracks * SIZE,
        spill_bytes_max=spill_tracks * SIZE,
        spill_segment_bytes=segment_tracks * SIZE,
        record_set_bytes_max=6 * SIZE,
    )


def streaming(settings: CaptureSettings | None = None) -> PrimarySite:
    """A site whose session "s" streams volume "a", with nothing left to copy or to harden."""
    site = PrimarySite(settings=settings or spilling())
    stream = site.open_stream()
    site.copied()
    stream.acknowledged(Ack(site.clock(), WINDOW_OPEN, 0))
    return site


def write_much(site: PrimarySite, count: int) -> list[int]:
    """Write `count` tracks all over volume "a", with time for the spill after each; returns what then stands there."""
    expected = [0] * TRACKS
    for number in range(count):
        track, tag = number * 7 % TRACKS, number % 250 + 1
        site.write("a", track, tag)
        expected[track] = tag
        site.tick(99)
    return expected


def spill_files(site: PrimarySite) -> list[str]:
    return [name for name in site.disk.names() if name.startswith("spill-")]


def test_an_outage_far_beyond_memory_is_caught_up_in_order_without_a_resync() -> None:
    primary = PrimarySite(volumes={"a": TRACKS, "b": TRACKS}, settings=spilling())
    secondary = SecondarySite(primary.clock)
    wire = Wire(secondary, primary)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    (stream,) = primary.primary.streams.values()
    incarnation = stream.incarnation
    wire.refuses.add(0)
    wire.cut()
    history: list[tuple[int, list[int]]] = []
    content = [0] * TRACKS
    for number in range(12 * MEMORY_TRACKS):
        track, tag = number * 7 % TRACKS, number % 250 + 1
        primary.write("a", track, tag)
        content[track] = tag
        history.append((primary.primary.stamper.last_ns, content[:]))
        wire.steps(number % 8 == 0)
    assert primary.primary.side_file.memory_bytes <= primary.settings.side_file_bytes_max
    assert primary.primary.side_file.used_bytes == 12 * MEMORY_TRACKS * SIZE

    images = watch_images(primary)
    wire.refuses.clear()
    wire.run_until(lambda: 0 in wire.links)
    times: list[int] = []
    for _ in range(400):
        wire.step(1_000_000)
        consistency_ns = secondary.session.mover.consistency_ns
        times.append(consistency_ns)
        expected = [image for time_ns, image in history if time_ns <= consistency_ns]
        assert tags(secondary.pool, "a", TRACKS) == (expected[-1] if expected else [0] * TRACKS)
        if consistency_ns >= history[-1][0]:
            break
    assert tags(secondary.pool, "a", TRACKS) == content
    within = [ns for ns in set(times) if history[0][0] <= ns < history[-1][0]]
    assert len(within) >= 3
    assert (stream.incarnation, images, stream.state) == (incarnation, [], CaptureState.STREAMING)
    wire.steps(5)
    assert (primary.primary.side_file.used_bytes, spill_files(primary)) == (0, [])


def watch_images(site: PrimarySite) -> list[int]:
    """Return the list into which the times of all images are put that the site will send."""
    images: list[int] = []
    take = site.take

    def taking(link: int) -> list[object]:
        messages = take(link)
        for message in messages:
            if isinstance(message, RecordSet):
                records = np.frombuffer(message.headers, RECORD_DTYPE)
                images.extend(records["time_ns"][records["kind"] & np.uint32(RecordKind.IMAGE) != 0].tolist())
        return list(messages)

    site.take = taking  # type: ignore[assignment, method-assign]
    return images


def test_memory_stays_within_its_limit_while_the_link_is_down_and_while_it_catches_up() -> None:
    site = streaming()
    site.links.link_lost(1)
    received_ns = next(iter(site.primary.streams.values())).sent_through_ns
    expected = write_much(site, 200)
    limit_bytes = site.settings.side_file_bytes_max
    assert site.primary.side_file.memory_bytes <= limit_bytes
    stream = site.open_stream(
        link=2,
        not_empty=["a"],
        greeting=hello(incarnation=one(site).incarnation, received_through_ns=received_ns),
    )
    replica = Replica()
    replica.through_ns = received_ns
    for _ in range(400):
        for record_set in site.sets(2):
            replica.receive(record_set)
        assert site.primary.side_file.memory_bytes <= limit_bytes
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, 0))
        if not stream.backlog.held_bytes:
            break
    assert replica.tags(1, TRACKS) == expected
    assert replica.record_count == 200


def one(site: PrimarySite):  # type: ignore[no-untyped-def]
    return next(iter(site.primary.streams.values()))


def test_a_mover_that_has_received_the_first_records_of_a_piece_gets_the_rest_only() -> None:
    site = streaming()
    sets = []
    for number in range(TRACKS):
        site.write("a", number, number + 1)
        sets += site.sets()
    received = next(record_set for record_set in sets if record_set.payload)
    stream = one(site)
    assert 1 < stream.backlog.sent_count < TRACKS  # joined, and in the spill
    assert site.primary.side_file.spilled_bytes > 0
    site.links.link_lost(1)
    greeting = hello(incarnation=stream.incarnation, received_through_ns=received.through_ns)
    site.open_stream(link=2, not_empty=["a"], greeting=greeting)
    replica = Replica()
    replica.through_ns = received.through_ns
    for _ in range(200):
        for record_set in site.sets(2):
            replica.receive(record_set)  # refuses what is not later
    assert replica.record_count == TRACKS - 1


def test_a_spill_that_is_full_too_suspends_the_session_with_the_tracks_marked() -> None:
    site = streaming(spilling(spill_tracks=45))
    site.links.link_lost(1)
    write_much(site, 60)
    stream = one(site)
    assert stream.state is CaptureState.SUSPENDED
    assert "its spill of" in stream.document.reason
    assert "is full too" in stream.document.reason
    assert site.marked() == set(range(TRACKS))
    site.tick(99)
    assert (site.primary.side_file.used_bytes, spill_files(site)) == (0, [])


@pytest.mark.parametrize(
    ("kind", "number"), [("write", errno.EIO), ("allocate", errno.ENOSPC), ("open", errno.EIO)]
)
def test_a_spill_that_cannot_be_written_leaves_everything_in_memory_and_is_tried_again(
    kind: str, number: int
) -> None:
    site = streaming()
    site.links.link_lost(1)
    for track in range(MEMORY_TRACKS // 2 + 1):
        site.write("a", track, 1)
    site.disk.hook = fail_nth(1, number, kind=kind, name="spill-")
    site.tick(99)
    spill = site.primary.side_file.spill
    assert spill is not None
    assert "simulated device error" in spill.trouble
    assert site.primary.side_file.memory_bytes == site.primary.side_file.used_bytes
    site.tick(99)
    assert spill.queued_bytes == 0  # it rests
    site.tick(99, advance_ns=REST_NS)
    assert (spill.trouble, site.primary.side_file.spilled_bytes > 0) == ("", True)


def test_a_spill_that_stays_broken_suspends_the_session_and_says_why() -> None:
    site = streaming()
    site.links.link_lost(1)
    for track in range(MEMORY_TRACKS + 1):
        site.disk.hook = fail_nth(1, errno.ENOSPC, kind="allocate", name="spill-")
        site.write("a", track % TRACKS, 1)
        site.tick(99)
    assert one(site).state is CaptureState.SUSPENDED
    assert "its spill cannot be written" in one(site).document.reason
    assert site.marked() == set(range(TRACKS))


def test_records_that_cannot_be_read_back_suspend_the_session_with_the_tracks_marked() -> None:
    site = streaming()
    site.links.link_lost(1)
    write_much(site, 40)
    site.disk.hook = fail_nth(2, errno.EIO, kind="read", name="spill-")
    stream = site.open_stream(
        link=2,
        not_empty=["a"],
        greeting=hello(incarnation=one(site).incarnation, received_through_ns=1 << 40),
    )
    stream.backlog.rewind(0)
    site.sets(2, ticks=5)
    assert stream.state is CaptureState.SUSPENDED
    assert "cannot be read back" in stream.document.reason
    assert site.marked() == set(range(TRACKS))
    assert site.primary.side_file.used_bytes == 0


def test_records_that_come_back_changed_are_not_believed() -> None:
    site = streaming()
    site.links.link_lost(1)
    write_much(site, 40)
    file = site.disk.open(spill_files(site)[0])
    file.pwrite(b"\x00", 5 * TRACK)
    site.open_stream(link=2, not_empty=["a"], greeting=hello(incarnation=one(site).incarnation))
    one(site).backlog.rewind(0)
    site.sets(2, ticks=20)
    assert one(site).state is CaptureState.SUSPENDED
    assert "not what was written" in one(site).document.reason


def test_records_that_two_sessions_share_stay_until_both_have_them() -> None:
    site = streaming()
    site.open_stream(link=2, greeting=hello(session_id=OTHER_ID, session_name="t"))
    site.copied(2)
    first, second = site.primary.streams.values()
    second.acknowledged(Ack(site.clock(), WINDOW_OPEN, 0))
    for link in (1, 2):
        site.links.link_lost(link)
    start_ns = {stream: stream.sent_through_ns for stream in (first, second)}
    expected = write_much(site, 60)
    for link, stream in ((3, first), (4, second)):
        greeting = hello(
            session_id=stream.document.session_id,
            session_name=stream.document.session_name,
            incarnation=stream.incarnation,
            received_through_ns=start_ns[stream],
        )
        site.open_stream(link=link, not_empty=["a"], greeting=greeting)
        replica = Replica()
        replica.through_ns = start_ns[stream]
        for _ in range(100):
            for record_set in site.sets(link):
                replica.receive(record_set)
            stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, 0))
        assert replica.tags(1, TRACKS) == expected
    site.tick(99)
    assert (site.primary.side_file.used_bytes, spill_files(site)) == (0, [])


def test_spill_files_of_an_earlier_life_are_removed_at_the_start_and_ours_at_the_stop() -> None:
    site = streaming()
    site.links.link_lost(1)
    write_much(site, 40)
    assert spill_files(site)
    site.restart()
    assert spill_files(site) == []
    again = streaming()
    again.links.link_lost(1)
    write_much(again, 40)
    assert spill_files(again)
    again.primary.close()
    assert spill_files(again) == []


def test_the_times_of_a_stream_rise_through_the_spill() -> None:
    site = streaming()
    received_ns = one(site).sent_through_ns
    site.links.link_lost(1)
    write_much(site, 60)
    site.open_stream(
        link=2,
        not_empty=["a"],
        greeting=hello(incarnation=one(site).incarnation, received_through_ns=received_ns),
    )
    times = [
        int(time_ns)
        for record_set in site.sets(2, ticks=100)
        for time_ns in np.frombuffer(record_set.headers, RECORD_DTYPE)["time_ns"]
    ]
    assert len(times) == 60
    assert all(a < b for a, b in pairwise(times))
