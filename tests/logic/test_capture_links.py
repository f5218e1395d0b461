"""What movers say to a primary, in the right order and in every wrong one, and what it answers."""

from __future__ import annotations

import pytest

from isochrone.capture.document import CaptureState
from isochrone.capture.links import LINKS_MAX
from isochrone.link.messages import (
    Ack,
    Appoint,
    Appointed,
    Configure,
    Configured,
    CopyProgress,
    Fence,
    Fenced,
    FencedVolume,
    Forget,
    Forgotten,
    Marked,
    Marks,
    Message,
    Quiesce,
    Quiesced,
    RecordSet,
    RefusalCode,
    Refused,
    Resume,
    Resumed,
    Suspend,
    Suspended,
    Unquiesce,
    WantedVolume,
    Welcome,
)
from isochrone.model.choices import OverflowPolicy
from isochrone.model.policy import SessionPolicy
from support.cores import PRIMARY_IDS, SECOND_NS, SESSION_ID, WINDOW_OPEN, PrimarySite, hello
from support.store import TRACK

OTHER_ID = "5f" * 16


def configure(*volumes: str) -> Configure:
    return Configure(1, [WantedVolume(name) for name in volumes], SessionPolicy())


def refusal(messages: list[Message]) -> Refused:
    (refused,) = messages
    assert isinstance(refused, Refused)
    return refused


def welcome(messages: list[Message]) -> Welcome:
    (answer,) = messages
    assert isinstance(answer, Welcome)
    return answer


def greeted(**options: object) -> PrimarySite:
    site = PrimarySite(**options)  # type: ignore[arg-type]
    site.links.link_opened(1)
    site.say(1, hello())
    return site


AFTER_HELLO: list[Message] = [
    Ack(0, 0, 0),
    configure("a"),
    Suspend("x"),
    Resume(),
    Quiesce(),
    Unquiesce(),
    Fence(1, 1),
    Forget(),
    Marks("a", [0, 1]),
    Appoint(1),
]
FROM_A_PRIMARY: list[Message] = [
    Welcome(PRIMARY_IDS[0], "p", OTHER_ID, 1, 0, True, False),
    Configured(1, []),
    RecordSet(1, 0, b"", b""),
    CopyProgress([]),
    Suspended("x", 0),
    Resumed(OTHER_ID, []),
    Quiesced(0),
    Fenced(1),
    Marked(),
    Appointed(1),
    Forgotten(),
    Refused(RefusalCode.BUSY, "x"),
]


@pytest.mark.parametrize("message", AFTER_HELLO + FROM_A_PRIMARY, ids=lambda m: type(m).__name__)
def test_a_link_that_does_not_begin_with_hello_is_refused_and_changes_nothing(message: Message) -> None:
    site = PrimarySite()
    site.links.link_opened(1)
    assert refusal(site.say(1, message)).code is RefusalCode.BAD_REQUEST
    assert 1 in site.closed
    assert (site.primary.streams, dict(site.pool.documents)) == ({}, {})


@pytest.mark.parametrize("message", FROM_A_PRIMARY, ids=lambda m: type(m).__name__)
def test_a_message_that_movers_do_not_send_is_refused(message: Message) -> None:
    site = greeted()
    assert type(message).__name__ in refusal(site.say(1, message)).text
    assert 1 in site.closed


@pytest.mark.parametrize("message", [hello(), *AFTER_HELLO], ids=lambda m: type(m).__name__)
def test_words_on_a_link_that_was_never_opened_or_is_lost_are_not_heard(message: Message) -> None:
    site = PrimarySite()
    assert site.say(7, message) == []
    site.links.link_opened(1)
    site.links.link_lost(1)
    assert site.say(1, message) == []
    assert site.primary.streams == {}


def test_welcome_says_who_where_and_that_a_new_stream_begins() -> None:
    site = PrimarySite()
    site.links.link_opened(1)
    answer = welcome(site.say(1, hello(epoch=4)))
    assert (answer.controller_id, answer.controller_name, answer.epoch) == (PRIMARY_IDS[0], "p1", 4)
    assert (answer.continues, answer.suspended) == (False, False)
    assert answer.incarnation == site.primary.streams[SESSION_ID].incarnation
    assert site.primary.streams[SESSION_ID].state is CaptureState.STREAMING


def test_a_refused_mover_is_told_why_and_its_link_closed() -> None:
    site = greeted()
    site.links.link_opened(2)
    assert refusal(site.say(2, hello(mover_id="ee" * 16))).code is RefusalCode.SESSION_IN_USE
    assert list(site.closed) == [2]
    assert site.primary.streams[SESSION_ID].link == 1


def test_a_second_session_may_not_take_a_name_that_is_in_use_here() -> None:
    site = greeted()
    site.links.link_opened(2)
    assert refusal(site.say(2, hello(session_id=OTHER_ID))).code is RefusalCode.SESSION_IN_USE
    assert list(site.primary.streams) == [SESSION_ID]


def test_one_link_too_many_is_refused_as_busy() -> None:
    site = PrimarySite()
    for link in range(LINKS_MAX):
        site.links.link_opened(link)
    assert site.take(0) == []
    site.links.link_opened(LINKS_MAX)
    assert refusal(site.take(LINKS_MAX)).code is RefusalCode.BUSY
    assert list(site.closed) == [LINKS_MAX]
    site.links.link_lost(LINKS_MAX)
    site.links.link_lost(0)
    site.links.link_opened(LINKS_MAX + 1)
    assert site.take(LINKS_MAX + 1) == []


def test_a_second_link_of_a_session_replaces_the_first() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    site.open_stream(link=2)
    assert (stream.link, list(site.closed)) == (2, [1])
    site.write("a", 0, 1)
    assert site.tick(1) == []
    assert any(m.payload for m in site.sets(2))


def test_words_that_still_come_on_a_replaced_link_are_refused_and_change_nothing() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    site.open_stream(link=2, window_bytes=0)
    refusal(site.say(1, Ack(1 << 60, WINDOW_OPEN, 0)))
    assert stream.hardened_ns == 0
    site.links.link_pending_bytes(1, 1 << 30)
    assert stream.link_pending_bytes == 0
    site.links.link_lost(1)
    assert stream.link == 2


def test_a_lost_link_leaves_the_session_capturing() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    incarnation = stream.incarnation
    site.links.link_lost(1)
    site.write("a", 0, 1)
    assert (stream.link, stream.incarnation) == (None, incarnation)
    assert stream.backlog.held_bytes == TRACK + 24


def test_a_mover_of_the_same_stream_is_told_that_it_continues() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    incarnation = stream.incarnation
    site.copied()
    site.links.link_lost(1)
    site.links.link_opened(2)
    answer = welcome(site.say(2, hello(incarnation=incarnation, received_through_ns=1 << 40)))
    assert (answer.continues, answer.incarnation) == (True, incarnation)
    assert not stream.is_copying


def test_after_a_restart_no_stream_continues_and_what_was_marked_is_copied() -> None:
    site = PrimarySite()
    incarnation = site.open_stream().incarnation
    site.copied()
    site.write("a", 5, 1)
    site.restart()
    site.links.link_opened(1)
    answer = welcome(site.say(1, hello(incarnation=incarnation, received_through_ns=1 << 40)))
    assert not answer.continues
    assert answer.incarnation != incarnation
    assert site.primary.streams[SESSION_ID].volumes[1].tracks_remaining == 1


def test_a_mover_that_lost_hardened_records_gets_every_track_again() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    site.write("a", 5, 1)
    (record_set,) = site.sets()
    site.say(1, Ack(record_set.through_ns, WINDOW_OPEN, 0))
    incarnation = stream.incarnation
    site.links.link_lost(1)
    site.links.link_opened(2)
    assert not welcome(site.say(2, hello(incarnation=incarnation, received_through_ns=1))).continues
    assert stream.volumes[1].tracks_remaining == 16


def test_configured_names_every_volume_with_number_size_and_what_is_to_be_copied() -> None:
    site = greeted(volumes={"a": 4, "b": 8})
    site.write("b", 1, 7)
    site.refusals["a"] = "a is a secondary"
    (answer,) = site.say(1, configure("a", "b", "nope"))
    assert isinstance(answer, Configured)
    assert [(v.name, v.number, v.size_bytes, v.tracks_to_copy) for v in answer.volumes] == [
        ("b", 2, 8 * TRACK, 1)
    ]
    assert {refused.name: refused.text for refused in answer.refused}.keys() == {"a", "nope"}


def test_configure_sets_the_policy_that_paces_writes() -> None:
    site = PrimarySite()
    stream = site.open_stream(policy=OverflowPolicy.SUSPEND, pace_delay_ns_max=7)
    assert stream.document.policy == SessionPolicy(
        overflow_policy=OverflowPolicy.SUSPEND, pace_delay_ns_max=7
    )


def test_suspend_stops_the_stream_keeps_marks_and_answers_with_the_last_promise() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    (record_set,) = site.sets()
    site.write("a", 3, 1)
    (answer,) = site.say(1, Suspend("for a while"))
    assert isinstance(answer, Suspended)
    assert (answer.reason, answer.through_ns) == ("for a while", record_set.through_ns)
    assert (stream.state, stream.incarnation, site.marked()) == (CaptureState.SUSPENDED, "", {3})


def test_a_second_suspend_answers_with_the_first_reason() -> None:
    site = PrimarySite()
    site.open_stream()
    site.say(1, Suspend("first"))
    (answer,) = site.say(1, Suspend("second"))
    assert isinstance(answer, Suspended)
    assert answer.reason == "first"


def test_a_suspended_session_welcomes_its_mover_as_suspended_and_sends_nothing() -> None:
    site = PrimarySite()
    site.open_stream()
    site.say(1, Suspend("why"))
    site.links.link_opened(2)
    answer = welcome(site.say(2, hello()))
    assert (answer.suspended, answer.reason, answer.continues) == (True, "why", False)
    site.say(2, configure("a"))
    assert site.tick(2) == []


def test_resume_begins_a_new_stream_and_tells_what_will_be_copied() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    before = stream.incarnation
    site.say(1, Suspend("x"))
    site.write("a", 3, 1, 2)
    (answer,) = site.say(1, Resume())
    assert isinstance(answer, Resumed)
    assert answer.incarnation == stream.incarnation != before
    assert [(v.number, v.tracks_to_copy) for v in answer.volumes] == [(1, 2)]
    assert (stream.state, stream.document.reason) == (CaptureState.STREAMING, "")
    assert site.copied().tags(1, 5) == [0, 0, 0, 1, 2]


def test_quiesced_promises_a_time_that_no_acknowledged_write_exceeds() -> None:
    site = PrimarySite()
    site.open_stream()
    site.write("a", 0, 1)
    written_ns = site.primary.stamper.last_ns
    (answer,) = site.say(1, Quiesce())
    assert isinstance(answer, Quiesced)
    assert answer.through_ns > written_ns
    assert site.say(1, Unquiesce()) == []
    site.write("a", 1, 1)
    assert site.primary.stamper.last_ns > answer.through_ns


def test_fence_ends_the_session_and_is_confirmed_only_once_a_kill_cannot_undo_it() -> None:
    site = PrimarySite()
    site.open_stream()
    site.write("a", 0, 1)
    (answer,) = site.say(1, Fence(9, 12345))
    assert answer == Fenced(9, site.primary.streams[SESSION_ID].last_write_ns, [FencedVolume("a", 1)])
    site.restart()
    document = site.primary.streams[SESSION_ID].document
    assert (document.ended, document.epoch, document.recovered_ns) == (True, 9, 12345)
    assert site.primary.side_file.used_bytes == 0


def test_a_fence_of_an_older_epoch_is_refused_and_says_so() -> None:
    site = PrimarySite()
    site.open_stream(greeting=hello(epoch=7))
    refused = refusal(site.say(1, Fence(3, 1)))
    assert (refused.code, refused.epoch) == (RefusalCode.STALE_EPOCH, 7)
    assert not site.primary.streams[SESSION_ID].document.ended


def test_an_ended_session_answers_configure_and_resume_without_beginning_again() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    site.say(1, Fence(9, 1))
    assert site.say(1, configure("a")) == [Configured(1, [], [])]
    assert site.say(1, Resume()) == []
    assert site.sets(ticks=3) == []
    assert (stream.state, list(stream.volumes)) == (CaptureState.ENDED, [1])
    site.primary.suspend(stream, "x")
    assert stream.state is CaptureState.ENDED


def test_an_ended_session_refuses_the_epoch_before_the_recovery() -> None:
    site = PrimarySite()
    site.open_stream()
    site.say(1, Fence(2, 1))
    site.links.link_opened(2)
    assert refusal(site.say(2, hello(epoch=1))).code is RefusalCode.STALE_EPOCH
    assert not welcome(site.say(2, hello(epoch=2))).continues


def test_forget_leaves_nothing_and_answers_before_the_link_closes() -> None:
    site = PrimarySite()
    site.open_stream()
    site.write("a", 0, 1)
    assert site.say(1, Forget()) == [Forgotten()]
    assert site.say(1, Ack(0, 0, 0)) == [], "what the mover sent before it had the answer is of no more use"
    assert (site.primary.streams, dict(site.pool.documents), site.primary.side_file.used_bytes) == ({}, {}, 0)
    assert not any(name.startswith("changes-") for name in site.disk.names())
    site.write("a", 0, 2)


@pytest.mark.parametrize("message", AFTER_HELLO, ids=lambda m: type(m).__name__)
def test_words_on_their_way_when_the_session_was_deleted_here_do_not_bring_it_back(message: Message) -> None:
    site = PrimarySite()
    site.open_stream()
    site.primary.delete_stream(SESSION_ID)
    site.take(1)
    assert 1 in site.closed
    refusal(site.say(1, message))
    site.clock.advance(SECOND_NS)
    site.tick()
    assert (site.primary.streams, dict(site.pool.documents)) == ({}, {})


def test_a_fence_reaches_volumes_that_a_power_loss_made_the_primary_forget() -> None:
    site = PrimarySite()
    site.links.link_opened(1)
    site.links.link_received(1, hello(epoch=9))
    site.say(1, Fence(9, 12345, ["a", "gone"]))
    volume = site.pool.volumes["a"]
    assert "was recovered at" in site.primary.write_refusal(volume.number)
