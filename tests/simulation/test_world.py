"""Whole worlds from seeds keep every promise: see isochrone.testing.world for what happens in one."""

from __future__ import annotations

import os

import pytest

from isochrone.testing.endings import run_world
from isochrone.testing.judge import Tally
from isochrone.testing.oracle import OracleError
from isochrone.testing.roughness import WAYS, Odds, roughened
from isochrone.testing.world import World

SEEDS_PER_TEST = 20
SEED_COUNT = int(os.environ.get("ISOCHRONE_SEEDS", "1000"))
FIRST_SEED = int(os.environ.get("ISOCHRONE_FIRST_SEED", "0"))


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEED_COUNT, SEEDS_PER_TEST))
def test_promises_hold_in_worlds_from(first: int) -> None:
    for seed in range(first, min(first + SEEDS_PER_TEST, FIRST_SEED + SEED_COUNT)):
        try:
            run_world(World(seed))
        except OracleError as error:
            pytest.fail(f"seed {seed} (repeat with: make sim SEED={seed}): {error}")
        except Exception as error:
            raise RuntimeError(
                f"seed {seed} (repeat with: make sim SEED={seed}) ended in an error"
            ) from error


def _tally(seed: int) -> Tally:
    world = World(seed)
    run_world(world)
    return world.tally


def test_the_same_seed_is_the_same_world() -> None:
    assert _tally(7) == _tally(7)


def test_the_worlds_meet_every_kind_of_trouble() -> None:
    tallies = [_tally(seed) for seed in range(1000, 1012)]
    assert {tally.ending for tally in tallies} == {"end_in_disaster", "end_in_calm", "switch_over"}
    assert sum(tally.crashes for tally in tallies) > 5
    assert sum(tally.cuts for tally in tallies) > 3
    assert sum(tally.image_checks for tally in tallies) > 50
    assert sum(tally.mark_checks for tally in tallies) > 50
    assert sum(tally.resyncs_held for tally in tallies) > 0
    assert sum(tally.pairs_replaced for tally in tallies) > 0
    assert sum(tally.storms for tally in tallies) > 0
    assert sum(tally.link_troubles for tally in tallies) > 0
    assert sum(tally.copies_broken_off for tally in tallies) > 0
    assert sum(tally.device_errors for tally in tallies) > 0
    assert sum(tally.writes for tally in tallies) > 1000


def test_rough_worlds_meet_power_losses_of_durable_marks_and_pairs_suspended_while_tracks_wait() -> None:
    worlds = [
        World(seed, odds)
        for odds in (roughened(way, Odds(), 0.5) for way in WAYS)
        for seed in range(2000, 2008)
    ]
    for world in worlds:
        run_world(world)
    tallies = [world.tally for world in worlds]
    assert sum(tally.power_losses for tally in tallies) > 10
    assert sum(tally.power_losses_durable for tally in tallies) > 3
    assert sum(tally.pairs_suspended for tally in tallies) > 5
    assert sum(tally.pairs_resumed for tally in tallies) > 3
    assert sum(tally.pair_deeds_in_trouble for tally in tallies) > 0
    assert sum(tally.looks_at_waiting_pairs for tally in tallies) > 0
