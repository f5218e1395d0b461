"""A session from its first copy to DUPLEX, and the image that stays in service while a resync runs (P2.1, P2.2, P4)."""

from __future__ import annotations

from isochrone.capture.settings import CaptureSettings
from isochrone.model.states import PairState, SessionState
from isochrone.session.contact import ContactState
from isochrone.session.document import PairDocument
from isochrone.session.explain import pair_state
from support.cores import (
    PRIMARY_IDS,
    SECOND_NS,
    SESSION_ID,
    Clock,
    PrimarySite,
    SecondarySite,
    Wire,
    images_equal,
    new_document,
)
from support.store import TRACK, tags


class Sites:
    """One primary with volume "a" of 16 tracks, one secondary, and a wire."""

    def __init__(self, settings: CaptureSettings | None = None) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock, settings=settings)
        self.secondary = SecondarySite(self.clock)
        self.wire = Wire(self.secondary, self.primary)

    @property
    def pair(self) -> PairDocument:
        return self.secondary.session.document.pairs[0]

    @property
    def state(self) -> PairState:
        return pair_state(self.secondary.session, self.pair)

    def until_duplex(self) -> None:
        self.wire.run_until(lambda: self.state is PairState.DUPLEX)

    def equal(self) -> bool:
        return images_equal(self.primary, self.secondary, "a")


def slow() -> CaptureSettings:
    """One image a step, few on their way: a copy that takes many ticks."""
    return CaptureSettings(copy_step_tracks_max=1, copy_ahead_bytes_max=2 * TRACK)


def duplex(settings: CaptureSettings | None = None) -> Sites:
    sites = Sites(settings)
    sites.primary.write("a", 0, *range(1, 13))
    sites.until_duplex()
    return sites


def test_p2_1_the_first_copy_ends_duplex_and_equal() -> None:
    sites = duplex()
    assert sites.equal()
    assert sites.pair.complete


def test_a_pair_goes_from_pending_over_copy_to_duplex_and_nowhere_else() -> None:
    sites = Sites(slow())
    sites.primary.write("a", 0, *range(1, 13))
    seen = [sites.state]
    while sites.state is not PairState.DUPLEX:
        sites.wire.step()
        if sites.state is not seen[-1]:
            seen.append(sites.state)
    assert seen == [PairState.PENDING, PairState.COPY, PairState.DUPLEX]


def test_an_empty_volume_becomes_duplex_too() -> None:
    sites = Sites()
    sites.until_duplex()
    assert sites.secondary.pool.volumes["a"].mapped_track_count == 0


def test_p2_2_duplex_is_said_only_once_the_last_image_is_committed() -> None:
    sites = Sites(slow())
    sites.primary.write("a", 0, *range(1, 13))
    for _ in range(200):
        sites.wire.step()
        if sites.pair.duplex:
            break
        copied_ns = sites.secondary.session.copied_through_ns(sites.pair)
        assert copied_ns == 0 or sites.secondary.session.mover.consistency_ns < copied_ns
    assert sites.pair.duplex
    assert sites.equal()


def test_duplex_waits_for_the_sync_that_hardens_the_last_image() -> None:
    sites = Sites()
    sites.primary.write("a", 0, 1, 2)
    for _ in range(20):
        sites.clock.advance(10**7)
        sites.primary.primary.tick()
        sites.secondary.session.tick()
        while sites.wire.deliver():
            pass
    assert sites.secondary.hardens_due
    assert sites.secondary.session.copied_through_ns(sites.pair) > 0
    assert (sites.state, tags(sites.secondary.pool, "a", 2)) == (PairState.COPY, [0, 0])
    sites.wire.steps(2)
    assert (sites.state, tags(sites.secondary.pool, "a", 2)) == (PairState.DUPLEX, [1, 2])


def test_writes_beside_the_first_copy_are_all_there_in_the_end() -> None:
    sites = Sites(slow())
    sites.primary.write("a", 0, *range(1, 13))
    for tag in range(20, 40):
        sites.primary.write("a", tag % 16, tag)
        sites.wire.step()
    sites.until_duplex()
    sites.wire.steps(3)
    assert sites.equal()


def test_a_short_loss_of_the_link_costs_no_copy_and_no_state() -> None:
    sites = duplex()
    sites.wire.cut()
    sites.primary.write("a", 0, 99)
    assert sites.state is PairState.DUPLEX
    sites.wire.steps(20)
    assert (sites.state, sites.equal()) == (PairState.DUPLEX, True)
    assert sites.secondary.session.document.hold_floor_ns is None


def test_after_a_restart_of_the_primary_the_image_of_before_stays_until_the_resync_is_whole() -> None:
    sites = duplex(slow())
    before = tags(sites.secondary.pool, "a", 16)
    sites.wire.restart_primary()
    for track in range(12):
        sites.primary.write("a", track, 100 + track)
    seen_holding = 0
    while not (sites.pair.duplex and sites.equal()):
        sites.wire.step()
        if sites.secondary.session.document.hold_floor_ns is not None:
            seen_holding += 1
            assert tags(sites.secondary.pool, "a", 16) == before
            assert sites.pair.complete
            assert sites.state is not PairState.DUPLEX
    assert seen_holding > 3
    assert sites.secondary.session.document.hold_floor_ns is None


def test_p2_5_a_resync_that_is_cut_off_and_begun_again_still_ends_equal() -> None:
    sites = duplex(slow())
    before = tags(sites.secondary.pool, "a", 16)
    for life in range(4):
        sites.wire.restart_primary()
        for track in range(12):
            sites.primary.write("a", track, 50 * life + track + 1)
        sites.wire.run_until(lambda: sites.secondary.session.document.hold_floor_ns is not None)
        sites.wire.steps(2)
        assert tags(sites.secondary.pool, "a", 16) == before
    sites.until_duplex()
    sites.wire.steps(3)
    assert sites.equal()


def test_a_hold_survives_a_kill_of_the_secondary() -> None:
    sites = duplex(slow())
    before = tags(sites.secondary.pool, "a", 16)
    sites.wire.restart_primary()
    for track in range(12):
        sites.primary.write("a", track, 100 + track)
    sites.wire.run_until(lambda: sites.secondary.session.document.hold_floor_ns is not None)
    floor_ns = sites.secondary.session.document.hold_floor_ns
    sites.wire.restart_secondary()
    assert sites.secondary.session.document.hold_floor_ns == floor_ns
    assert tags(sites.secondary.pool, "a", 16) == before
    sites.until_duplex()
    sites.wire.steps(3)
    assert sites.equal()


def test_p2_3_suspend_and_resume_copy_what_was_written_meanwhile() -> None:
    sites = duplex()
    sites.secondary.session.suspend("maintenance")
    sites.wire.steps(3)
    before = tags(sites.secondary.pool, "a", 16)
    sites.primary.write("a", 3, 77)
    sites.wire.steps(5)
    assert (sites.state, tags(sites.secondary.pool, "a", 16)) == (PairState.SUSPENDED, before)
    sites.secondary.session.resume()
    sites.until_duplex()
    sites.wire.steps(3)
    assert sites.equal()


def test_p2_3_a_suspension_in_the_middle_of_a_resync_under_load_loses_nothing() -> None:
    sites = duplex(slow())
    for number in range(5):
        sites.secondary.session.suspend("x")
        sites.wire.steps(2)
        for track in range(16):
            sites.primary.write("a", track, 40 * number + track + 1)
        sites.secondary.session.resume()
        for track in (15, 0, 7):
            sites.wire.step()
            sites.primary.write("a", track, 30 + number)
    sites.until_duplex()
    sites.wire.steps(5)
    assert sites.equal()


def test_an_overflow_at_the_primary_suspends_the_session_with_the_reason() -> None:
    sites = duplex(CaptureSettings(side_file_bytes_max=8 * TRACK))
    sites.wire.refuses.add(0)
    sites.wire.cut()
    for track in range(9):
        sites.primary.write("a", track, 99)
    sites.wire.refuses.clear()
    sites.wire.steps(20)
    document = sites.secondary.session.document
    assert document.state is SessionState.SUSPENDED
    assert "primary p1: the side file reached its limit" in document.reason
    sites.secondary.session.resume()
    sites.until_duplex()
    sites.wire.steps(3)
    assert sites.equal()


def pair_is_duplex(secondary: SecondarySite, number: int) -> bool:
    return secondary.session.document.pairs[number].duplex


def two_primaries() -> tuple[PrimarySite, PrimarySite, SecondarySite, Wire]:
    clock = Clock()
    one = PrimarySite(clock)
    two = PrimarySite(
        clock,
        volumes={"b": 64},
        identity=PRIMARY_IDS[1],
        name="p2",
        settings=CaptureSettings(prune_interval_ns=0, record_set_bytes_max=TRACK),
    )
    document = new_document(primaries=("p1", "p2"), pairs=((0, "a", "a"), (1, "b", "b")))
    secondary = SecondarySite(clock, document=document)
    return one, two, secondary, Wire(secondary, one, two)


def test_a_gap_at_one_primary_holds_the_image_of_all() -> None:
    one, two, secondary, wire = two_primaries()
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    wire.restart_primary(0)
    one.write("a", 0, 1)
    wire.refuses.add(0)
    two.write("b", 0, 2)
    wire.steps(20)
    assert tags(secondary.pool, "b", 1) == [0]
    wire.refuses.clear()
    wire.run_until(lambda: tags(secondary.pool, "a", 1) == [1], 600)
    assert tags(secondary.pool, "b", 1) == [2]


def test_p2_3_a_late_joiner_keeps_its_marks_until_j_counts_it() -> None:
    one, two, secondary, wire = two_primaries()
    wire.refuses.add(1)
    one.write("a", 0, 1)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    wire.refuses.clear()
    secondary.clock.advance(4 * SECOND_NS)
    secondary.tick()
    while wire.deliver():
        pass
    assert secondary.session.contacts[1].state is ContactState.STREAMING
    two.write("b", 0, 1, 2, 3)
    on_their_way = two.tick(wire.links[1])
    for _ in range(3):
        secondary.clock.advance(10**7)
        one.primary.tick()
        for message in one.take(wire.links[0]):
            secondary.links.link_received(0, message)
        secondary.session.tick()
        secondary.harden()
        for answer in secondary.take(1):
            two.links.link_received(wire.links[1], answer)
        two.primary.tick()
    assert on_their_way
    assert two.marked("b") == {0, 1, 2}
    wire.restart_primary(1)
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs), 600)
    assert images_equal(two, secondary, "b")


def test_a_late_joiners_pair_is_not_duplex_before_the_image_includes_it() -> None:
    one, two, secondary, wire = two_primaries()
    wire.refuses.add(1)
    one.write("a", 0, 1)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    two.write("b", 0, 5)
    wire.refuses.clear()
    secondary.clock.advance(4 * SECOND_NS)
    while not pair_is_duplex(secondary, 1):
        wire.step()
        assert not pair_is_duplex(secondary, 1) or secondary.session.mover.has_interlocked(1)
    assert tags(secondary.pool, "b", 1) == [5]


def test_a_pair_that_leaves_keeps_what_was_committed_and_its_primary_stops_marking() -> None:
    sites = duplex()
    sites.secondary.session.remove_pairs(["a"])
    sites.wire.run_until(lambda: not sites.secondary.session.document.pairs)
    assert tags(sites.secondary.pool, "a", 2) == [1, 2]
    sites.primary.write("a", 0, 99)
    assert list(sites.primary.primary.streams[SESSION_ID].volumes) == []
    sites.wire.steps(5)
    assert tags(sites.secondary.pool, "a", 1) == [1]


def test_a_pair_leaves_at_once_while_its_primary_cannot_be_reached() -> None:
    sites = duplex()
    sites.wire.refuses.add(0)
    sites.wire.cut()
    sites.secondary.session.remove_pairs(["a"])
    sites.wire.steps(2)
    assert sites.secondary.session.document.pairs == ()
