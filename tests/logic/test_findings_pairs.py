"""Pairs that leave a session and come back: what is said of them, and what becomes of what was staged for them."""

from __future__ import annotations

from support.cores import Clock, PrimarySite, SecondarySite, Wire, images_equal, new_document


def pair_of(secondary: SecondarySite, volume: str) -> bool:
    """Whether the pair of a secondary volume is said to be DUPLEX."""
    return next(p for p in secondary.session.document.pairs if p.secondary_volume == volume).duplex


def replicated(*volumes: str) -> tuple[PrimarySite, SecondarySite, Wire]:
    """A site whose volumes hold data and are DUPLEX."""
    clock = Clock()
    primary = PrimarySite(clock, volumes=dict.fromkeys(volumes, 16))
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
