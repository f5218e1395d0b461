"""Suspending at a time: the image is exactly the writes up to it, over several primaries, crashes and second thoughts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isochrone.link.messages import StreamCut
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState, SuspendCause
from isochrone.session.document import SessionDocument
from isochrone.session.gate import commit_limit_ns, copies_are_hardened
from support.cores import (
    MILLISECOND_NS,
    PRIMARY_IDS,
    SECOND_NS,
    Clock,
    PrimarySite,
    SecondarySite,
    Wire,
    images_equal,
    new_document,
)
from support.store import TRACK


class Sites:
    """Two primaries with a DUPLEX pair each: "a" at the first, "b" at the second."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.first = PrimarySite(self.clock)
        self.second = PrimarySite(self.clock, volumes={"b": 16}, identity=PRIMARY_IDS[1], name="p2")
        document = new_document(primaries=("p1", "p2"), pairs=((0, "a", "a"), (1, "b", "b")))
        self.secondary = SecondarySite(self.clock, document=document)
        self.wire = Wire(self.secondary, self.first, self.second)
        self.write(0, 1)
        self.duplex()

    @property
    def document(self) -> SessionDocument:
        return self.secondary.session.document

    def duplex(self) -> None:
        self.wire.run_until(lambda: all(pair.duplex for pair in self.document.pairs), 2000)

    def write(self, track: int, tag: int) -> None:
        self.first.write("a", track, tag)
        self.second.write("b", track, tag)

    def suspend_at(self, at_ns: int) -> None:
        self.secondary.session.suspension.suspend_at(at_ns, "backup")

    def suspended(self) -> None:
        self.wire.run_until(lambda: self.document.state is SessionState.SUSPENDED, 5000)

    def image(self, count: int = 3) -> list[list[int]]:
        volumes = self.secondary.pool.volumes
        return [[volumes[name].read(track * TRACK, 1)[0] for track in range(count)] for name in ("a", "b")]


def test_everything_up_to_the_time_is_in_the_image_and_nothing_later() -> None:
    sites = Sites()
    sites.write(1, 7)
    at_ns = sites.clock.ns + 30 * MILLISECOND_NS
    sites.suspend_at(at_ns)
    sites.wire.steps(2)
    sites.write(2, 8)
    sites.clock.ns = max(sites.clock.ns, at_ns)
    sites.write(2, 9)
    sites.suspended()
    assert sites.image() == [[1, 7, 8]] * 2
    assert (sites.document.suspended_at_ns, sites.secondary.session.mover.consistency_ns) == (at_ns, at_ns)
    assert (sites.document.reason, sites.document.cause) == ("backup", SuspendCause.COMMAND)


def test_a_drain_takes_what_was_acknowledged_before_it_and_nothing_later() -> None:
    sites = Sites()
    sites.write(1, 7)
    sites.secondary.session.suspension.drain("backup", sites.clock.ns)
    sites.write(2, 8)
    sites.suspended()
    assert sites.image() == [[1, 7, 0]] * 2


def test_a_suspended_session_resumes_with_everything() -> None:
    sites = Sites()
    sites.secondary.session.suspension.drain("backup", sites.clock.ns)
    sites.write(2, 8)
    sites.suspended()
    sites.write(3, 9)
    sites.secondary.session.resume()
    sites.duplex()
    assert images_equal(sites.first, sites.secondary, "a")
    assert images_equal(sites.second, sites.secondary, "b")


def test_a_primary_that_hears_of_the_time_too_late_does_not_spoil_the_image() -> None:
    sites = Sites()
    sites.wire.cut(1)
    sites.wire.refuses.add(1)
    at_ns = sites.clock.ns + 10 * MILLISECOND_NS
    sites.suspend_at(at_ns)
    sites.wire.steps(3)
    sites.write(1, 7)
    sites.wire.refuses.clear()
    sites.suspended()
    assert sites.image() == [[1, 0, 0]] * 2
    assert sites.document.suspended_at_ns == at_ns
    sites.secondary.session.resume()
    sites.duplex()
    assert sites.image() == [[1, 7, 0]] * 2


@pytest.mark.parametrize("which", ["primary", "secondary"])
@pytest.mark.parametrize("steps", range(6))
def test_a_restart_at_any_moment_leaves_an_image_of_the_time_or_says_why_not(which: str, steps: int) -> None:
    sites = Sites()
    sites.write(1, 7)
    at_ns = sites.clock.ns + 25 * MILLISECOND_NS
    sites.suspend_at(at_ns)
    sites.wire.steps(steps)
    sites.write(2, 8)
    if which == "primary":
        sites.wire.restart_primary(1)
    else:
        sites.wire.restart_secondary()
    sites.suspended()
    image = sites.image()
    assert image[0] == image[1]
    if sites.document.suspended_at_ns:
        assert image[0] in ([1, 7, 0], [1, 7, 8])
    else:
        assert "image stays" in sites.document.reason
    sites.secondary.session.resume()
    sites.duplex()
    assert sites.image() == [[1, 7, 8]] * 2


def test_a_time_before_what_was_received_is_refused_and_changes_nothing() -> None:
    sites = Sites()
    before = sites.document
    with pytest.raises(ConflictError, match="time already passed"):
        sites.suspend_at(sites.secondary.session.mover.form_ns - 1)
    assert sites.document == before


def test_a_cancel_before_the_time_lets_the_session_go_on() -> None:
    sites = Sites()
    sites.suspend_at(sites.clock.ns + SECOND_NS)
    sites.wire.steps(3)
    sites.secondary.session.suspension.cancel()
    sites.wire.steps(3)
    sites.clock.advance(2 * SECOND_NS)
    sites.write(1, 7)
    sites.wire.steps(5)
    assert (sites.document.state, sites.image()) == (SessionState.ACTIVE, [[1, 7, 0]] * 2)


def test_a_cancel_after_the_time_is_refused() -> None:
    sites = Sites()
    sites.suspend_at(sites.clock.ns + MILLISECOND_NS)
    sites.clock.advance(2 * MILLISECOND_NS)
    with pytest.raises(ConflictError, match="too late"):
        sites.secondary.session.suspension.cancel()


def test_a_cancel_that_crosses_a_cut_comes_too_late_and_says_so() -> None:
    sites = Sites()
    at_ns = sites.clock.ns + 50 * MILLISECOND_NS
    sites.suspend_at(at_ns)
    sites.wire.steps(2)
    sites.secondary.session.suspension.cancel()
    sites.secondary.say(StreamCut(at_ns), 1)
    sites.clock.ns = max(sites.clock.ns, at_ns)
    sites.suspended()
    assert "cancelled too late: primary p2 had cut" in sites.document.reason
    assert sites.document.suspended_at_ns == at_ns


def test_without_a_pending_suspension_there_is_nothing_to_cancel() -> None:
    with pytest.raises(ConflictError, match="no suspension"):
        Sites().secondary.session.suspension.cancel()


def test_a_primary_that_cannot_be_reached_is_not_waited_for_for_ever() -> None:
    sites = Sites()
    sites.write(1, 7)
    sites.wire.steps(5)
    sites.wire.cut(1)
    sites.wire.refuses.add(1)
    sites.suspend_at(sites.clock.ns + MILLISECOND_NS)
    sites.write(2, 8)
    sites.wire.steps(3)
    assert sites.document.state is SessionState.ACTIVE
    sites.clock.advance(sites.secondary.settings.suspend_wait_ns_max)
    sites.suspended()
    assert "primary p2" in sites.document.reason
    assert (sites.document.suspended_at_ns, sites.image()) == (0, [[1, 7, 0]] * 2)
    sites.wire.refuses.clear()
    sites.wire.steps(600)
    assert sites.image() == [[1, 7, 0]] * 2
    sites.secondary.session.resume()
    sites.duplex()
    assert sites.image() == [[1, 7, 8]] * 2


def test_a_primary_that_was_unreachable_from_cut_to_resume_begins_anew() -> None:
    sites = Sites()
    at_ns = sites.clock.ns + 30 * MILLISECOND_NS
    sites.suspend_at(at_ns)
    sites.wire.steps(1)
    sites.wire.cut(1)
    sites.wire.refuses.add(1)
    sites.wire.steps(5)
    sites.write(2, 8)
    sites.clock.advance(sites.secondary.settings.suspend_wait_ns_max)
    sites.suspended()
    sites.secondary.session.resume()
    sites.wire.refuses.clear()
    sites.duplex()
    assert sites.image() == [[1, 0, 8]] * 2


def test_in_a_resync_the_old_image_stays_and_the_reason_says_so() -> None:
    sites = Sites()
    sites.secondary.session.suspend("x")
    sites.wire.steps(3)
    sites.write(1, 7)
    sites.secondary.session.resume()
    sites.wire.cut(1)
    sites.wire.refuses.add(1)
    sites.wire.steps(10)
    assert sites.document.hold_floor_ns is not None
    sites.suspend_at(sites.clock.ns + MILLISECOND_NS)
    sites.clock.advance(sites.secondary.settings.suspend_wait_ns_max + SECOND_NS)
    sites.suspended()
    assert sites.image() == [[1, 0, 0]] * 2
    assert sites.document.suspended_at_ns == 0


def test_a_hold_is_not_lifted_for_an_image_past_the_time() -> None:
    limit_ns = commit_limit_ns(100, None, 50)
    assert not copies_are_hardened(limit_ns, [60])
    assert copies_are_hardened(limit_ns, [50])


@pytest.mark.parametrize(
    ("journal_ns", "floor_ns", "at_ns", "limit_ns"),
    [(9, None, 0, 9), (9, 5, 0, 5), (9, None, 7, 7), (9, 5, 7, 5), (9, 8, 7, 7), (9, None, 12, 9)],
)
def test_the_commit_limit_is_the_least_of_the_reasons_to_hold(
    journal_ns: int, floor_ns: int | None, at_ns: int, limit_ns: int
) -> None:
    assert commit_limit_ns(journal_ns, floor_ns, at_ns) == limit_ns


def test_a_recovery_while_one_is_pending_goes_to_its_time_at_most() -> None:
    sites = Sites()
    at_ns = sites.clock.ns + 40 * MILLISECOND_NS
    sites.suspend_at(at_ns)
    sites.wire.steps(1)
    sites.write(1, 7)
    sites.wire.steps(8 if sites.clock.ns < at_ns else 0)
    sites.secondary.session.recover(drain=False, allow_incomplete=False)
    sites.wire.run_until(lambda: sites.document.state is SessionState.ENDED)
    assert sites.document.recovered_ns <= at_ns


Command = Callable[[Sites], None]


@pytest.mark.parametrize(
    "command",
    [
        lambda sites: sites.secondary.session.resume(),
        lambda sites: sites.secondary.session.recover(drain=True, allow_incomplete=False),
    ],
)
def test_what_contradicts_a_pending_suspension_is_refused_with_the_way_out(command: Command) -> None:
    sites = Sites()
    sites.suspend_at(sites.clock.ns + SECOND_NS)
    with pytest.raises(ConflictError, match="--cancel"):
        command(sites)


def test_an_overflow_while_one_is_pending_suspends_at_once_and_is_not_resumed_by_itself() -> None:
    sites = Sites()
    sites.suspend_at(sites.clock.ns + SECOND_NS)
    sites.wire.steps(2)
    stream = next(iter(sites.first.primary.streams.values()))
    sites.first.primary.suspend(stream, "the side file is full", SuspendCause.SIDE_FILE)
    sites.suspended()
    assert (sites.document.cause, sites.document.suspend_at_ns) == (SuspendCause.COMMAND, 0)
    assert "the side file is full (a commanded suspension was pending" in sites.document.reason
    assert next(iter(sites.second.primary.streams.values())).document.cause is SuspendCause.COMMAND
