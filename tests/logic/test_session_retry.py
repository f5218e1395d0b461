"""A session whose device, pool or link gives trouble: DUPLEX with tracks waiting, and suspended past the budget (S6)."""

from __future__ import annotations

import pytest

from isochrone.link.messages import Suspend
from isochrone.model.errors import PoolReadOnlyError
from isochrone.model.states import PairState, SessionState
from isochrone.session.explain import blocked_on, pair_state
from isochrone.session.gate import commit_limit_ns
from isochrone.store.superblock import TRACKS_NAME
from isochrone.testing.device_trouble import BadSpots
from isochrone.testing.sim_disk import fail_nth
from support.cores import MILLISECOND_NS, SECOND_NS, PrimarySite, SecondarySite, Wire
from support.store import run, tags


def pair_of_sites(**settings: object) -> tuple[PrimarySite, SecondarySite, Wire]:
    """A session whose one pair is DUPLEX."""
    primary = PrimarySite()
    secondary = SecondarySite(primary.clock)
    secondary.session.change_settings(secondary.session.document.changed(**settings))
    wire = Wire(secondary, primary)
    primary.write("a", 0, 1, 2, 3)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    return primary, secondary, wire


def trouble(secondary: SecondarySite) -> None:
    secondary.disk.trouble = BadSpots(TRACKS_NAME, ((0, 1 << 40),), secondary.clock)


def state_of(secondary: SecondarySite) -> tuple[SessionState, PairState]:
    session = secondary.session
    return session.document.state, pair_state(session, session.document.pairs[0])


def test_p6_3_a_pair_stays_duplex_while_tracks_wait_and_says_what_it_waits_for() -> None:
    primary, secondary, wire = pair_of_sites()
    trouble(secondary)
    primary.write("a", 0, 9)
    wire.steps(20)
    session = secondary.session
    assert state_of(secondary) == (SessionState.ACTIVE, PairState.DUPLEX)
    assert "1 track of a could not be stored for" in blocked_on(session, secondary.clock())
    assert "tried again up to 60 s" in blocked_on(session, secondary.clock())
    secondary.disk.trouble = None
    wire.steps(400)
    assert blocked_on(session, secondary.clock()) == ""
    assert tags(secondary.pool, "a", 3) == [9, 2, 3]
    assert session.mover.retry_count > 1


def test_past_the_time_the_session_suspends_and_says_which_tracks_why_and_since_when() -> None:
    primary, secondary, wire = pair_of_sites(retry_ns_max=SECOND_NS)
    trouble(secondary)
    before = tags(secondary.pool, "a", 3)
    primary.write("a", 1, 8, 9)
    wire.steps(90)
    assert state_of(secondary)[0] is SessionState.ACTIVE
    wire.steps(30)
    document = secondary.session.document
    assert document.state is SessionState.SUSPENDED
    assert "2 tracks of a could not be stored for 1.0 s" in document.reason
    assert "simulated" in document.reason
    assert tags(secondary.pool, "a", 3) == before
    assert primary.marked() == {1, 2}


def test_past_the_number_of_tracks_the_session_suspends() -> None:
    primary, secondary, wire = pair_of_sites(retry_tracks_max=3)
    trouble(secondary)
    primary.write("a", 0, 7, 8, 9)
    wire.steps(5)
    assert state_of(secondary)[0] is SessionState.ACTIVE
    primary.write("a", 5, 7)
    wire.steps(5)
    assert state_of(secondary)[0] is SessionState.SUSPENDED
    assert "4 tracks of a" in secondary.session.document.reason


def test_a_resume_after_the_budget_copies_what_waited_and_is_not_suspended_for_it_again() -> None:
    primary, secondary, wire = pair_of_sites(retry_tracks_max=1)
    trouble(secondary)
    primary.write("a", 0, 7, 8)
    wire.steps(5)
    assert state_of(secondary)[0] is SessionState.SUSPENDED
    secondary.session.resume()
    secondary.session.tick()
    assert state_of(secondary)[0] is SessionState.ACTIVE
    secondary.disk.trouble = None
    wire.steps(60)
    assert state_of(secondary) == (SessionState.ACTIVE, PairState.DUPLEX)
    assert tags(secondary.pool, "a", 3) == [7, 8, 3]


def test_a_kill_of_the_mover_while_tracks_wait_loses_nothing_and_copies_nothing() -> None:
    primary, secondary, wire = pair_of_sites()
    incarnation = secondary.session.document.sources[0].incarnation
    trouble(secondary)
    primary.write("a", 0, 7)
    wire.steps(3)
    primary.write("a", 0, 8)
    primary.write("a", 4, 9)
    wire.steps(20)
    assert secondary.session.mover.waiting_ns is not None
    secondary.disk.trouble = None
    wire.restart_secondary()
    wire.steps(60)
    assert tags(secondary.pool, "a", 5) == [8, 2, 3, 0, 9]
    assert secondary.session.document.sources[0].incarnation == incarnation


def test_recovery_while_tracks_wait_goes_to_the_last_instant_before_them() -> None:
    primary, secondary, wire = pair_of_sites()
    trouble(secondary)
    primary.write("a", 0, 7)
    wire.steps(2)
    secondary.disk.trouble = None
    assert secondary.session.mover.sources[0].waiting_tracks.oldest_ns is not None
    waiting_ns = secondary.session.mover.waiting_ns
    assert waiting_ns is not None
    wire.cut()
    secondary.session.recover(drain=False, allow_incomplete=False)
    secondary.harden()
    assert secondary.session.document.recovered_ns < waiting_ns
    assert tags(secondary.pool, "a", 3) == [1, 2, 3]
    assert secondary.session.mover.waiting_ns is None


def test_a_pair_that_leaves_takes_its_waiting_tracks_along() -> None:
    primary, secondary, wire = pair_of_sites()
    trouble(secondary)
    primary.write("a", 0, 7)
    wire.steps(5)
    secondary.session.remove_pairs(["a"])
    wire.steps(20)
    assert secondary.session.document.pairs == ()
    assert secondary.session.mover.waiting_ns is None


def test_a_pool_that_turned_read_only_suspends_at_once_so_that_no_primary_waits_for_it() -> None:
    primary, secondary, _ = pair_of_sites()
    secondary.disk.hook = fail_nth(1, kind="datasync", name=TRACKS_NAME)
    with pytest.raises(OSError, match="simulated"):
        run(secondary.pool.sync())
    primary.write("a", 0, 7)
    secondary.tick()
    sent = secondary.take()
    (suspend,) = [message for message in sent if isinstance(message, Suspend)]
    assert "read-only" in suspend.reason
    assert secondary.session.document.state is SessionState.SUSPENDED
    assert "read-only" in secondary.session.document.reason
    secondary.tick()
    assert secondary.take() == []
    with pytest.raises(PoolReadOnlyError):
        secondary.session.resume()


def test_a_primary_that_comes_back_to_a_read_only_pool_is_told_to_suspend() -> None:
    primary, secondary, wire = pair_of_sites()
    wire.cut()
    secondary.disk.hook = fail_nth(1, kind="datasync", name=TRACKS_NAME)
    with pytest.raises(OSError, match="simulated"):
        run(secondary.pool.sync())
    secondary.tick(SECOND_NS)
    secondary.hardens_due = 0
    while wire.deliver():
        pass
    stream = next(iter(primary.primary.streams.values()))
    assert stream.state.name == "SUSPENDED"


def damaged(secondary: SecondarySite) -> None:
    """A record set arrives damaged: the shell loses the link for that, and dials again."""
    secondary.links.link_lost(
        0, "a RECORD_SET message was damaged on the link (checksum); reconnect", damaged=True
    )


def test_record_sets_that_arrive_damaged_without_end_suspend() -> None:
    _, secondary, _ = pair_of_sites(retry_ns_max=SECOND_NS)
    for _ in range(12):
        damaged(secondary)
        secondary.tick(100 * MILLISECOND_NS)
    assert secondary.session.document.state is SessionState.SUSPENDED
    assert "were rejected 10 times in 1.0 s" in secondary.session.document.reason
    assert "damaged on the link" in secondary.session.document.reason


def test_a_sound_record_set_starts_the_patience_with_a_link_anew() -> None:
    primary, secondary, wire = pair_of_sites(retry_ns_max=SECOND_NS)
    for _ in range(3):
        wire.cut()
        for _ in range(2):
            damaged(secondary)
            secondary.tick(100 * MILLISECOND_NS)
        assert secondary.session.contacts[0].rejected_count == 2
        primary.write("a", 0, 5)
        wire.steps(60)
        assert secondary.session.contacts[0].rejected_count == 0
    assert secondary.session.document.state is SessionState.ACTIVE


def test_the_gate_stops_before_what_waits() -> None:
    assert commit_limit_ns(100, None, waiting_ns=50) == 49
    assert commit_limit_ns(100, 30, waiting_ns=50) == 30
    assert commit_limit_ns(100, None, 40, 50) == 40
    assert commit_limit_ns(100, 70) == 70


def test_acks_never_promise_what_is_only_in_memory() -> None:
    primary, secondary, wire = pair_of_sites()
    trouble(secondary)
    promised = []
    primary.write("a", 0, 7)
    wire.steps(2)
    waiting_ns = secondary.session.mover.waiting_ns
    assert waiting_ns is not None
    for _ in range(20):
        primary.write("a", 3, 7)
        wire.steps(1)
        promised.append(secondary.session.acks_told[0].hardened_ns)
    assert max(promised) < waiting_ns
