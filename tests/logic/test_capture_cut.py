"""A stream that is cut ends exactly at the time that was asked for; every later write is marked."""

from __future__ import annotations

import pytest

from isochrone.capture.cut import cut_batch
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Ack, Configure, RecordSet, Resume, StreamCut, Suspend, WantedVolume
from isochrone.model.policy import SessionPolicy
from isochrone.model.records import RecordBatch, RecordKind
from isochrone.model.states import SuspendCause
from support.cores import MILLISECOND_NS, SECOND_NS, WINDOW_OPEN, PrimarySite, Replica, hello
from support.store import TRACK, records, tracks


def ask(site: PrimarySite, at_ns: int) -> list[StreamCut]:
    """Tell the primary when to cut; returns what it says of a cut."""
    answers = site.say(1, Configure(2, [WantedVolume("a", True)], SessionPolicy(), at_ns))
    return [message for message in answers if isinstance(message, StreamCut)]


def streaming() -> tuple[PrimarySite, Replica]:
    """A primary whose volume "a" is copied."""
    site = PrimarySite(settings=CaptureSettings(prune_interval_ns=0))
    site.open_stream()
    return site, site.copied()


def receive(site: PrimarySite, replica: Replica, ticks: int = 3) -> None:
    for record_set in site.sets(ticks=ticks):
        replica.receive(record_set)


@pytest.mark.parametrize(
    ("after_ns", "cut_ns", "expected"),
    [
        (0, 9, None),
        (0, 10, [1]),
        (0, 25, [1, 2, 3]),
        (0, 30, [1, 2, 3, 4]),
        (10, 30, [2, 3, 4]),
        (10, 25, [2, 3]),
    ],
)
def test_a_batch_is_divided_at_the_cut(after_ns: int, cut_ns: int, expected: list[int] | None) -> None:
    headers = records(
        (10, 1, 0, 1, RecordKind.DATA),
        (20, 1, 5, 2, RecordKind.DATA),
        (25, 1, 9, 3, RecordKind.ZERO),
        (30, 1, 3, 1, RecordKind.DATA),
    )
    part = cut_batch(
        RecordBatch(1, 10, 30, 4, headers.tobytes(), tracks(1, 2, 3, 4)), after_ns, cut_ns, TRACK
    )
    assert (
        None if part is None else [part.payload[i * TRACK] for i in range(len(part.payload) // TRACK)]
    ) == expected
    if part is not None:
        assert len(part.headers) == part.record_count * 24
        assert after_ns < part.first_time_ns <= part.last_time_ns <= cut_ns


def test_nothing_past_the_time_is_sent_or_promised_and_all_of_it_is_marked() -> None:
    site, replica = streaming()
    site.write("a", 1, 7)
    at_ns = site.clock.ns + 5
    ask(site, at_ns)
    site.clock.advance(10)
    site.write("a", 2, 8)
    receive(site, replica)
    site.write("a", 3, 9)
    receive(site, replica)
    assert replica.tags(1, 4) == [0, 7, 0, 0]
    assert replica.through_ns == at_ns
    assert site.marked() >= {2, 3}


def test_a_promise_stops_at_the_time_also_before_the_cut() -> None:
    site, replica = streaming()
    at_ns = site.clock.ns + 25 * MILLISECOND_NS
    ask(site, at_ns)
    for _ in range(6):
        receive(site, replica, 1)
        assert replica.through_ns <= at_ns
    assert replica.through_ns == at_ns


def test_the_cut_is_said_when_it_is_made_and_after_every_configured() -> None:
    site, _ = streaming()
    at_ns = site.clock.ns + 5
    assert ask(site, at_ns) == []
    assert StreamCut(at_ns) in site.tick()
    assert ask(site, 0) == [StreamCut(at_ns)]


def test_a_cut_that_comes_too_late_is_made_where_the_stream_stands() -> None:
    site, replica = streaming()
    stream = next(iter(site.primary.streams.values()))
    site.write("a", 1, 7)
    receive(site, replica)
    ask(site, stream._began_ns + 1)
    site.write("a", 2, 8)
    receive(site, replica)
    assert replica.tags(1, 3) == [0, 7, 0]
    assert stream.cut_ns == replica.through_ns


def test_a_time_before_the_incarnation_cuts_nothing() -> None:
    site, replica = streaming()
    stream = next(iter(site.primary.streams.values()))
    ask(site, stream._began_ns)
    site.write("a", 2, 8)
    receive(site, replica)
    assert replica.tags(1, 3) == [0, 0, 8]


def test_what_was_captured_before_the_cut_is_sent_again_after_a_lost_link_and_nothing_twice() -> None:
    site, replica = streaming()
    stream = next(iter(site.primary.streams.values()))
    site.write("a", 1, 7)
    site.write("a", 4, 6)
    at_ns = site.clock.ns + 5
    ask(site, at_ns)
    site.links.link_lost(1)
    site.clock.advance(10)
    site.write("a", 2, 8)
    site.tick()
    for _ in range(2):  # the second mover has it all and gets nothing
        greeting = hello(incarnation=stream.incarnation, received_through_ns=replica.through_ns)
        site.open_stream(greeting=greeting, not_empty=["a"])
        before = replica.record_count
        receive(site, replica)
        sent = replica.record_count - before
    assert (replica.tags(1, 5), replica.through_ns, sent) == ([0, 7, 0, 0, 6], at_ns, 0)


def test_marks_are_kept_from_the_cut_on_whatever_is_hardened() -> None:
    site, replica = streaming()
    stream = next(iter(site.primary.streams.values()))
    site.write("a", 1, 7)
    ask(site, site.clock.ns + 5)
    for _ in range(5):
        receive(site, replica)
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, 0))
        site.clock.advance(SECOND_NS)
    assert site.marked() >= {1}


def test_a_copy_that_is_not_complete_at_the_cut_is_given_up() -> None:
    site = PrimarySite(settings=CaptureSettings(copy_step_tracks_max=1, copy_ahead_bytes_max=TRACK))
    site.write("a", 0, 1, 2, 3, 4, 5, 6)
    stream = site.open_stream()
    site.tick()
    ask(site, site.clock.ns + 5)
    site.tick()
    captured = stream.volumes[1]
    assert (captured.copier, captured.copied_through_ns) == (None, 0)
    assert site.marked() == {0, 1, 2, 3, 4, 5}


def test_suspend_after_the_cut_ends_the_stream_and_a_new_one_is_not_cut() -> None:
    site, replica = streaming()
    stream = next(iter(site.primary.streams.values()))
    ask(site, site.clock.ns + 5)
    receive(site, replica)
    site.say(1, Suspend("now"))
    assert (stream.cut_ns, stream.suspend_at_ns, stream.incarnation) == (0, 0, "")
    stream.begin_incarnation("ab" * 16)
    site.tick()
    assert stream.cut_ns == 0


def test_a_cut_stream_does_not_pace_or_fill() -> None:
    site, _ = streaming()
    stream = next(iter(site.primary.streams.values()))
    ask(site, site.clock.ns + 5)
    site.tick()
    held = stream.backlog.held_bytes
    for track in range(8):
        site.write("a", track, 1)
    assert stream.backlog.held_bytes == held
    assert not any(isinstance(m, RecordSet) and m.payload for m in site.tick())


def test_a_time_that_a_suspended_primary_was_told_ends_nothing_after_it_was_resumed() -> None:
    site, _ = streaming()
    stream = next(iter(site.primary.streams.values()))
    site.primary.suspend(stream, "the side file is full", SuspendCause.SIDE_FILE)
    ask(site, site.clock.ns + SECOND_NS)  # crossed the news of it on the way
    site.say(1, Resume())
    site.clock.advance(2 * SECOND_NS)
    assert not [message for message in site.tick() if isinstance(message, StreamCut)]
    assert stream.is_capturing
