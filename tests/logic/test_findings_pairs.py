"""Pairs that leave a session and come back: what is said of them, and what becomes of what was staged for them."""

from __future__ import annotations

from random import Random

from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Configure
from isochrone.session.actions import SendMessage
from support.cores import Clock, PrimarySite, SecondarySite, Wire, images_equal, new_document
from support.store import TRACK, tags


def pair_of(secondary: SecondarySite, volume: str) -> bool:
    """Whether the pair of a secondary volume is said to be DUPLEX."""
    return next(p for p in secondary.session.document.pairs if p.secondary_volume == volume).duplex


SLOW_COPY = CaptureSettings(copy_step_tracks_max=1, copy_ahead_bytes_max=TRACK)


def replicated(
    *volumes: str, settings: CaptureSettings | None = None
) -> tuple[PrimarySite, SecondarySite, Wire]:
    """A site whose volumes hold data and are DUPLEX."""
    clock = Clock()
    primary = PrimarySite(clock, volumes=dict.fromkeys(volumes, 16), settings=settings)
    for tag, volume in enumerate(volumes, start=1):
        primary.write(volume, 0, tag, tag, tag)
    document = new_document(pairs=[(0, volume, volume) for volume in volumes])
    secondary = SecondarySite(clock, document=document)
    wire = Wire(secondary, primary)
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    return primary, secondary, wire


def test_a_pair_that_left_and_came_back_unheard_by_its_primary_is_copied_from_the_start() -> None:
    primary, secondary, wire = replicated("a", "b")
    wire.refuses.add(0)
    wire.cut()
    secondary.session.remove_pairs(["b"])
    wire.run_until(lambda: len(secondary.session.document.pairs) == 1)
    secondary.session.add_pairs([], [("p1", "b", "new")])
    wire.refuses.clear()
    wire.run_until(lambda: pair_of(secondary, "new"))
    content = primary.pool.volumes["b"].read(0, 16 * 4096)
    assert secondary.pool.volumes["new"].read(0, 16 * 4096) == content


def test_a_copy_begun_anew_survives_the_death_of_its_primary() -> None:
    primary, secondary, wire = replicated("a", "b")
    wire.refuses.add(0)
    wire.cut()
    secondary.session.remove_pairs(["b"])
    wire.run_until(lambda: len(secondary.session.document.pairs) == 1)
    secondary.session.add_pairs([], [("p1", "b", "new")])
    wire.refuses.clear()
    wire.run_until(lambda: secondary.session.document.pairs[1].is_confirmed)
    wire.restart_primary()
    wire.run_until(lambda: pair_of(secondary, "new"))
    assert secondary.pool.volumes["new"].read(0, 4096) == primary.pool.volumes["b"].read(0, 4096)


def test_a_pair_that_came_back_is_not_duplex_by_the_copy_of_its_first_life() -> None:
    primary, secondary, wire = replicated("a", "b")
    secondary.session.remove_pairs(["b"])
    wire.run_until(lambda: len(secondary.session.document.pairs) == 1)
    secondary.session.add_pairs([], [("p1", "b", "new")])
    while wire.deliver():
        pass
    for _ in range(5):  # the secondary is quicker than the primary
        secondary.tick()
        secondary.harden()
    assert secondary.session.document.pairs[1].is_confirmed
    assert not pair_of(secondary, "new")
    wire.run_until(lambda: pair_of(secondary, "new"))
    assert images_equal(primary, secondary, "a")


def test_a_volume_that_left_is_not_changed_by_what_was_staged_for_it() -> None:
    primary, secondary, wire = replicated("a", "b")
    wire.step()
    primary.write("b", 1, 51)
    for message in primary.tick(wire.links[0]):
        secondary.links.link_received(0, message)
    assert secondary.pool.staged_count(1)
    secondary.session.remove_pairs(["b"])
    while wire.deliver():
        pass
    assert len(secondary.session.document.pairs) == 1
    secondary.pool.volumes["b"].write(1 * TRACK, bytes([99]) * TRACK)  # in service for somebody else now
    wire.steps(5)
    assert tags(secondary.pool, "b", 2)[1] == 99


def test_a_pair_that_leaves_during_a_resync_keeps_its_last_complete_image() -> None:
    clock = Clock()
    primary = PrimarySite(clock, volumes={"a": 16, "b": 16}, settings=SLOW_COPY)
    for volume in ("a", "b"):
        primary.write(volume, 0, *range(1, 9))
    secondary = SecondarySite(clock, document=new_document(pairs=[(0, "a", "a"), (0, "b", "b")]))
    wire = Wire(secondary, primary)
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    secondary.session.suspend("by the operator")
    wire.steps(3)
    for track in range(8):
        primary.write("a", track, 100 + track)
    primary.write("b", 0, 100, 101)  # the smaller copy comes first
    secondary.session.resume()
    wire.run_until(lambda: secondary.session.document.hold_floor_ns is not None)
    wire.steps(5)
    assert tags(secondary.pool, "b", 8) == list(range(1, 9))
    assert secondary.pool.staged_count(1)
    secondary.session.remove_pairs(["b"])
    wire.run_until(lambda: [p.secondary_volume for p in secondary.session.document.pairs] == ["a"])
    wire.run_until(lambda: secondary.session.document.hold_floor_ns is None)
    wire.steps(5)
    assert tags(secondary.pool, "a", 8) == list(range(100, 108))
    assert tags(secondary.pool, "b", 8) == list(range(1, 9))
    secondary.pool.verify()


def test_what_was_dropped_with_a_pair_stays_dropped_after_a_restart() -> None:
    primary, secondary, wire = replicated("a", "b")
    primary.write("b", 1, 51)
    primary.write("a", 1, 52)
    for message in primary.tick(wire.links[0]):
        secondary.links.link_received(0, message)
    secondary.session.remove_pairs(["b"])
    while wire.deliver():
        pass
    assert len(secondary.session.document.pairs) == 1
    wire.restart_secondary()
    wire.steps(30)
    assert tags(secondary.pool, "b", 2) == [2, 2]
    assert tags(secondary.pool, "a", 2) == [1, 52]
    secondary.pool.verify()


def test_a_removal_that_a_power_loss_has_undone_leaves_no_gap() -> None:
    primary, secondary, wire = replicated("a", "b", settings=SLOW_COPY)
    wire.steps(5)
    for call in secondary.pool.sync():
        call()
    secondary.session.remove_pairs(["b"])
    for message in secondary.take():
        primary.links.link_received(wire.links[0], message)
    primary.primary.take_actions()
    primary.links.link_lost(wire.links.pop(0))
    secondary.disk.power_loss(Random(1))
    secondary.reopen()
    pair = secondary.session.document.pairs[-1]
    assert (pair.secondary_volume, pair.removing, pair.duplex) == ("b", False, True)
    primary.write("b", 9, 90)
    primary.write("a", 1, 7)
    for _ in range(100):
        wire.step()
        if tags(secondary.pool, "a", 2)[1] == 7:
            assert tags(secondary.pool, "b", 10)[9] == 90, "the image of a moved on without that of b"
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    assert images_equal(primary, secondary, "a", "b")


def test_records_of_a_pair_s_first_life_do_not_reach_its_second() -> None:
    primary, secondary, wire = replicated("a", "b")
    link = wire.links[0]
    primary.write("b", 5, 50)
    primary.tick(link)  # sent, and lost on the way
    secondary.session.remove_pairs(["b"])
    for message in secondary.take():
        primary.links.link_received(link, message)
    for message in primary.take(link):
        secondary.links.link_received(0, message)
    assert len(secondary.session.document.pairs) == 1
    primary.trim("b", 5, 1)  # nobody captures it
    wire.cut()
    secondary.session.add_pairs([], [("p1", "b", "new")])
    wire.run_until(lambda: pair_of(secondary, "new"))
    wire.steps(3)
    assert tags(secondary.pool, "new", 6) == [2, 2, 2, 0, 0, 0]


def test_a_primary_is_told_of_pairs_only_what_a_power_loss_here_cannot_undo() -> None:
    _, secondary, _ = replicated("a", "b")
    secondary.session.remove_pairs(["b"])
    secondary.session.add_pairs([], [("p1", "c", "c")])
    actions = [action for action in secondary.session.take_actions() if isinstance(action, SendMessage)]
    assert [type(action.message) for action in actions] == [Configure, Configure]
    assert all(action.durably for action in actions)
