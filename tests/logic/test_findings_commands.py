"""Commands in unlucky orders: switchovers that are given up, resumes that nobody has answered, sessions that are gone."""

from __future__ import annotations

import pytest

from isochrone.link.messages import Quiesced, Resume, Suspend, Unquiesce
from isochrone.model.errors import BusyError, ConflictError
from isochrone.model.states import SessionState
from isochrone.session.contact import ContactState
from isochrone.session.settings import SessionSettings
from support.cores import SECOND_NS, Clock, PrimarySite, SecondarySite, Wire, new_document


def duplex_site(settings: SessionSettings | None = None) -> tuple[PrimarySite, SecondarySite, Wire]:
    """One volume, replicated."""
    clock = Clock()
    primary = PrimarySite(clock)
    primary.write("a", 0, 1, 2, 3)
    secondary = SecondarySite(clock, settings=settings)
    wire = Wire(secondary, primary)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    return primary, secondary, wire


def test_a_switchover_of_a_session_without_pairs_ends() -> None:
    secondary = SecondarySite(document=new_document(pairs=[]))
    secondary.session.recover(drain=True, allow_incomplete=True)
    secondary.tick()
    secondary.harden()
    assert secondary.session.document.state is SessionState.ENDED


def test_pairs_do_not_leave_in_the_middle_of_a_switchover() -> None:
    _, secondary, _ = duplex_site()
    secondary.session.recover(drain=True, allow_incomplete=False)
    with pytest.raises(ConflictError, match="switching over"):
        secondary.session.remove_pairs(["a"])


def test_the_late_answer_to_a_switchover_given_up_does_not_end_the_next_one() -> None:
    primary, secondary, wire = duplex_site()
    session = secondary.session
    link = wire.links[0]
    session.recover(drain=True, allow_incomplete=False)
    on_the_way = [answer for message in secondary.take() for answer in primary.say(link, message)]
    assert [type(message) for message in on_the_way] == [Quiesced]
    session.recovery.cancel_drain()
    for message in secondary.take():
        primary.say(link, message)
    on_the_way += primary.tick(link)
    primary.write("a", 5, 55)  # acknowledged: the primary accepts writes again
    session.recover(drain=True, allow_incomplete=False)
    for message in on_the_way:
        secondary.links.link_received(0, message)
    for _ in range(3):
        secondary.tick()
        secondary.harden()
    assert session.document.state is SessionState.ACTIVE
    wire.run_until(lambda: session.document.state is SessionState.ENDED)
    assert secondary.pool.volumes["a"].read(5 * 4096, 1) == bytes([55])


def test_a_suspension_gives_a_switchover_up_at_once() -> None:
    primary, secondary, wire = duplex_site()
    secondary.session.recover(drain=True, allow_incomplete=False)
    secondary.session.suspend("by the operator")
    wire.step()
    assert not secondary.session.is_draining
    assert primary.primary.write_refusal(primary.pool.volumes["a"].number) == ""


def test_a_resumed_pair_is_not_duplex_before_its_primary_has_copied() -> None:
    primary, secondary, wire = duplex_site()
    secondary.session.suspend("by the operator")
    wire.steps(2)
    primary.write("a", 9, 90)
    secondary.session.resume()
    secondary.tick()
    assert not secondary.session.document.pairs[0].duplex
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    assert secondary.pool.volumes["a"].read(9 * 4096, 1) == b"\x5a"


def test_a_resumed_pair_whose_primary_never_heard_of_the_suspension_becomes_duplex_again() -> None:
    _, secondary, wire = duplex_site()
    wire.cut()
    secondary.session.suspend("by the operator")
    secondary.session.resume()
    assert not secondary.session.document.pairs[0].duplex
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)


def test_a_primary_that_is_asked_to_resume_and_says_nothing_is_called_anew() -> None:
    primary, secondary, wire = duplex_site()
    secondary.session.suspend("by the operator")
    wire.steps(2)
    secondary.clock.advance(100 * SECOND_NS)  # a suspended primary has nothing to say
    secondary.tick()
    assert secondary.session.contacts[0].state is ContactState.STREAMING
    secondary.session.resume()
    secondary.tick()
    assert secondary.session.contacts[0].state is ContactState.STREAMING
    assert [type(m) for m in secondary.take()] == [Resume]  # lost on the way
    secondary.tick(SessionSettings().silence_ns_max)
    contact = secondary.session.contacts[0]
    assert contact.state is not ContactState.STREAMING
    assert primary.primary.streams


def test_crossing_suspends_and_resumes_end_with_both_sides_of_one_mind() -> None:
    primary, secondary, wire = duplex_site()
    session = secondary.session
    session.suspend("one")
    session.resume()
    session.suspend("two")
    session.resume()
    wire.steps(5)
    assert session.document.state is SessionState.ACTIVE
    wire.run_until(lambda: session.document.pairs[0].duplex)
    session.suspend("three")
    session.resume()
    session.suspend("four")
    wire.steps(3)
    assert secondary.session.document.state is SessionState.SUSPENDED
    assert all(not stream.incarnation for stream in primary.primary.streams.values())


def test_nothing_that_comes_after_it_brings_a_deleted_session_back() -> None:
    _, secondary, wire = duplex_site()
    wire.cut()
    secondary.session.remove_pairs(["a"])
    secondary.session.delete(force=True)
    assert secondary.session.is_forgotten
    secondary.tick(10 * SECOND_NS)
    secondary.session.hardened()
    secondary.links.link_opened(0)
    assert [m for m in secondary.take() if not isinstance(m, Unquiesce | Suspend)] == []
    assert secondary.dialled == []
    assert not secondary.pool.documents
    assert secondary.pool.staged_through_ns(1, 0) == 0


def test_a_document_that_the_pool_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, secondary, _ = duplex_site()
    before = secondary.session.document

    def refuse(_key: str, _value: bytes) -> None:
        raise BusyError("the pool's documents are full")

    monkeypatch.setattr(secondary.pool, "put_document", refuse)
    with pytest.raises(BusyError):
        secondary.session.add_pairs([], [("p1", "b", "b")])
    assert secondary.session.document == before
