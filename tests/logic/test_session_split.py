"""Both sites wrote after a recovery: nothing is chosen, marks of both sides are kept, and the secondary can give in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from isochrone.capture.document import CaptureState
from isochrone.link.messages import MARK_RUNS_MAX, Configured, Marks, RecordSet, Resume, Suspend
from isochrone.model.choices import MarkPolicy
from isochrone.model.errors import ConflictError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState
from isochrone.session.contact import ContactState
from isochrone.session.split import runs_of
from isochrone.testing.sim_disk import SimulatedCrash, crash_nth
from support.cores import SESSION_ID, Clock, PrimarySite, SecondarySite, Wire, images_equal, new_document
from support.store import TRACK, tags, tracks


class Sites:
    """A DUPLEX pair "a" of 16 tracks, 0 to 3 written; the session was recovered at the secondary while cut off."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock)
        self.secondary = SecondarySite(self.clock)
        self.wire = Wire(self.secondary, self.primary)
        self.primary.write("a", 0, 1, 2, 3, 4)
        self.wire.run_until(lambda: self.pair_is_duplex)
        self.wire.steps(3)
        self.wire.refuses.add(0)
        self.wire.cut()
        self.secondary.session.recover(drain=False, allow_incomplete=False)
        self.secondary.harden()
        assert self.document.state is SessionState.ENDED

    @property
    def document(self):  # type: ignore[no-untyped-def]
        return self.secondary.session.document

    def is_duplex(self) -> bool:
        return self.pair_is_duplex

    @property
    def pair_is_duplex(self) -> bool:
        return bool(self.document.pairs[0].duplex)

    def write_here(self, track: int, *tag: int) -> None:
        """An application writes at the recovered site."""
        self.secondary.primary.write(self.secondary.pool.volumes["a"], track * TRACK, tracks(*tag))
        self.secondary.primary.end_batch(1)

    def both_write(self) -> None:
        self.primary.write("a", 1, 91)
        self.primary.write("a", 5, 95)
        self.write_here(2, 82)
        self.write_here(5, 85)

    def meet(self) -> None:
        """The link comes back and the primary is fenced."""
        self.wire.refuses.clear()
        self.wire.run_until(lambda: self.document.sources[0].fenced)

    def discard_secondary(self) -> None:
        self.secondary.session.discard_secondary()
        self.wire.refuses.clear()

    def here(self) -> list[int]:
        return tags(self.secondary.pool, "a", 8)

    def there(self) -> list[int]:
        return tags(self.primary.pool, "a", 8)

    def marked_here(self) -> set[int]:
        number = self.secondary.pool.volumes["a"].number
        stream = self.secondary.primary.streams[SESSION_ID]
        return set(np.flatnonzero(stream.volumes[number].change_map.marked()).tolist())


def test_a_recovered_volume_is_marked_from_its_first_write_on_and_through_a_kill() -> None:
    sites = Sites()
    assert sites.marked_here() == set()
    sites.write_here(2, 82)
    assert sites.marked_here() == {2}
    sites.wire.restart_secondary()
    sites.write_here(7, 87)
    assert sites.marked_here() == {2, 7}
    assert sites.secondary.primary.streams[SESSION_ID].state is CaptureState.SERVING


def test_the_recovered_side_s_marks_survive_what_those_of_its_primaries_did() -> None:
    policy = SessionPolicy(mark_policy=MarkPolicy.DURABLE)
    secondary = SecondarySite(document=new_document().changed(policy=policy))
    secondary.session.recover(drain=False, allow_incomplete=True)
    secondary.harden()
    assert secondary.primary.streams[SESSION_ID].document.policy == policy


def test_at_every_crash_of_a_recovery_the_map_is_there_before_the_volumes_are_in_service() -> None:
    step = 0
    while True:
        step += 1
        sites = Sites.__new__(Sites)
        sites.clock = Clock()
        sites.primary, sites.secondary = PrimarySite(sites.clock), SecondarySite(sites.clock)
        sites.wire = Wire(sites.secondary, sites.primary)
        sites.wire.run_until(sites.is_duplex)
        sites.secondary.disk.hook = crash_nth(step)
        try:
            sites.secondary.session.recover(drain=False, allow_incomplete=False)
            sites.secondary.harden()
        except SimulatedCrash:
            sites.secondary.restart()
        else:
            return
        if sites.document.state is SessionState.ENDED:
            assert SESSION_ID in sites.secondary.primary.streams
            sites.write_here(3, 3)
            assert sites.marked_here() == {3}


def test_nobody_chooses_a_side_by_itself() -> None:
    sites = Sites()
    sites.both_write()
    sites.meet()
    sites.wire.steps(50)
    assert sites.document.state is SessionState.ENDED
    assert (sites.here()[5], sites.there()[5]) == (85, 95)
    with pytest.raises(ConflictError):
        sites.primary.write("a", 0, 1)


def test_what_the_primary_wrote_since_is_known_here() -> None:
    sites = Sites()
    sites.both_write()
    sites.meet()
    (source,), (pair,) = sites.document.sources, sites.document.pairs
    assert source.last_write_ns > sites.document.recovered_ns
    assert pair.primary_marked_tracks == 2


def test_discarding_the_secondary_brings_the_primary_s_content_and_only_what_either_wrote() -> None:
    sites = Sites()
    sites.both_write()
    sites.meet()
    sites.discard_secondary()
    before = sites.secondary.session.mover.bytes_received
    sites.wire.run_until(lambda: sites.pair_is_duplex)
    assert images_equal(sites.primary, sites.secondary, "a")
    assert sites.here() == [1, 91, 3, 4, 0, 95, 0, 0]
    assert (sites.secondary.session.mover.bytes_received - before) // TRACK == 3
    assert sites.document.epoch == 3
    sites.wire.steps(2)
    assert SESSION_ID not in sites.secondary.primary.streams
    sites.primary.write("a", 6, 6)
    sites.wire.run_until(lambda: sites.here()[6] == 6)


def test_a_primary_that_was_never_fenced_gives_way_and_comes_back_in_one_go() -> None:
    sites = Sites()
    sites.both_write()
    sites.discard_secondary()
    sites.wire.run_until(lambda: sites.pair_is_duplex)
    assert sites.here() == sites.there() == [1, 91, 3, 4, 0, 95, 0, 0]


def test_until_the_resync_is_complete_the_image_in_service_stays_and_can_be_recovered() -> None:
    sites = Sites()
    sites.both_write()
    sites.meet()
    sites.discard_secondary()
    sites.wire.run_until(lambda: sites.secondary.pool.staged_count(1) > 0)
    assert sites.here() == [1, 2, 82, 4, 0, 85, 0, 0]
    sites.secondary.session.recover(drain=False, allow_incomplete=False)
    sites.secondary.harden()
    assert sites.here() == [1, 2, 82, 4, 0, 85, 0, 0]
    assert sites.marked_here() == {2, 5}, "the other side still lacks them"
    sites.write_here(7, 87)
    sites.primary.write("a", 0, 99)
    sites.meet()
    sites.discard_secondary()
    sites.wire.run_until(lambda: sites.pair_is_duplex)
    assert sites.here() == sites.there() == [99, 91, 3, 4, 0, 95, 0, 0]


def test_while_it_is_resynchronised_the_volume_takes_no_writes_here() -> None:
    sites = Sites()
    sites.write_here(2, 82)
    sites.discard_secondary()
    with pytest.raises(ConflictError, match="resynchronised"):
        sites.write_here(3, 1)


@pytest.mark.parametrize("who", ["primary", "secondary", "both"])
@pytest.mark.parametrize("steps", range(1, 14))
def test_a_kill_at_any_step_is_made_up_for(who: str, steps: int) -> None:
    sites = Sites()
    sites.both_write()
    sites.discard_secondary()
    moves: list[Callable[[], None]] = []
    if who != "secondary":
        moves.append(sites.wire.restart_primary)
    if who != "primary":
        moves.append(sites.wire.restart_secondary)
    for _ in range(steps):
        sites.wire.deliver()
    for move in moves:
        move()
    sites.wire.run_until(lambda: sites.pair_is_duplex)
    assert sites.here() == sites.there() == [1, 91, 3, 4, 0, 95, 0, 0]


def test_a_crash_in_the_command_leaves_it_done_or_not_done() -> None:
    step = 0
    while True:
        step += 1
        sites = Sites()
        sites.both_write()
        sites.secondary.disk.hook = crash_nth(step)
        try:
            sites.secondary.session.discard_secondary()
        except SimulatedCrash:
            sites.secondary.restart()
        else:
            break
        if sites.document.state is SessionState.ENDED:
            sites.write_here(6, 86)
            assert 6 in sites.marked_here()
            sites.secondary.session.discard_secondary()
        sites.wire.refuses.clear()
        sites.wire.run_until(sites.is_duplex)
        assert sites.here() == sites.there() == [1, 91, 3, 4, 0, 95, 0, 0]
    assert step > 2


def test_a_session_that_was_not_recovered_has_nothing_to_discard() -> None:
    with pytest.raises(ConflictError, match="only one that was recovered"):
        SecondarySite().session.discard_secondary()


def test_a_primary_that_forgot_the_session_is_copied_whole() -> None:
    sites = Sites()
    sites.both_write()
    sites.meet()
    sites.primary.primary.delete_stream(SESSION_ID)
    sites.discard_secondary()
    sites.wire.run_until(lambda: sites.pair_is_duplex)
    assert images_equal(sites.primary, sites.secondary, "a")
    assert sites.here()[:6] == [1, 91, 3, 4, 0, 95]


def test_no_command_reaches_a_primary_before_it_is_appointed() -> None:
    sites = Sites()
    sites.both_write()
    sites.discard_secondary()
    contact = sites.secondary.session.contacts[0]
    for _ in range(20):
        sites.wire.deliver()
        sites.secondary.session.tick()
        sites.clock.advance(100_000_000)
        if contact.state is ContactState.APPOINTING:
            break
    sites.secondary.take()
    sites.secondary.session.suspend("x")
    sites.secondary.session.resume()
    assert not [m for m in sites.secondary.take() if isinstance(m, Suspend | Resume | Configured)]
    sites.wire.restart_secondary()
    sites.wire.run_until(lambda: sites.pair_is_duplex)


def test_marks_travel_in_bounded_pieces_that_add_up() -> None:
    marked = np.zeros(4 * MARK_RUNS_MAX + 7, np.bool_)
    marked[::3] = True
    marked[-5:] = True
    pieces = list(runs_of(marked))
    assert all(len(piece) <= 2 * MARK_RUNS_MAX for piece in pieces)
    again = np.zeros_like(marked)
    for piece in pieces:
        for track, count in zip(piece[::2], piece[1::2], strict=True):
            assert not again[track : track + count].any()
            again[track : track + count] = True
    assert (again == marked).all()
    assert list(runs_of(np.zeros(9, np.bool_))) == []
    assert list(runs_of(np.ones(9, np.bool_))) == [[0, 9]]


def test_marks_that_are_gone_stand_for_everything() -> None:
    sites = Sites()
    sites.discard_secondary()
    sites.secondary.primary.delete_stream(SESSION_ID)
    sites.primary.links.link_opened(9)
    session = sites.secondary.session
    session.split.begin_to_tell(0, session.contacts[0])
    assert [m for m in sites.secondary.take() if isinstance(m, Marks)] == [Marks("a", [0, 16])]


def test_records_on_a_link_of_an_older_epoch_do_not_count_and_it_says_so() -> None:
    sites = Sites()
    sites.discard_secondary()
    sites.wire.run_until(lambda: sites.pair_is_duplex)
    session = sites.secondary.session
    before = sites.here()
    sites.primary.write("a", 4, 44)
    late = [m for m in sites.primary.tick(sites.wire.links[0]) if isinstance(m, RecordSet)]
    assert late
    session.remember(session.document.changed(epoch=session.document.epoch + 1))
    received = session.mover.bytes_received
    for message in late:
        sites.secondary.links.link_received(0, message)
    sites.secondary.collect()
    assert "opened under epoch 3" in session.contacts[0].error
    assert (session.mover.bytes_received, sites.here()) == (received, before)


def test_a_pair_that_was_suspended_by_itself_gives_its_writes_up_like_the_others() -> None:
    sites = Sites.__new__(Sites)
    sites.clock = Clock()
    sites.primary, sites.secondary = PrimarySite(sites.clock), SecondarySite(sites.clock)
    sites.wire = Wire(sites.secondary, sites.primary)
    sites.primary.write("a", 0, 1, 2, 3, 4)
    sites.wire.run_until(sites.is_duplex)
    sites.secondary.session.pair_suspension.suspend_now(["a"], "x", sites.clock.ns)
    sites.wire.run_until(lambda: sites.document.pairs[0].suspended)
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.secondary.session.recover(drain=False, allow_incomplete=True)
    sites.secondary.harden()
    sites.both_write()
    sites.discard_secondary()
    sites.wire.run_until(sites.is_duplex, 3000)
    assert images_equal(sites.primary, sites.secondary, "a")
    pair = sites.document.pairs[0]
    assert (pair.suspended, pair.suspend_at_ns, pair.image_ns) == (False, 0, 0)
