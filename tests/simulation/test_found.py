"""Seeds that once failed, for a fault of the product or of the world, kept: the list only grows (what world a seed makes
may change)."""

from __future__ import annotations

import pytest

from isochrone.testing.endings import run_world
from isochrone.testing.roughness import Odds
from isochrone.testing.world import World

FOUND = {
    5025: "after a restart of the secondary C ran past a primary whose promises had all come without records",
    40034: "a late primary's staged records, older than C, were left out when its tracks were compared",
    50001: "the world took J in a resync for a promise that held-back writes were here",
    60002: "the world took a registration that was lost with the power for forgotten, one restart later",
    60013: "the world compared a primary that was down",
    61167: "the world's operator did not repeat the addition of a pair that a power loss had undone",
    70004: "a deleted session came back with the power, and its successor at a primary stood in its way",
    80051: "a side file smaller than one burst suspended every resync before it could end",
    80128: "two replacements of one pair brought the first one's volume back",
    2000975: "the world was impatient with a side file of 40 tracks on a slow link",
    2001139: "a pair could be suspended in the middle of a planned switchover",
    2102098: "the world took trims of what was zeros already for records that a power loss must not undo",
    2001711: "what counted as staged went back with a restart when the device had taken none of the records before it",
    2001988: "two batches at once were too much for a side file of 40 tracks, again and again",
    2102432: "the same with 64 tracks, and three applications",
    2103067: "a pair resumed behind the cut of its stream passed for copied",
    2102638: "the world did not tidy a primary that came back with a session which was deleted by force",
    13175: "a region of marks was given up while a sync was under way after which it counted as active",
    1001252: "on a slow link a burst of images took 11 s, and the copier then rested for 10 s",
}

POWER = Odds(cut=0.15, stall=0.02, kill=0.1, crash_in_disk=0.05, power=0.5, operator=0.1)
FOUND_WITH_POWER_LOSSES = {
    43058: "the world took the J of a restarted secondary, which begins at C, for what it had kept",
    43244: "the same, with a commit that was lost with the power",
}


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_broke_a_promise_keeps_it(seed: int) -> None:
    run_world(World(seed))


@pytest.mark.parametrize("seed", FOUND_WITH_POWER_LOSSES)
def test_a_seed_that_broke_a_promise_under_power_losses_keeps_it(seed: int) -> None:
    run_world(World(seed, POWER))
