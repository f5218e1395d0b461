"""Instants that are named at a primary, and what the secondary knows of them when."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.capture.instants import INSTANTS_WAITING_MAX, Instant, InstantState
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import (
    Ack,
    Configure,
    Configured,
    Message,
    NamedInstant,
    RecordSet,
    WantedVolume,
)
from isochrone.model.errors import BusyError, ConflictError, RefusedError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState
from support.cores import (
    MILLISECOND_NS,
    SESSION_ID,
    WINDOW_OPEN,
    Clock,
    PrimarySite,
    SecondarySite,
    Wire,
    hello,
)


def sites() -> tuple[PrimarySite, SecondarySite, Wire]:
    """A session whose pair is DUPLEX."""
    clock = Clock()
    primary, secondary = PrimarySite(clock), SecondarySite(clock)
    wire = Wire(secondary, primary)
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    return primary, secondary, wire


def stream_of(primary: PrimarySite) -> SessionStream:
    return primary.primary.streams[SESSION_ID]


def known(secondary: SecondarySite) -> list[tuple[int, str]]:
    return [(each.time_ns, each.text) for each in secondary.session.history.document.instants]


def lose_power(secondary: SecondarySite) -> None:
    """What is not durable is gone."""
    secondary.disk.power_loss(Random(4))
    secondary.reopen()


def test_an_instant_is_told_ahead_of_the_promise_that_covers_it() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    site.copied()
    before_ns = site.sets()[-1].through_ns
    site.write("a", 0, 1)
    instant = stream.name_instant("now")
    site.write("a", 1, 2)
    told: list[Message] = site.tick()
    at = told.index(NamedInstant(instant.time_ns, "now"))
    promises = [message.through_ns for message in told[:at] if isinstance(message, RecordSet)]
    assert max(promises, default=before_ns) < instant.time_ns
    later = [message.through_ns for message in told[at:] if isinstance(message, RecordSet)]
    assert later[-1] >= instant.time_ns


def test_writes_before_an_instant_are_earlier_and_those_after_it_later() -> None:
    primary, secondary, wire = sites()
    primary.write("a", 0, 1)
    instant = stream_of(primary).name_instant("between")
    primary.write("a", 0, 2)
    secondary.session.suspension.suspend_at(instant.time_ns, "to look at it")
    wire.run_until(lambda: secondary.session.document.state is SessionState.SUSPENDED)
    assert secondary.pool.volumes["a"].read(0, 1) == b"\x01"


def test_an_instant_is_hardened_once_the_secondary_has_it_durably() -> None:
    primary, secondary, wire = sites()
    instant = stream_of(primary).name_instant("now")
    wire.run_until(lambda: instant.state is not InstantState.WAITING)
    assert instant.state is InstantState.HARDENED
    assert secondary.session.mover.journal_ns >= instant.time_ns
    lose_power(secondary)
    assert known(secondary) == [(instant.time_ns, "now")]


def test_also_in_an_idle_session_no_journal_time_passes_an_instant_that_a_power_loss_takes() -> None:
    primary, secondary, wire = sites()
    wire.steps(300)
    instant = stream_of(primary).name_instant("now")
    while secondary.session.mover.journal_ns < instant.time_ns:
        secondary.clock.advance(MILLISECOND_NS)
        primary.primary.tick()
        while wire.deliver():
            pass
        secondary.session.tick()
        if secondary.session.mover.journal_ns < instant.time_ns:
            secondary.harden()
    lose_power(secondary)
    assert known(secondary) == [(instant.time_ns, "now")]


def test_an_instant_is_said_again_on_a_new_link_until_it_is_hardened() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    site.copied()
    instant = stream.name_instant("now")
    assert NamedInstant(instant.time_ns, "now") in site.tick()
    site.links.link_lost(1)
    site.links.link_opened(2)
    site.say(2, hello(incarnation=stream.incarnation, received_through_ns=1))
    answers = site.say(2, Configure(1, [WantedVolume("a", not_empty=True)], SessionPolicy()))
    assert [type(answer) for answer in answers] == [Configured, NamedInstant]
    site.say(2, Ack(instant.time_ns, WINDOW_OPEN, 0))
    assert instant.state is InstantState.HARDENED


def test_named_while_the_link_is_down_it_is_told_with_the_next() -> None:
    primary, secondary, wire = sites()
    wire.cut()
    instant = stream_of(primary).name_instant("offline")
    wire.run_until(lambda: instant.state is not InstantState.WAITING)
    assert instant.state is InstantState.HARDENED
    assert known(secondary) == [(instant.time_ns, "offline")]


def test_heard_twice_it_is_known_once() -> None:
    _, secondary, _ = sites()
    said = NamedInstant(secondary.clock() + 5, "twice")
    secondary.say(said)
    secondary.say(said)
    assert known(secondary) == [(said.time_ns, "twice")]


def lose_by_suspension(primary: PrimarySite, secondary: SecondarySite) -> None:
    primary.primary.suspend(stream_of(primary), "no room")


def lose_by_a_cut(primary: PrimarySite, secondary: SecondarySite) -> None:
    stream = stream_of(primary)
    stream.suspend_at_ns = stream.instants._waiting[0].time_ns - 1
    assert stream.cut_if_due()


def lose_by_deletion(primary: PrimarySite, secondary: SecondarySite) -> None:
    primary.primary.delete_stream(SESSION_ID)


@pytest.mark.parametrize("lose", [lose_by_suspension, lose_by_a_cut, lose_by_deletion])
def test_an_instant_is_lost_with_the_stream_it_rests_on(lose: object) -> None:
    primary, secondary, _ = sites()
    instant = stream_of(primary).name_instant("now")
    lose(primary, secondary)  # type: ignore[operator]
    assert instant.state is InstantState.LOST


def test_an_instant_before_a_cut_is_not_lost() -> None:
    primary, secondary, wire = sites()
    instant = stream_of(primary).name_instant("now")
    secondary.session.suspension.suspend_at(secondary.clock() + 50 * MILLISECOND_NS, "later")
    wire.run_until(lambda: secondary.session.document.state is SessionState.SUSPENDED)
    assert instant.state is InstantState.HARDENED


def test_while_the_session_is_suspended_none_is_named() -> None:
    primary, _, _ = sites()
    stream = stream_of(primary)
    primary.primary.suspend(stream, "no room")
    with pytest.raises(ConflictError, match=r"SUSPENDED: no room.*try again when"):
        stream.name_instant("now")


def test_after_a_cut_none_is_named() -> None:
    primary, _, _ = sites()
    stream = stream_of(primary)
    stream.suspend_at_ns = primary.clock()
    assert stream.cut_if_due()
    with pytest.raises(ConflictError, match="is cut, to be suspended"):
        stream.name_instant("now")


def test_more_than_can_wait_are_refused_until_some_are_hardened() -> None:
    site = PrimarySite()
    stream = site.open_stream()
    named: list[Instant] = [stream.name_instant(str(number)) for number in range(INSTANTS_WAITING_MAX)]
    with pytest.raises(BusyError, match="64 named instants wait"):
        stream.name_instant("one more")
    site.say(1, Ack(named[9].time_ns, WINDOW_OPEN, 0))
    assert [instant.state for instant in named].count(InstantState.HARDENED) == 10
    stream.name_instant("one more")


@pytest.mark.parametrize("text", ["", " ", "a\nb", "x" * 201])
def test_a_name_is_one_line_that_people_can_read(text: str) -> None:
    site = PrimarySite()
    with pytest.raises(RefusedError, match="one line of 1 to 200"):
        site.open_stream().name_instant(text)


def test_a_deleted_session_leaves_no_names() -> None:
    primary, secondary, wire = sites()
    instant = stream_of(primary).name_instant("now")
    wire.run_until(lambda: instant.state is InstantState.HARDENED)
    secondary.session.delete(force=True)
    assert [key for key in secondary.pool.documents if "history" in key] == []
