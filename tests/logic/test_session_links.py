"""What primaries say to a session, also the wrong primary and the wrong word, and what it answers."""

from __future__ import annotations

import dataclasses

import pytest

from isochrone.link.messages import (
    PROTOCOL_VERSION,
    Ack,
    Configure,
    Configured,
    CopyProgress,
    Fenced,
    Forgotten,
    Hello,
    Message,
    Quiesced,
    RecordSet,
    RefusalCode,
    Refused,
    Resume,
    Resumed,
    Suspend,
    Suspended,
    Unquiesce,
    VolumeCopy,
    VolumeInfo,
    VolumeRefusal,
    WantedVolume,
    Welcome,
)
from isochrone.model.errors import PoolReadOnlyError
from isochrone.model.records import RecordKind
from isochrone.model.states import SessionState
from isochrone.session.contact import ContactState
from isochrone.testing.sim_disk import fail_nth
from support.cores import (
    MILLISECOND_NS,
    MOVER_ID,
    PRIMARY_IDS,
    SECOND_NS,
    SESSION_ID,
    SecondarySite,
    new_document,
)
from support.store import TRACK, records, run, tracks

STREAM = "cc" * 16
NUMBER = 7
"""Number of volume "a" at the primary."""


def welcome(
    *, continues: bool = False, suspended: bool = False, controller_id: str = PRIMARY_IDS[0], reason: str = ""
) -> Welcome:
    return Welcome(controller_id, "p1", STREAM, 1, 0, continues, suspended, reason)


def configured(*volumes: tuple[str, int, int], refused: tuple[tuple[str, str], ...] = ()) -> Configured:
    """(name, number, tracks)."""
    infos = [VolumeInfo(name, number, count * TRACK, count) for name, number, count in volumes]
    return Configured(1, infos, [VolumeRefusal(name, text) for name, text in refused])


def record_set(time_ns: int, track: int, *tags_: int, number: int = NUMBER) -> RecordSet:
    rows = records((time_ns, number, track, len(tags_), RecordKind.DATA))
    return RecordSet(1, time_ns, rows.tobytes(), tracks(*tags_))


def greeted() -> SecondarySite:
    site = SecondarySite()
    site.tick()
    assert site.dialled == [0]
    site.greet()
    return site


def streaming(site: SecondarySite | None = None) -> SecondarySite:
    """A session whose pair a:a streams; the volume has 16 tracks."""
    site = site or greeted()
    site.say(welcome())
    site.say(configured(("a", NUMBER, 16)))
    assert site.session.contacts[0].state is ContactState.STREAMING
    return site


def state_of(site: SecondarySite) -> SessionState:
    return site.session.document.state


def reason_of_close(site: SecondarySite) -> str:
    site.collect()
    assert site.session.contacts[0].state is ContactState.DOWN
    ((source, reason),) = site.closed
    assert source == 0
    return reason


# The handshake


def test_only_the_answer_to_the_last_configure_confirms_a_pair() -> None:
    site = greeted()
    site.say(welcome())
    site.session.configure(0)
    site.say(configured(("a", NUMBER, 16)))
    before = site.session.document.pairs[0]
    site.say(dataclasses.replace(configured(("a", NUMBER, 16)), number=2))
    after = site.session.document.pairs[0]
    assert (before.is_confirmed, after.is_confirmed) == (False, True)
    assert site.session.contacts[0].state is ContactState.STREAMING


def test_hello_says_who_which_session_and_where_it_stands() -> None:
    site = SecondarySite()
    assert site.greet() == [
        Hello(
            PROTOCOL_VERSION,
            SESSION_ID,
            "s",
            1,
            MOVER_ID,
            "mover",
            "",
            TRACK,
            site.session.document.compression,
            "",
            0,
        )
    ]


def test_hello_of_a_later_link_names_the_stream_and_what_was_staged_of_it() -> None:
    site = streaming()
    site.say(record_set(500, 0, 1))
    site.links.link_lost(0, "cut")
    (greeting,) = site.greet()
    assert isinstance(greeting, Hello)
    assert (greeting.incarnation, greeting.received_through_ns) == (STREAM, 500)


def test_hello_after_a_kill_claims_no_more_than_the_log_holds() -> None:
    site = streaming()
    site.say(record_set(500, 0, 1))
    site.pool.log_write()
    site.say(record_set(600, 1, 2))
    site.restart()
    (greeting,) = site.greet()
    assert isinstance(greeting, Hello)
    assert (greeting.incarnation, greeting.received_through_ns) == (STREAM, 500)


def test_welcome_is_answered_with_the_wanted_volumes() -> None:
    site = greeted()
    (answer,) = site.say(welcome())
    assert isinstance(answer, Configure)
    assert answer.volumes == [WantedVolume("a")]
    assert site.session.document.sources[0].controller_id == PRIMARY_IDS[0]


def test_a_confirmed_pair_is_told_as_not_empty() -> None:
    site = streaming()
    site.links.link_lost(0, "cut")
    site.greet()
    (answer,) = site.say(welcome(continues=True))
    assert isinstance(answer, Configure)
    assert answer.volumes == [WantedVolume("a", not_empty=True)]


def test_another_controller_at_the_address_is_refused_and_named() -> None:
    site = streaming()
    site.links.link_lost(0, "cut")
    site.greet()
    before = site.session.document
    assert site.say(welcome(controller_id=PRIMARY_IDS[1])) == []
    assert f"({PRIMARY_IDS[1]}), not the one this session began with" in reason_of_close(site)
    assert site.session.document == before


@pytest.mark.parametrize(("code", "word"), [(RefusalCode.STALE_EPOCH, "refused"), (RefusalCode.BUSY, "busy")])
def test_a_refusal_closes_the_link_and_its_text_is_kept(code: RefusalCode, word: str) -> None:
    site = greeted()
    site.say(Refused(code, "because of this"))
    assert reason_of_close(site) == f"{word}: because of this"
    assert site.session.contacts[0].error == f"{word}: because of this"


def test_a_confirmed_pair_gets_a_new_secondary_of_its_size_and_the_window_opens() -> None:
    site = greeted()
    site.say(welcome())
    answers = site.say(configured(("a", NUMBER, 16)))
    pair = site.session.document.pairs[0]
    assert (pair.primary_number, pair.secondary_number) == (NUMBER, site.pool.volumes["a"].number)
    assert site.pool.volumes["a"].size_bytes == 16 * TRACK
    assert [message for message in answers if isinstance(message, Ack)] == [
        Ack(0, site.session.mover.settings.window_bytes, 0)
    ]


def test_an_empty_volume_of_the_right_size_may_be_the_secondary() -> None:
    site = greeted()
    number = site.pool.create_volume("a", 16 * TRACK).number
    streaming(site)
    assert site.session.document.pairs[0].secondary_number == number


@pytest.mark.parametrize(
    ("again", "text"),
    [(("a", NUMBER + 1, 16), "deleted and created anew"), (("a", NUMBER, 32), "has 65536 bytes")],
    ids=["recreated", "resized"],
)
def test_a_volume_that_is_no_longer_the_pairs_primary_never_streams(
    again: tuple[str, int, int], text: str
) -> None:
    site = streaming()
    site.links.link_lost(0, "cut")
    site.greet()
    site.say(welcome(continues=True))
    site.say(configured(again))
    pair, contact = site.session.document.pairs[0], site.session.contacts[0]
    assert text in pair.suspend_reason
    assert text in contact.refused["a"]
    assert pair.is_set_aside
    assert not pair.duplex
    assert pair.primary_number == NUMBER
    assert contact.state is ContactState.STREAMING
    rows = records((500, again[1], 0, 1, RecordKind.DATA))
    site.say(RecordSet(1, 600, rows.tobytes(), tracks(1)))
    assert site.pool.staged_count(1) == 0


def test_a_volume_that_the_primary_refuses_is_told_and_the_others_stream() -> None:
    site = SecondarySite(document=new_document(pairs=((0, "a", "a"), (0, "b", "b"))))
    site.greet()
    site.say(welcome())
    site.say(configured(("b", 8, 16), refused=(("a", "no volume here"),)))
    contact = site.session.contacts[0]
    assert (contact.state, contact.refused) == (ContactState.STREAMING, {"a": "no volume here"})
    assert [pair.is_confirmed for pair in site.session.document.pairs] == [False, True]


# Wrong words, and words at the wrong time

EARLY: list[Message] = [
    configured(),
    record_set(5, 0, 1),
    CopyProgress([]),
    Suspended("x", 0),
    Resumed(STREAM, []),
    Quiesced(0),
    Fenced(1),
    Forgotten(),
    Ack(0, 0, 0),
]


@pytest.mark.parametrize("message", EARLY, ids=lambda m: type(m).__name__)
def test_any_word_before_welcome_closes_the_link_and_changes_nothing(message: Message) -> None:
    site = greeted()
    before = site.session.document
    site.say(message)
    assert "before Welcome" in reason_of_close(site)
    assert site.session.document == before


@pytest.mark.parametrize("message", [Ack(0, 0, 0), Suspend("x"), Resume()], ids=lambda m: type(m).__name__)
def test_a_word_that_primaries_do_not_say_closes_the_link(message: Message) -> None:
    site = streaming()
    site.say(message)
    assert "a primary does not send" in reason_of_close(site)


def test_records_before_the_volumes_are_agreed_close_the_link() -> None:
    site = greeted()
    site.say(welcome())
    site.say(record_set(5, 0, 1))
    assert "before the session was configured" in reason_of_close(site)


def test_records_of_an_unknown_volume_close_the_link_and_store_nothing() -> None:
    site = streaming()
    site.say(record_set(5, 0, 1, number=NUMBER + 1))
    assert "not configured" in reason_of_close(site)
    assert site.pool.staged_count(1) == 0


@pytest.mark.parametrize("message", [welcome(), record_set(5, 0, 1)], ids=lambda m: type(m).__name__)
def test_words_that_still_come_on_a_closed_link_are_not_heard(message: Message) -> None:
    site = streaming()
    site.session.close(0, "enough")
    site.collect()
    before = site.session.document
    assert site.say(message) == []
    assert site.session.document == before
    assert site.pool.staged_count(1) == 0


def test_p2_3_a_record_set_that_the_pool_refuses_closes_the_link_so_that_it_comes_again() -> None:
    site = streaming()
    site.say(record_set(5, 0, 1))
    site.disk.hook = fail_nth(1, kind="datasync", name="tracks")
    with pytest.raises(OSError, match="simulated"):
        run(site.pool.sync())
    with pytest.raises(PoolReadOnlyError):
        site.say(record_set(6, 1, 2))
    assert "read-only" in reason_of_close(site)
    site.say(record_set(7, 2, 3))
    assert site.session.mover.form_ns == 5
    (greeting,) = site.greet()
    assert isinstance(greeting, Hello)
    assert greeting.received_through_ns == 5


def test_p2_3_a_record_set_that_contradicts_what_is_staged_closes_the_link() -> None:
    site = streaming()
    site.say(record_set(5, 99, 1))
    assert "not within a volume" in reason_of_close(site)
    assert site.session.mover.form_ns == 0


# Suspension


def test_a_primary_that_suspends_suspends_the_session_and_every_other_primary() -> None:
    site = SecondarySite(document=new_document(primaries=("p1", "p2"), pairs=((0, "a", "a"), (1, "b", "b"))))
    for source, name in enumerate(("a", "b")):
        site.greet(source)
        site.say(welcome(controller_id=PRIMARY_IDS[source]), source)
        site.say(configured((name, NUMBER, 16)), source)
    assert site.say(Suspended("side file full", 5)) == []
    assert state_of(site) is SessionState.SUSPENDED
    assert site.session.document.reason == "primary p1: side file full"
    assert site.take(1) == [Suspend("primary p1: side file full")]


def test_a_primary_found_suspended_suspends_the_session_unless_it_was_resumed_meanwhile() -> None:
    site = streaming()
    site.links.link_lost(0, "cut")
    site.greet()
    site.say(welcome(suspended=True, reason="overflow"))
    assert state_of(site) is SessionState.SUSPENDED
    site.links.link_lost(0, "cut")
    site.session.resume()
    site.greet()
    answers = site.say(welcome(suspended=True, reason="overflow"))
    assert Resume() in answers
    assert state_of(site) is SessionState.ACTIVE


def test_a_primary_that_did_not_hear_of_the_suspension_is_told_at_its_return() -> None:
    site = streaming()
    site.links.link_lost(0, "cut")
    site.session.suspend("maintenance")
    site.greet()
    assert Suspend("maintenance") in site.say(welcome(continues=True))


def test_a_suspend_that_overtakes_the_answer_to_resume_reaches_the_primary() -> None:
    site = streaming()
    site.session.suspend("one")
    site.say(Suspended("one", 0))
    site.session.resume()
    site.session.suspend("two")
    assert Suspend("two") in site.take() + site.say(Resumed("dd" * 16, []))


def test_an_answer_to_an_earlier_suspend_does_not_undo_a_resume() -> None:
    site = streaming()
    site.session.suspend("one")
    site.session.resume()
    assert site.take()[-2:] == [Suspend("one"), Resume()]
    site.say(Suspended("one", 0))
    assert state_of(site) is SessionState.ACTIVE
    site.say(Resumed("dd" * 16, []))
    assert site.session.document.sources[0].incarnation == "dd" * 16


# A late joiner


def test_a_late_joiners_pair_is_not_duplex_before_c_has_passed_what_was_reached_without_it() -> None:
    site = SecondarySite(document=new_document(primaries=("p1", "p2"), pairs=((0, "a", "a"), (1, "b", "b"))))

    def promise(source: int, through_ns: int) -> None:
        site.say(RecordSet(1, through_ns, b"", b""), source)

    def duplex() -> list[bool]:
        site.tick()
        site.harden()
        return [pair.duplex for pair in site.session.document.pairs]

    for source, name in enumerate("ab"):
        site.greet(source)
        site.say(welcome(controller_id=PRIMARY_IDS[source]), source)
        site.say(configured((name, NUMBER, 16)), source)
    promise(0, 100)
    site.say(CopyProgress([VolumeCopy(NUMBER, 0, 50)]), 0)
    assert duplex() == [True, False]
    promise(1, 60)
    site.say(CopyProgress([VolumeCopy(NUMBER, 0, 55)]), 1)
    assert duplex() == [True, False]
    promise(0, 150)
    promise(1, 150)
    assert duplex() == [True, True]


# Life of the link


def test_an_ack_is_sent_only_when_it_is_news() -> None:
    site = streaming()
    site.tick()
    site.harden()
    site.take()
    site.tick(MILLISECOND_NS)
    assert site.take() == []
    site.say(RecordSet(1, site.clock.ns, b"", b""))
    site.tick()
    assert [type(message) for message in site.take()] == [Ack]


def test_a_silent_primary_is_left_and_called_again() -> None:
    site = streaming()
    site.tick(site.settings.silence_ns_max)
    site.tick(MILLISECOND_NS)
    assert "silent" in reason_of_close(site)
    site.tick(SECOND_NS)
    assert site.dialled == [0, 0]


def test_progress_of_a_copy_is_kept_until_the_link_is_lost() -> None:
    site = streaming()
    site.say(CopyProgress([VolumeCopy(NUMBER, 3, 0)]))
    assert site.session.contacts[0].tracks_remaining == {NUMBER: 3}
    site.links.link_lost(0, "cut")
    assert site.session.contacts[0].tracks_remaining == {}


def test_a_lost_link_is_told_once() -> None:
    site = streaming()
    site.links.link_lost(0, "first")
    site.links.link_lost(0, "second")
    assert site.session.contacts[0].error == "first"


def test_outside_a_switchover_a_primary_is_told_to_accept_writes() -> None:
    site = greeted()
    site.say(welcome())
    assert Unquiesce() in site.say(configured(("a", NUMBER, 16)))
