"""How rough a simulated world is: the chances of each fault, drawn from its seed.

Most worlds meet a little of everything. Some have none of it, and some much of a few things that seldom meet otherwise:
power losses one after the other, pairs suspended and resumed again and again while the secondary's device is in trouble.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

CALM_SHARE: Final = 0.15
"""Of all worlds: without any fault."""
ROUGH_SHARE: Final = 0.3
"""Of the others: rough in one of WAYS."""

POWER: Final = "power losses, mostly with durable marks"
PAIRS: Final = (
    "pairs suspended and resumed by themselves, half the time amid trouble of the secondary's device"
)
BOTH: Final = "both"
WAYS: Final = (POWER, PAIRS, BOTH)


@dataclass(frozen=True, slots=True)
class Odds:
    """Chances per fault event.

    Attributes:
        pairs, timed: of the operator's deeds: suspends or resumes one pair; suspends at a time.
        trouble: that such a deed with a pair comes together with trouble of the secondary's device.
        durable: that the session's marks are durable; None for every other seed.
    """

    cut: float = 0.12
    stall: float = 0.06
    link_trouble: float = 0.1
    storm: float = 0.1
    renewal: float = 0.02
    kill: float = 0.1
    crash_in_disk: float = 0.12
    power: float = 0.1
    operator: float = 0.15
    pairs: float = 0.15
    timed: float = 0.25
    stop: float = 0.05
    device: float = 0.1
    corruption: float = 0.0
    trouble: float = 0.0
    durable: float | None = None


FAULT_COUNT: Final = 13
"""Leading attributes of Odds that are chances of faults and deeds."""
CALM: Final = Odds(*(0.0,) * FAULT_COUNT)


def draw_odds(rng: Random, seed: int) -> Odds:
    """Return the odds of the world of `seed`, of which `rng` draws everything else."""
    if rng.random() < CALM_SHARE:
        return CALM
    odds = Odds(corruption=rng.choice((0.0, 0.0, 0.002)), power=rng.choice((0.0, 0.1)))
    # Drawn apart: what else a seed decides does not depend on it.
    apart = Random(f"roughness {seed}")
    if apart.random() >= ROUGH_SHARE:
        return odds
    return roughened(apart.choice(WAYS), odds, apart.random())


def roughened(way: str, odds: Odds, more: float) -> Odds:
    """Return `odds` with much of what `way`, one of WAYS, stands for; `more`, 0 to 1, says how much."""
    # All chances together stay below one: what is much of one thing leaves less to the others.
    odds = replace(odds, cut=0.08, stall=0.03, link_trouble=0.05, storm=0.04, kill=0.05, crash_in_disk=0.05)
    odds = replace(odds, stop=0.02)
    if way in (POWER, BOTH):
        odds = replace(odds, power=0.3 + 0.2 * more, device=0.02, durable=0.75)
    if way in (PAIRS, BOTH):
        odds = replace(odds, pairs=0.5 + 0.2 * more, trouble=0.5, operator=0.2)
    if way == PAIRS:
        odds = replace(odds, operator=0.45, device=0.15, power=0.05)
    return odds
