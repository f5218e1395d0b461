"""When a suspended session resumes by itself, and what it says it waits for until then."""

from __future__ import annotations

import pytest

from isochrone.controller.auto_resume_reports import auto_resume_report
from isochrone.controller.capture_reports import Now
from isochrone.link.messages import CaptureReport
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState, SuspendCause
from isochrone.session.auto_resume import BUDGET_PERIOD_NS, AutoResume, Budget, HeldTime, Outlook, budget
from isochrone.session.document import SessionDocument
from isochrone.session.settings import SessionSettings
from support.cores import SECOND_NS, Clock, PrimarySite, SecondarySite, Wire, new_document

MINUTE_NS = 60 * SECOND_NS
FREE = Budget(0, 60 * SECOND_NS, 0)


def outlook(auto: AutoResume, now_ns: int, cause: SuspendCause = SuspendCause.SIDE_FILE) -> Outlook:
    return auto.outlook(cause, 0, [], FREE, now_ns)


def test_only_a_command_ends_what_a_command_began() -> None:
    auto = AutoResume(SessionSettings())
    assert not outlook(auto, 10**18, SuspendCause.COMMAND).due
    assert all(
        outlook(auto, 10**18, cause).due for cause in SuspendCause if cause is not SuspendCause.COMMAND
    )


def test_the_wait_doubles_up_to_its_maximum_and_begins_anew_after_a_while_of_duplex() -> None:
    auto = AutoResume(SessionSettings())
    waits = []
    for _ in range(9):
        waits.append(auto.wait_ns // SECOND_NS)
        auto.resumed()
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    auto.running(0, is_duplex=True)
    auto.running(599 * SECOND_NS, is_duplex=True)
    assert auto.wait_ns == 900 * SECOND_NS
    auto.running(600 * SECOND_NS, is_duplex=False)
    auto.running(601 * SECOND_NS, is_duplex=True)
    auto.running(1200 * SECOND_NS, is_duplex=True)
    assert auto.wait_ns == 900 * SECOND_NS
    auto.running(1201 * SECOND_NS, is_duplex=True)
    assert auto.wait_ns == 10 * SECOND_NS


def test_it_is_due_after_the_wait_and_not_before() -> None:
    auto = AutoResume(SessionSettings())
    assert [outlook(auto, at * SECOND_NS).due for at in (0, 9, 10)] == [False, False, True]


def test_obstacles_are_named_and_no_time_is_promised() -> None:
    auto = AutoResume(SessionSettings())
    found = auto.outlook(SuspendCause.LINK, 0, ["primary west: not connected", "room"], FREE, 10**18)
    assert found == Outlook(attempt=1, waits_for="primary west: not connected; room")


def held(*parts: tuple[int, int]) -> HeldTime:
    """Held times that grow by the given nanoseconds at the given times."""
    time, total = HeldTime(), 0
    time.note(0, 0)
    for at_ns, grown_ns in parts:
        total += grown_ns
        time.note(at_ns, total)
    return time


def test_held_time_counts_for_an_hour() -> None:
    one = held((MINUTE_NS, 40 * SECOND_NS), (30 * MINUTE_NS, 21 * SECOND_NS))
    assert budget([one], 60 * SECOND_NS, 30 * MINUTE_NS).held_ns == 61 * SECOND_NS
    used = budget([one], 60 * SECOND_NS, 30 * MINUTE_NS)
    assert MINUTE_NS + BUDGET_PERIOD_NS <= used.free_at_ns <= 2 * MINUTE_NS + BUDGET_PERIOD_NS
    later = budget([one], 60 * SECOND_NS, used.free_at_ns)
    assert (later.held_ns, later.free_at_ns) == (21 * SECOND_NS, 0)


def test_held_time_is_added_up_over_primaries() -> None:
    primaries = [held((MINUTE_NS, 40 * SECOND_NS)), held((MINUTE_NS, 30 * SECOND_NS))]
    assert budget(primaries, 60 * SECOND_NS, MINUTE_NS).free_at_ns
    assert not budget(primaries, 71 * SECOND_NS, MINUTE_NS).free_at_ns


def test_a_controller_that_dies_again_and_again_counts_what_one_that_lives_counts() -> None:
    """Whatever the length of its lives; primaries tell totals, and what was held while it was down counts too."""
    for life_s in (1, 7, 59, 61, 200):
        one, mortal, kept = HeldTime(), HeldTime(), None
        for second in range(1, 1200):
            total_ns = second * SECOND_NS // 10
            one.note(second * SECOND_NS, total_ns)
            mortal.note(second * SECOND_NS, total_ns)
            kept = mortal.to_keep() or kept
            if second % life_s == 0:
                mortal = HeldTime(kept)
        mortal.note(1200 * SECOND_NS, 120 * SECOND_NS)
        one.note(1200 * SECOND_NS, 120 * SECOND_NS)
        counted = budget([mortal], 0, 1200 * SECOND_NS).held_ns
        assert abs(counted - budget([one], 0, 1200 * SECOND_NS).held_ns) <= 2
        assert budget([mortal], 60 * SECOND_NS, 1200 * SECOND_NS).free_at_ns


def test_a_primary_that_holds_nothing_costs_no_write_and_one_that_does_costs_one_a_minute() -> None:
    time = HeldTime()
    writes = 0
    for second in range(600):
        time.note(second * SECOND_NS, 0)
        writes += time.to_keep() is not None
    assert writes == 0
    for second in range(600, 1200):
        time.note(second * SECOND_NS, second)
        writes += time.to_keep() is not None
    assert 10 <= writes <= 11


def test_many_writes_held_at_once_count_as_the_time_that_went_by() -> None:
    assert budget([held((SECOND_NS, 32 * SECOND_NS))], 0, SECOND_NS).held_ns == SECOND_NS


def test_a_restarted_primary_begins_to_count_anew_and_nothing_is_lost() -> None:
    time = held((SECOND_NS, SECOND_NS))
    time.note(2 * SECOND_NS, SECOND_NS // 2)
    assert budget([time], 0, 2 * SECOND_NS).held_ns == 1_500_000_000


def test_what_was_held_before_the_first_report_is_not_counted() -> None:
    time = HeldTime()
    time.note(5, 10**15)
    assert budget([time], 0, 5) == Budget(0, 0, 0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Outlook(at_ns=22 * SECOND_NS, attempt=3), "resumes by itself in 12.0 s (attempt 3)"),
        (
            Outlook(attempt=1, waits_for="primary west: not connected"),
            "waits for primary west: not connected",
        ),
        (
            Outlook(at_ns=70 * SECOND_NS, attempt=1, waits_for="host-impact budget used up: 61 s of 60 s"),
            "host-impact budget used up: 61 s of 60 s; resumes at about 1970-01-01T00:02:00.000Z, or by command",
        ),
    ],
)
def test_the_outlook_is_told_in_words(given: Outlook, text: str) -> None:
    report = auto_resume_report(given, Now(10 * SECOND_NS, 60 * SECOND_NS))
    assert report is not None
    assert report.text == text


class Sites:
    """A DUPLEX pair "a" under a policy."""

    def __init__(self, **policy: object) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock)
        document = new_document().changed(policy=SessionPolicy().changed(**policy))
        self.secondary = SecondarySite(self.clock, document=document)
        self.wire = Wire(self.secondary, self.primary)
        self.primary.write("a", 0, 1, 2)
        self.wire.run_until(lambda: self.document.pairs[0].duplex)

    @property
    def document(self) -> SessionDocument:
        return self.secondary.session.document

    def overflow(self) -> None:
        stream = next(iter(self.primary.primary.streams.values()))
        self.primary.primary.suspend(stream, "full", SuspendCause.SIDE_FILE)
        self.wire.run_until(lambda: self.document.state is SessionState.SUSPENDED)

    def waits_for(self) -> str:
        found = self.secondary.session.suspension.outlook(self.clock.ns)
        assert found is not None
        return found.waits_for


def test_an_overflow_is_resumed_by_itself_after_the_wait() -> None:
    sites = Sites()
    sites.overflow()
    sites.clock.advance(9 * SECOND_NS)
    sites.wire.steps(3)
    assert sites.document.state is SessionState.SUSPENDED
    sites.clock.advance(SECOND_NS)
    sites.wire.run_until(
        lambda: sites.document.pairs[0].duplex and sites.document.state is SessionState.ACTIVE
    )
    assert sites.document.hold_floor_ns is None


def test_a_command_is_not_undone() -> None:
    sites = Sites()
    sites.secondary.session.suspend("x")
    sites.clock.advance(10_000 * SECOND_NS)
    sites.wire.steps(5)
    assert sites.document.state is SessionState.SUSPENDED


def test_a_command_is_not_undone_when_it_comes_to_a_session_that_suspended_by_itself() -> None:
    sites = Sites()
    sites.overflow()
    since_ns = sites.document.since_ns
    sites.secondary.session.suspend("maintenance")
    sites.clock.advance(10_000 * SECOND_NS)
    sites.wire.steps(5)
    assert (sites.document.state, sites.document.cause) == (SessionState.SUSPENDED, SuspendCause.COMMAND)
    assert sites.document.since_ns == since_ns
    assert "maintenance" in sites.document.reason
    assert "full" in sites.document.reason


def test_what_overflows_while_a_suspension_is_pending_waits_for_a_command() -> None:
    sites = Sites()
    sites.secondary.session.suspension.suspend_at(sites.clock.ns + 3600 * SECOND_NS, "backup")
    sites.wire.steps(2)
    sites.overflow()
    sites.clock.advance(10_000 * SECOND_NS)
    sites.wire.steps(5)
    assert (sites.document.state, sites.document.cause) == (SessionState.SUSPENDED, SuspendCause.COMMAND)
    assert "full" in sites.document.reason
    assert "pending" in sites.document.reason


def test_it_can_be_switched_off() -> None:
    sites = Sites(auto_resume=False)
    sites.overflow()
    sites.clock.advance(10_000 * SECOND_NS)
    sites.wire.steps(5)
    assert (sites.document.state, sites.waits_for()) == (
        SessionState.SUSPENDED,
        "a command: automatic resume is off",
    )


def test_it_waits_for_a_primary_that_is_away() -> None:
    sites = Sites()
    sites.overflow()
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.clock.advance(10_000 * SECOND_NS)
    sites.wire.steps(5)
    assert "primary p1" in sites.waits_for()
    sites.wire.refuses.clear()
    sites.wire.run_until(lambda: sites.document.state is SessionState.ACTIVE, 2000)


def test_it_waits_while_the_budget_is_used_up() -> None:
    sites = Sites(auto_resume_budget_ns=SECOND_NS)
    contact = sites.secondary.session.contacts[0]
    contact.held.note(sites.clock.ns, 0)
    sites.clock.advance(2 * SECOND_NS)
    contact.held.note(sites.clock.ns, 2 * SECOND_NS)
    sites.overflow()
    sites.clock.advance(1000 * SECOND_NS)
    sites.wire.steps(3)
    assert "host-impact budget used up: 2 s of 1 s in the last hour" in sites.waits_for()
    sites.clock.advance(BUDGET_PERIOD_NS)
    sites.wire.run_until(lambda: sites.document.state is SessionState.ACTIVE)


def test_a_session_without_a_primary_for_longer_than_the_time_out_suspends_for_its_link() -> None:
    sites = Sites(link_timeout_ns=SECOND_NS)
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.wire.steps(3)
    assert sites.document.state is SessionState.ACTIVE
    sites.clock.advance(SECOND_NS)
    sites.wire.steps(1)
    assert (sites.document.state, sites.document.cause) == (SessionState.SUSPENDED, SuspendCause.LINK)
    assert "primary p1 has not been streaming for 1 s" in sites.document.reason


def test_a_primary_without_its_link_for_longer_than_the_time_out_drops_what_it_holds_and_marks() -> None:
    sites = Sites(link_timeout_ns=SECOND_NS)
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.primary.write("a", 5, 7)
    stream = next(iter(sites.primary.primary.streams.values()))
    sites.clock.advance(SECOND_NS // 2)
    sites.primary.primary.tick()
    assert stream.backlog.held_bytes
    sites.clock.advance(SECOND_NS)
    sites.primary.primary.tick()
    assert (stream.backlog.held_bytes, stream.document.cause) == (0, SuspendCause.LINK)
    assert sites.primary.marked() >= {5}
    sites.wire.refuses.clear()
    sites.clock.advance(20 * SECOND_NS)
    sites.wire.run_until(lambda: sites.document.pairs[0].duplex and not sites.document.hold_floor_ns, 3000)


def test_without_a_time_out_a_lost_link_suspends_nothing() -> None:
    sites = Sites()
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.clock.advance(10_000 * SECOND_NS)
    sites.wire.steps(3)
    assert sites.document.state is SessionState.ACTIVE
    assert sites.primary.primary.streams


def test_what_a_primary_reports_of_its_holds_counts_against_the_budget() -> None:
    sites = Sites(auto_resume_budget_ns=SECOND_NS)
    for held_ns in (0, 5 * SECOND_NS):
        sites.clock.advance(3 * SECOND_NS)
        sites.secondary.say(CaptureReport(0, 0, 1, 0, None, 0, 9, held_ns, "", []))
    sites.overflow()
    sites.clock.advance(1000 * SECOND_NS)
    sites.wire.steps(3)
    assert "host-impact budget used up: 3 s of 1 s" in sites.waits_for()


def runs(sites: Sites) -> bool:
    return sites.document.state is SessionState.ACTIVE and sites.document.pairs[0].duplex


def test_a_controller_that_dies_after_every_resume_waits_longer_each_time() -> None:
    sites = Sites()
    waits = []
    for _ in range(4):
        sites.overflow()
        found = sites.secondary.session.suspension.outlook(sites.clock.ns)
        assert found is not None
        waits.append((found.attempt, (found.at_ns - sites.document.since_ns) // SECOND_NS))
        sites.clock.advance(found.at_ns - sites.clock.ns)
        sites.wire.run_until(lambda: runs(sites), 400)
        sites.wire.restart_secondary()
        sites.wire.run_until(lambda: runs(sites), 400)
    assert waits == [(1, 10), (2, 20), (3, 40), (4, 80)]


def test_attempts_are_forgotten_for_good_once_it_was_duplex_for_long() -> None:
    sites = Sites()
    sites.overflow()
    sites.clock.advance(10 * SECOND_NS)
    sites.wire.run_until(lambda: runs(sites), 400)
    assert sites.document.auto_resume_attempts == 1
    for _ in range(700):
        sites.wire.step(SECOND_NS)
    assert sites.document.auto_resume_attempts == 0
    sites.wire.restart_secondary()
    assert sites.secondary.session.suspension.auto_resume.attempts == 0


def test_the_budget_that_is_used_up_stays_so_over_restarts() -> None:
    sites = Sites(auto_resume_budget_ns=SECOND_NS)
    (stream,) = sites.primary.primary.streams.values()
    for _ in range(4):
        stream.delay_totals.held_ns += SECOND_NS // 2
        for _ in range(20):
            sites.wire.step(SECOND_NS // 10)
        sites.wire.restart_secondary()
        sites.wire.run_until(lambda: runs(sites), 400)
    sites.overflow()
    sites.wire.restart_secondary()
    sites.clock.advance(1000 * SECOND_NS)
    for _ in range(40):
        sites.wire.step(SECOND_NS // 10)
    assert sites.document.state is SessionState.SUSPENDED
    assert "host-impact budget used up" in sites.waits_for()
