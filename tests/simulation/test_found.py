"""Seeds that once broke a promise, kept (the worlds they make may change with the simulator; the list only grows)."""

from __future__ import annotations

import pytest

from isochrone.testing.endings import run_world
from isochrone.testing.world import World

FOUND = {
    5025: "after a restart of the secondary C ran past a primary whose promises had all come without records",
}


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_broke_a_promise_keeps_it(seed: int) -> None:
    run_world(World(seed))
