"""A planned switchover: primaries refuse writes, the last acknowledged write arrives, and giving up gives writes back."""

from __future__ import annotations

import pytest

from isochrone.link.messages import Quiesce, Quiesced, Unquiesce
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState
from isochrone.session.contact import ContactState
from isochrone.session.document import SourceDocument
from support.cores import SECOND_NS, Clock, PrimarySite, SecondarySite, Wire, images_equal


class Sites:
    """A DUPLEX pair "a", and a switchover that can be begun."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock)
        self.secondary = SecondarySite(self.clock)
        self.wire = Wire(self.secondary, self.primary)
        self.primary.write("a", 0, 1, 2)
        self.wire.run_until(lambda: self.secondary.session.document.pairs[0].duplex)

    @property
    def state(self) -> SessionState:
        return self.secondary.session.document.state

    def drain(self) -> None:
        self.secondary.session.recover(drain=True, allow_incomplete=False)

    def deliver(self) -> None:
        while self.wire.deliver():
            pass

    def accepts_writes(self) -> bool:
        return self.primary.primary.write_refusal(1) == ""


def test_everything_acknowledged_is_in_service_after_a_switchover() -> None:
    sites = Sites()
    sites.primary.write("a", 5, 9)
    sites.drain()
    sites.wire.run_until(lambda: sites.state is SessionState.ENDED)
    assert images_equal(sites.primary, sites.secondary, "a")
    assert not sites.accepts_writes()


def test_recovery_does_not_begin_before_c_has_passed_the_last_write_of_the_primary() -> None:
    sites = Sites()
    sites.drain()
    sites.deliver()
    quiesced_ns = sites.secondary.session.contacts[0].quiesced_ns
    assert quiesced_ns is not None
    while sites.state is SessionState.ACTIVE:
        assert sites.secondary.session.is_draining
        sites.wire.step()
    assert sites.secondary.session.document.recovered_ns >= quiesced_ns


def test_writes_are_refused_from_quiesce_on() -> None:
    sites = Sites()
    sites.drain()
    sites.deliver()
    with pytest.raises(ConflictError, match="switching over"):
        sites.primary.write("a", 0, 3)


def test_a_switchover_that_takes_too_long_is_given_up_and_writes_are_accepted_again() -> None:
    sites = Sites()
    sites.drain()
    sites.secondary.tick(sites.secondary.settings.drain_ns_max + SECOND_NS)
    assert not sites.secondary.session.is_draining
    assert sites.state is SessionState.ACTIVE
    sites.wire.steps(5)
    assert sites.accepts_writes()


def test_a_primary_whose_link_was_lost_while_draining_is_quiesced_again_and_drained() -> None:
    sites = Sites()
    sites.drain()
    sites.deliver()
    sites.wire.cut()
    assert sites.secondary.session.contacts[0].quiesced_ns is None
    sites.wire.run_until(lambda: sites.state is SessionState.ENDED)
    assert images_equal(sites.primary, sites.secondary, "a")


def test_a_primary_that_was_unreachable_when_the_switchover_was_given_up_accepts_writes_at_its_return() -> (
    None
):
    sites = Sites()
    sites.drain()
    sites.deliver()
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.clock.advance(sites.secondary.settings.drain_ns_max)
    sites.wire.steps(3)
    assert not sites.secondary.session.is_draining
    assert not sites.accepts_writes()
    sites.wire.refuses.clear()
    sites.wire.run_until(sites.accepts_writes, 1000)
    sites.primary.write("a", 3, 7)
    sites.wire.steps(5)
    assert images_equal(sites.primary, sites.secondary, "a")


def test_a_secondary_killed_while_draining_has_given_the_switchover_up() -> None:
    sites = Sites()
    sites.drain()
    sites.deliver()
    sites.wire.restart_secondary()
    assert sites.state is SessionState.ACTIVE
    sites.wire.run_until(sites.accepts_writes)


def test_a_switchover_needs_every_primary_streaming() -> None:
    sites = Sites()
    sites.wire.refuses.add(0)
    sites.wire.cut()
    with pytest.raises(ConflictError, match="missing: p1"):
        sites.drain()
    assert not sites.secondary.session.is_draining


def test_a_suspended_session_is_not_switched_over() -> None:
    sites = Sites()
    sites.secondary.session.suspend("x")
    sites.wire.steps(2)
    with pytest.raises(ConflictError, match="without --drain"):
        sites.drain()
    assert sites.accepts_writes()


def test_an_incomplete_image_is_not_switched_over_and_nobody_is_quiesced() -> None:
    clock = Clock()
    primary = PrimarySite(clock)
    secondary = SecondarySite(clock)
    with pytest.raises(ConflictError, match="no complete image"):
        secondary.session.recover(drain=True, allow_incomplete=False)
    assert Quiesce() not in secondary.take()
    assert primary.primary.write_refusal(1) == ""


def test_no_pair_is_added_while_draining() -> None:
    sites = Sites()
    sites.drain()
    with pytest.raises(ConflictError, match="switching over"):
        sites.secondary.session.add_pairs([SourceDocument(name="p1", address="x")], [("p1", "b", "b")])


def test_cancelling_tells_every_primary_that_can_be_told() -> None:
    sites = Sites()
    sites.drain()
    sites.deliver()
    sites.secondary.session.recovery.cancel_drain()
    assert sites.secondary.take() == [Unquiesce()]
    assert sites.secondary.session.contacts[0].quiesced_ns is None
    assert sites.secondary.session.contacts[0].state is ContactState.STREAMING
    sites.secondary.say(Quiesced(1))
    sites.secondary.tick()
    assert sites.state is SessionState.ACTIVE
