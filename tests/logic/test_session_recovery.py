"""Recovery is a state: a crash at any step repeats it to the same time, and the primaries are fenced afterwards (P4.3)."""

from __future__ import annotations

import pytest

from isochrone.link.messages import Fence, Fenced, FencedVolume, Welcome
from isochrone.model.errors import ConflictError
from isochrone.model.records import RecordKind
from isochrone.model.states import PairState, SessionState
from isochrone.session.contact import ContactState
from isochrone.session.explain import pair_state
from isochrone.testing.sim_disk import SimulatedCrash, crash_nth
from support.cores import MILLISECOND_NS, SESSION_ID, Clock, PrimarySite, SecondarySite, Wire
from support.store import TRACK, records, tags, tracks


class Sites:
    """A DUPLEX pair "a" whose tracks 0 and 1 are committed; track 2 is staged and hardened, track 3 staged only."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock)
        self.secondary = SecondarySite(self.clock)
        self.wire = Wire(self.secondary, self.primary)
        self.primary.write("a", 0, 1, 2)
        self.wire.run_until(lambda: self.secondary.session.document.pairs[0].duplex)
        self.write_and_receive(2, 3)
        self.clock.advance(20 * MILLISECOND_NS)
        self.write_and_receive(3, 4)

    def write_and_receive(self, track: int, tag: int) -> None:
        self.primary.write("a", track, tag)
        for message in self.primary.tick(self.wire.links[0]):
            self.secondary.links.link_received(0, message)
        self.secondary.collect()

    def recover(self) -> None:
        self.secondary.session.recover(drain=False, allow_incomplete=False)

    @property
    def state(self) -> SessionState:
        return self.secondary.session.document.state

    def image(self) -> list[int]:
        return tags(self.secondary.pool, "a", 5)


def test_recovery_puts_everything_received_into_service_and_ends() -> None:
    sites = Sites()
    form_ns = sites.secondary.session.mover.form_ns
    sites.recover()
    document = sites.secondary.session.document
    assert (document.state, document.epoch, document.recovered_ns) == (SessionState.RECOVERY, 2, form_ns)
    sites.secondary.harden()
    assert (sites.state, sites.image()) == (SessionState.ENDED, [1, 2, 3, 4, 0])
    assert sites.secondary.pool.staged_count(1) == 0


def test_links_are_closed_before_the_recovery_and_nothing_is_received_any_more() -> None:
    sites = Sites()
    sites.recover()
    sites.secondary.collect()
    assert [source for source, _ in sites.secondary.closed] == [0]
    sites.write_and_receive(4, 5)
    sites.secondary.harden()
    assert sites.image() == [1, 2, 3, 4, 0]


def test_p2_2_during_a_resync_the_image_held_in_service_is_what_is_recovered() -> None:
    sites = Sites()
    session = sites.secondary.session
    session.remember(session.document.changed(hold_floor_ns=session.mover.consistency_ns))
    sites.recover()
    sites.secondary.harden()
    assert (sites.state, sites.image()) == (SessionState.ENDED, [1, 2, 0, 0, 0])
    assert sites.secondary.pool.staged_count(1) == 0


def test_what_a_late_primary_sent_is_in_the_image_though_c_was_past_it_already() -> None:
    sites = Sites()
    session, pool = sites.secondary.session, sites.secondary.pool
    committed_ns = session.mover.consistency_ns
    number = pool.create_volume("b", 4 * TRACK).number
    late = records((committed_ns - 1, number, 0, 1, RecordKind.DATA))
    pool.stage(1, 1, committed_ns, late, tracks(7))
    session.remember(session.document.changed(hold_floor_ns=committed_ns))
    sites.recover()
    sites.secondary.harden()
    assert session.document.recovered_ns == committed_ns
    assert tags(pool, "b", 1) == [7]
    assert pool.staged_count(1) == 0


def test_a_sync_under_way_does_not_count_for_the_recovery() -> None:
    sites = Sites()
    sites.secondary.tick(20 * MILLISECOND_NS)
    assert sites.secondary.session.mover.is_hardening
    sites.recover()
    sites.secondary.hardens_due = 0
    sites.secondary.session.hardened()
    assert sites.state is SessionState.RECOVERY
    sites.secondary.harden()
    assert (sites.state, sites.image()) == (SessionState.ENDED, [1, 2, 3, 4, 0])


def test_recovering_twice_is_recovering_once() -> None:
    sites = Sites()
    sites.recover()
    document = sites.secondary.session.document
    sites.recover()
    assert sites.secondary.session.document == document
    sites.secondary.harden()
    sites.recover()
    assert sites.secondary.session.document.epoch == 2


def test_p4_3_a_crash_at_any_step_of_the_recovery_repeats_it_to_the_same_time() -> None:
    steps = 0
    while True:
        steps += 1
        sites = Sites()
        sites.secondary.pool.log_write()
        form_ns = sites.secondary.session.mover.form_ns
        sites.secondary.disk.hook = crash_nth(steps)
        try:
            sites.recover()
            sites.secondary.harden()
        except SimulatedCrash:
            sites.secondary.restart()
            if sites.state is SessionState.ACTIVE:
                # The crash came before the command was in the log: nothing has begun.
                assert sites.image() == [1, 2, 0, 0, 0]
                continue
            sites.secondary.harden()
        else:
            break
        assert sites.state is SessionState.ENDED
        assert sites.secondary.session.document.recovered_ns == form_ns
        assert sites.image() == [1, 2, 3, 4, 0]
        sites.secondary.pool.verify()
    assert steps > 4


def test_a_failed_sync_leaves_the_recovery_to_be_done_again() -> None:
    sites = Sites()
    sites.recover()
    sites.secondary.hardens_due = 0
    sites.secondary.session.harden_failed("the device failed")
    assert (sites.state, sites.image()) == (SessionState.RECOVERY, [1, 2, 0, 0, 0])
    sites.secondary.restart()
    sites.secondary.harden()
    assert (sites.state, sites.image()) == (SessionState.ENDED, [1, 2, 3, 4, 0])


def test_a_suspended_session_is_recovered_with_what_it_has() -> None:
    sites = Sites()
    sites.secondary.session.suspend("x")
    sites.recover()
    sites.secondary.harden()
    assert (sites.state, sites.image()) == (SessionState.ENDED, [1, 2, 3, 4, 0])


@pytest.mark.parametrize("allow", [False, True])
def test_a_partial_image_is_recovered_only_on_demand(allow: bool) -> None:
    secondary = SecondarySite()
    if not allow:
        with pytest.raises(ConflictError, match="--incomplete"):
            secondary.session.recover(drain=False, allow_incomplete=False)
        assert secondary.session.document.state is SessionState.ACTIVE
        return
    secondary.session.recover(drain=False, allow_incomplete=True)
    secondary.harden()
    assert secondary.session.document.state is SessionState.ENDED


def test_after_the_end_every_pair_is_simplex() -> None:
    sites = Sites()
    sites.recover()
    assert pair_state(sites.secondary.session, sites.secondary.session.document.pairs[0]) is PairState.SIMPLEX


# Fence


def test_the_primary_is_called_until_it_is_fenced_and_then_left_alone() -> None:
    sites = Sites()
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.recover()
    sites.secondary.harden()
    sites.wire.steps(10)
    assert not sites.secondary.session.document.sources[0].fenced
    assert sites.primary.primary.write_refusal(1) == ""
    sites.wire.refuses.clear()
    sites.wire.run_until(lambda: sites.secondary.session.document.sources[0].fenced, 1000)
    assert "was recovered at mover under epoch 2" in sites.primary.primary.write_refusal(1)
    document = sites.primary.primary.streams[SESSION_ID].document
    assert document.recovered_ns == sites.secondary.session.document.recovered_ns
    sites.wire.steps(50)
    assert sites.wire.links == {}
    assert sites.secondary.session.contacts[0].state is ContactState.DOWN


def test_no_primary_is_called_before_the_recovery_has_ended() -> None:
    sites = Sites()
    sites.recover()
    for _ in range(20):
        sites.secondary.tick(10**9)
    assert sites.secondary.dialled == []
    sites.secondary.harden()
    sites.secondary.tick(10**9)
    assert sites.secondary.dialled == [0]


def test_a_fence_that_was_not_confirmed_is_repeated_after_a_kill() -> None:
    sites = Sites()
    sites.recover()
    sites.secondary.harden()
    sites.wire.restart_secondary()
    assert sites.state is SessionState.ENDED
    sites.wire.run_until(lambda: sites.secondary.session.document.sources[0].fenced)
    sites.wire.restart_secondary()
    assert sites.secondary.session.document.sources[0].fenced
    assert sites.primary.primary.write_refusal(1)


def test_a_fence_names_epoch_and_time_and_its_confirmation_closes_the_link() -> None:
    sites = Sites()
    sites.recover()
    sites.secondary.harden()
    sites.wire.links.clear()
    sites.secondary.greet()
    answers = sites.secondary.say(Welcome(sites.primary.identity, "p1", "cc" * 16, 2, 0, False, False))
    document = sites.secondary.session.document
    assert answers == [Fence(2, document.recovered_ns, ["a"], ["a"])]
    sites.secondary.say(Fenced(2, 77, [FencedVolume("a", 3)]))
    after = sites.secondary.session.document
    assert (after.sources[0].last_write_ns, after.pairs[0].primary_marked_tracks) == (77, 3)
    assert "fenced under epoch 2" in sites.secondary.session.contacts[0].error
