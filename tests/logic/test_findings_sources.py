"""Several primaries of one session: one that is away must not strand the others, nor the others it."""

from __future__ import annotations

from random import Random

from isochrone.session.document import SourceDocument
from support.cores import PRIMARY_IDS, Clock, PrimarySite, SecondarySite, Wire, new_document
from support.store import TRACK


def two_primaries(*, pool_tracks: int = 256) -> tuple[list[PrimarySite], SecondarySite, Wire]:
    """A session over a volume of each of two primaries, DUPLEX."""
    clock = Clock()
    primaries = [
        PrimarySite(clock, identity=identity, name=f"p{number}", volumes={"a": 32})
        for number, identity in enumerate(PRIMARY_IDS, start=1)
    ]
    document = new_document(primaries=("p1", "p2"), pairs=[(0, "a", "a1"), (1, "a", "a2")])
    secondary = SecondarySite(clock, document=document, pool_tracks=pool_tracks)
    wire = Wire(secondary, *primaries)
    for primary in primaries:
        primary.write("a", 0, *range(1, 9))
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    return primaries, secondary, wire


def test_an_added_primary_that_was_in_the_session_before_and_is_away_delays_nobody() -> None:
    primaries, secondary, wire = two_primaries()
    secondary.session.remove_pairs(["a2"])
    wire.run_until(lambda: len(secondary.session.document.pairs) == 1)
    wire.refuses.add(1)
    wire.cut(1)
    secondary.session.add_pairs([SourceDocument(name="p2", address="unix:/p2")], [("p2", "a", "again")])
    wire.steps(5)
    before_ns = secondary.session.mover.consistency_ns
    primaries[0].write("a", 3, 33)
    wire.steps(10)
    assert secondary.session.mover.consistency_ns > before_ns
    assert secondary.pool.volumes["a1"].read(3 * TRACK, 1) == bytes([33])
    wire.refuses.clear()
    wire.run_until(lambda: all(pair.duplex for pair in secondary.session.document.pairs))
    assert secondary.pool.volumes["again"].read(0, 8 * TRACK) == primaries[1].pool.volumes["a"].read(
        0, 8 * TRACK
    )


def test_a_primary_that_ran_ahead_leaves_room_for_the_one_that_was_away() -> None:
    primaries, secondary, wire = two_primaries(pool_tracks=512)
    wire.refuses.add(1)
    wire.cut(1)
    for tag in range(100):  # far more than the pool holds: none of it can be committed before p2 is back
        primaries[0].write("a", 0, *[tag] * 8)
        if tag % 4 == 0:
            wire.step()
    assert secondary.session.mover.full_reason
    for tag in range(20):
        primaries[1].write("a", tag % 8, 100 + tag)
    wire.refuses.clear()
    wire.run_until(lambda: not secondary.session.mover.full_reason and 1 in wire.links)
    wire.steps(20)
    for primary, volume in zip(primaries, ("a1", "a2"), strict=True):
        content = primary.pool.volumes["a"].read(0, 8 * TRACK)
        assert secondary.pool.volumes[volume].read(0, 8 * TRACK) == content


def test_what_is_hardened_can_be_recovered_after_a_power_loss() -> None:
    """A record of one primary counts as hardened only with the promises of the others that reach it."""
    primaries, secondary, wire = two_primaries()
    wire.steps(3)
    mover = secondary.session.mover
    primaries[0].write("a", 20, 7)
    for message in primaries[0].tick(wire.links[0]):  # p2 has not promised as much yet
        secondary.links.link_received(0, message)
    written_ns = primaries[0].primary.stamper.last_ns
    secondary.tick()
    secondary.harden()
    assert mover.journal_ns < written_ns
    for message in primaries[1].tick(wire.links[1]):  # now it has: nothing but time has come
        secondary.links.link_received(1, message)
    for _ in range(3):
        secondary.tick()
        secondary.harden()
    assert mover.consistency_ns >= written_ns - 10
    assert secondary.pool.volumes["a1"].read(20 * TRACK, 1) == bytes([7])
    secondary.disk.power_loss(Random(3))
    secondary.reopen()
    secondary.session.recover(drain=False, allow_incomplete=False)
    secondary.harden()
    assert secondary.pool.volumes["a1"].read(20 * TRACK, 1) == bytes([7])
