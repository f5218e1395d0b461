"""Single pairs stay behind with their image of a known time; the others go on, and nothing is forgotten."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from isochrone.link.messages import Configure, WantedVolume
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import PairState, SessionState
from isochrone.session.document import PairDocument, SessionDocument
from isochrone.session.explain import image_incomplete_because, pair_state
from isochrone.testing.sim_disk import Operation
from support.cores import MILLISECOND_NS, Clock, PrimarySite, SecondarySite, Wire, images_equal, new_document
from support.store import TRACK


class Sites:
    """One primary with the DUPLEX pairs "a" and "b"."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock, volumes={"a": 16, "b": 16})
        document = new_document(pairs=((0, "a", "a"), (0, "b", "b")))
        self.secondary = SecondarySite(self.clock, document=document)
        self.wire = Wire(self.secondary, self.primary)
        self.write(0, 1)
        self.duplex("a", "b")

    @property
    def document(self) -> SessionDocument:
        return self.secondary.session.document

    def pair(self, name: str) -> PairDocument:
        return next(pair for pair in self.document.pairs if pair.secondary_volume == name)

    def state(self, name: str) -> PairState:
        return pair_state(self.secondary.session, self.pair(name))

    def duplex(self, *names: str) -> None:
        self.wire.run_until(lambda: all(self.pair(name).duplex for name in names), 2000)

    def write(self, track: int, tag: int) -> None:
        for name in ("a", "b"):
            self.primary.write(name, track, tag)

    def suspend(self, name: str = "b") -> None:
        self.secondary.session.pair_suspension.suspend_now([name], "line work", self.clock.ns)
        self.wire.run_until(lambda: self.pair(name).suspended)

    def resume(self, name: str = "b") -> None:
        self.secondary.session.pair_suspension.resume([name])

    def image(self, name: str, count: int = 4) -> list[int]:
        volume = self.secondary.pool.volumes[name]
        return [volume.read(track * TRACK, 1)[0] for track in range(count)]


def test_the_others_go_on_and_the_pair_keeps_its_image_of_the_cut() -> None:
    sites = Sites()
    sites.write(1, 7)
    sites.suspend()
    sites.write(2, 8)
    sites.wire.steps(5)
    assert (sites.image("a"), sites.image("b")) == ([1, 7, 8, 0], [1, 7, 0, 0])
    assert (sites.state("a"), sites.state("b")) == (PairState.DUPLEX, PairState.SUSPENDED)
    assert sites.document.hold_floor_ns is None
    assert sites.pair("b").image_ns < sites.secondary.session.mover.consistency_ns


def test_at_a_time_the_image_is_exactly_of_it() -> None:
    sites = Sites()
    at_ns = sites.clock.ns + 35 * MILLISECOND_NS
    sites.secondary.session.pair_suspension.suspend(["b"], at_ns, "x")
    sites.wire.steps(2)
    sites.write(1, 7)
    assert not sites.pair("b").suspended
    sites.clock.ns = max(sites.clock.ns, at_ns)
    sites.write(2, 8)
    sites.wire.steps(5)
    assert (sites.image("b"), sites.pair("b").image_ns) == ([1, 7, 0, 0], at_ns)


def test_nothing_is_captured_of_it_and_everything_is_marked() -> None:
    sites = Sites()
    sites.suspend()
    stream = next(iter(sites.primary.primary.streams.values()))
    sites.wire.steps(10)
    held = stream.backlog.held_bytes
    sites.primary.write("b", 5, 9)
    assert stream.backlog.held_bytes == held
    sites.wire.steps(300)
    assert sites.primary.marked("b") >= {5}


def test_a_resume_copies_what_is_marked_and_keeps_every_image_until_it_is_done() -> None:
    sites = Sites()
    sites.suspend()
    sites.write(1, 7)
    sites.wire.steps(3)
    image_ns = sites.pair("b").image_ns
    sites.resume()
    seen = set()
    while not sites.pair("b").duplex:
        sites.wire.step()
        if not sites.pair("b").duplex:
            assert sites.pair("b").image_ns == image_ns
            seen.add((tuple(sites.image("a", 2)), tuple(sites.image("b", 2))))
    assert seen == {((1, 7), (1, 0))}
    assert images_equal(sites.primary, sites.secondary, "a", "b")
    assert (sites.pair("b").image_ns, sites.document.is_image_complete) == (0, True)


def test_recovery_says_that_the_image_is_not_of_one_instant() -> None:
    sites = Sites()
    sites.suspend()
    assert "b was suspended" in image_incomplete_because(sites.secondary.session)
    with pytest.raises(ConflictError, match="--incomplete"):
        sites.secondary.session.recover(drain=False, allow_incomplete=False)
    sites.secondary.session.recover(drain=False, allow_incomplete=True)
    sites.wire.run_until(lambda: sites.document.state is SessionState.ENDED)


Trouble = Callable[[Sites], None]
TROUBLES: list[Trouble] = [
    lambda sites: sites.wire.restart_primary(),
    lambda sites: sites.wire.restart_secondary(),
    lambda sites: sites.wire.cut(),
    lambda sites: sites.secondary.session.suspend("all of it"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=["primary", "secondary", "link", "session"])
@pytest.mark.parametrize("steps", range(4))
def test_it_stays_suspended_through_whatever_happens_and_comes_back_whole(
    trouble: Trouble, steps: int
) -> None:
    sites = Sites()
    sites.write(1, 7)
    sites.secondary.session.pair_suspension.suspend_now(["b"], "x", sites.clock.ns)
    sites.wire.steps(steps)
    sites.write(2, 8)
    trouble(sites)
    sites.wire.steps(30)
    if sites.document.state is SessionState.SUSPENDED:
        sites.secondary.session.resume()
    sites.duplex("a")
    sites.wire.run_until(lambda: sites.pair("b").suspended)
    sites.write(3, 9)
    sites.wire.steps(5)
    assert sites.image("a") == [1, 7, 8, 9]
    assert sites.image("b") in ([1, 0, 0, 0], [1, 7, 0, 0], [1, 7, 8, 0])
    sites.resume()
    sites.duplex("b")
    assert images_equal(sites.primary, sites.secondary, "a", "b")


@pytest.mark.parametrize("trouble", TROUBLES, ids=["primary", "secondary", "link", "session"])
@pytest.mark.parametrize("steps", range(4))
def test_a_resume_survives_whatever_happens(trouble: Trouble, steps: int) -> None:
    sites = Sites()
    sites.suspend()
    sites.write(1, 7)
    sites.wire.steps(3)
    sites.resume()
    sites.wire.steps(steps)
    sites.write(2, 8)
    trouble(sites)
    sites.wire.steps(30)
    if sites.document.state is SessionState.SUSPENDED:
        sites.secondary.session.resume()
    sites.duplex("a", "b")
    assert images_equal(sites.primary, sites.secondary, "a", "b")


def slow_resync() -> Sites:
    """A resync of both pairs that has sent some images of "b" and is not complete."""
    sites = Sites()
    sites.secondary.session.suspend("x")
    sites.wire.steps(3)
    for track in range(16):
        sites.write(track, 50 + track)
    stream = next(iter(sites.primary.primary.streams.values()))
    sites.secondary.session.resume()
    sites.wire.deliver()
    while not any(captured.copier for captured in stream.volumes.values()):
        sites.wire.deliver()
    return sites


def test_a_pair_that_is_suspended_in_a_resync_keeps_the_image_from_before() -> None:
    sites = slow_resync()
    sites.secondary.session.pair_suspension.suspend_now(["b"], "x", sites.clock.ns)
    sites.wire.run_until(lambda: sites.pair("b").suspended)
    sites.duplex("a")
    sites.wire.run_until(lambda: sites.document.hold_floor_ns is None)
    assert sites.image("b") in ([1, 0, 0, 0], [50, 51, 52, 53])
    sites.resume()
    sites.duplex("b")
    assert images_equal(sites.primary, sites.secondary, "a", "b")


def test_a_first_copy_that_is_broken_off_has_no_image_and_begins_again() -> None:
    sites = Sites()
    sites.primary.pool.create_volume("c", 16 * TRACK)
    sites.primary.write("c", 0, *range(1, 17))
    sites.secondary.session.add_pairs([], [("p1", "c", "c")])
    sites.wire.run_until(lambda: sites.pair("c").is_confirmed)
    sites.secondary.session.pair_suspension.suspend_now(["c"], "x", sites.clock.ns)
    sites.wire.run_until(lambda: sites.pair("c").suspended)
    sites.wire.steps(5)
    assert sites.state("c") is PairState.SUSPENDED
    sites.resume("c")
    sites.duplex("a", "b", "c")
    assert images_equal(sites.primary, sites.secondary, "a", "b", "c")


def test_a_suspended_pair_can_leave() -> None:
    sites = Sites()
    sites.suspend()
    sites.secondary.session.remove_pairs(["b"])
    sites.wire.run_until(lambda: len(sites.document.pairs) == 1)
    assert next(iter(sites.primary.primary.streams.values())).document.suspended_volumes == ()
    assert sites.document.is_image_complete


def test_a_cancel_in_time_changes_nothing() -> None:
    sites = Sites()
    suspension = sites.secondary.session.pair_suspension
    suspension.suspend(["b"], sites.clock.ns + 10**9, "x")
    sites.wire.steps(3)
    suspension.cancel(["b"])
    sites.wire.steps(3)
    sites.clock.advance(2 * 10**9)
    sites.write(1, 7)
    sites.wire.steps(5)
    assert (sites.image("b"), sites.state("b")) == ([1, 7, 0, 0], PairState.DUPLEX)


def test_a_cancel_that_crosses_the_cut_is_a_resume() -> None:
    sites = Sites()
    at_ns = sites.clock.ns + 5 * MILLISECOND_NS
    suspension = sites.secondary.session.pair_suspension
    suspension.suspend(["b"], at_ns, "x")
    while sites.wire.deliver():
        pass
    sites.clock.advance(10 * MILLISECOND_NS)
    sites.primary.primary.tick()
    sites.write(1, 7)
    suspension.cancel(["b"])
    sites.wire.steps(2)
    sites.duplex("a", "b")
    assert images_equal(sites.primary, sites.secondary, "a", "b")


def test_what_cannot_be_done_is_refused_and_changes_nothing() -> None:
    sites = Sites()
    suspension = sites.secondary.session.pair_suspension
    before = sites.document
    with pytest.raises(NotFoundError, match="nobody"):
        suspension.suspend_now(["b", "nobody"], "x", sites.clock.ns)
    with pytest.raises(ConflictError, match="time already passed"):
        suspension.suspend(["b"], 1, "x")
    with pytest.raises(ConflictError, match="no pending"):
        suspension.cancel(["b"])
    assert sites.document == before
    suspension.suspend(["b"], sites.clock.ns + 10**9, "x")
    with pytest.raises(ConflictError, match="--cancel"):
        suspension.resume(["b"])


def test_a_pair_is_not_suspended_in_a_planned_switchover_which_would_lose_its_last_writes() -> None:
    sites = Sites()
    sites.secondary.session.recover(drain=True, allow_incomplete=False)
    with pytest.raises(ConflictError, match="switching over"):
        sites.suspend("b")
    sites.wire.run_until(lambda: sites.document.state is SessionState.ENDED)
    assert images_equal(sites.primary, sites.secondary, "a", "b")


def test_a_planned_switchover_is_refused_while_a_pair_is_about_to_be_suspended() -> None:
    sites = Sites()
    sites.secondary.session.pair_suspension.suspend(["b"], sites.clock.ns + 10**9, "line work")
    with pytest.raises(ConflictError, match="--cancel --pair b"):
        sites.secondary.session.recover(drain=True, allow_incomplete=False)
    assert not sites.secondary.session.is_draining


def test_a_planned_switchover_is_given_up_when_a_pair_must_be_set_aside() -> None:
    sites = Sites()
    session = sites.secondary.session
    session.recover(drain=True, allow_incomplete=False)
    aside = session.pair_suspension.set_aside(sites.pair("b"), "another volume stands there")
    session.remember(sites.document.with_pairs({"b": aside}))
    sites.wire.run_until(lambda: not session.is_draining)
    assert sites.document.state is SessionState.ACTIVE
    sites.wire.run_until(lambda: not any(s.document.quiesced for s in sites.primary.primary.streams.values()))


def test_a_pair_that_is_resumed_after_the_cut_of_its_session_is_behind_until_it_was_copied() -> None:
    sites = Sites()
    sites.suspend()
    sites.write(1, 7)
    session = sites.secondary.session
    session.suspension.suspend_at(sites.clock.ns + 20 * MILLISECOND_NS, "maintenance")
    stream = next(iter(sites.primary.primary.streams.values()))
    captured = next(volume for volume in stream.volumes.values() if volume.volume.name == "b")
    sites.wire.run_until(lambda: stream.cut_ns > 0)
    assert captured.copied_through_ns > 0
    stream.resume_volume(captured)  # what a Configure brings that comes before the session is SUSPENDED
    assert captured.copied_through_ns == 0
    sites.resume()
    sites.wire.run_until(lambda: sites.document.state is SessionState.SUSPENDED)
    assert not sites.pair("b").duplex
    session.resume()
    sites.duplex("a", "b")
    assert images_equal(sites.primary, sites.secondary, "a", "b")


def test_a_configure_that_was_overtaken_is_not_obeyed() -> None:
    sites = Sites()
    sites.suspend()
    link = sites.wire.links[0]
    number = sites.secondary.session.contacts[0].configures_sent
    old = Configure(number - 1, [WantedVolume("a", True), WantedVolume("b", True)], SessionPolicy())
    sites.primary.say(link, old)
    stream = next(iter(sites.primary.primary.streams.values()))
    assert stream.document.suspended_volumes


def test_a_resume_that_another_configure_overtakes_is_held_all_the_same() -> None:
    sites = Sites()
    sites.suspend()
    sites.write(1, 7)
    sites.wire.steps(3)
    sites.resume()
    sites.primary.pool.create_volume("c", 16 * TRACK)
    first = sites.secondary.take()
    sites.secondary.session.add_pairs([], [("p1", "c", "c")])
    link = sites.wire.links[0]
    for message in first:
        for answer in sites.primary.say(link, message):
            sites.secondary.links.link_received(0, answer)
    assert not sites.pair("b").suspended
    assert sites.document.hold_floor_ns is not None
    assert sites.secondary.session.copied_through_ns(sites.pair("b")) == 0
    sites.duplex("a", "b", "c")
    assert images_equal(sites.primary, sites.secondary, "a", "b", "c")


def test_a_suspended_pair_keeps_one_instant_when_its_primary_begins_anew_while_a_track_waits_for_the_device() -> (
    None
):
    sites = Sites()
    mover = sites.secondary.session.mover
    retry_waiting = mover.retry_waiting
    device_fails = True

    def fail(operation: Operation) -> None:
        if device_fails and (operation.kind, operation.name) == ("write", "tracks"):
            raise OSError(errno.EIO, "simulated device error")

    def retry_in_vain(now_ns: int) -> None:
        nonlocal device_fails
        device_fails = True
        retry_waiting(now_ns)
        device_fails = False

    sites.secondary.disk.hook = fail
    sites.primary.write("b", 1, 7)
    sites.wire.steps(3)
    mover.retry_waiting = retry_in_vain  # type: ignore[method-assign]
    sites.primary.write("b", 2, 8)
    sites.wire.steps(3)
    assert mover.waiting_ns is not None
    sites.suspend()
    sites.secondary.session.suspend("x")
    sites.wire.steps(4)
    sites.secondary.session.resume()
    sites.wire.steps(4)
    sites.secondary.disk.hook = None
    sites.duplex("a")
    sites.wire.steps(4)
    assert sites.image("b") == [1, 0, 0, 0]
    sites.resume()
    sites.duplex("b")
    assert images_equal(sites.primary, sites.secondary, "b")
