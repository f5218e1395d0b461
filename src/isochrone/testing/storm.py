"""Storms: a resync is broken off, begun again and broken off again, by commands, losses of links and deaths (P2.5).

A fault now and then seldom meets a resync, which is short here. A storm strikes several times within its length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from isochrone.testing.events import MILLISECOND_NS

if TYPE_CHECKING:
    from isochrone.testing.world import World

STRIKES_MAX = 6
CALM_NS_MAX = 60 * MILLISECOND_NS
"""Between two strikes."""


class Storm:
    """Makes storms in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng

    def begin(self) -> None:
        """Suspend, and then strike at short intervals."""
        self._world.tally.storms += 1
        self._suspend()
        self._strike_later(self._rng.randrange(2, STRIKES_MAX))

    def _strike_later(self, count: int) -> None:
        def strike() -> None:
            if count and self._world.faults_on:
                self._rng.choice(self._strikes())()
                self._strike_later(count - 1)

        self._world.events.after(self._rng.randrange(1, CALM_NS_MAX), strike)

    def _strikes(self) -> list[Callable[[], None]]:
        world = self._world
        primary = self._rng.choice(world.primaries)
        secondary = world.secondary
        return [
            self._resume,
            self._resume,
            self._resume,
            self._suspend,
            world.troubles.cut_one,
            world.troubles.do_something,
            lambda: world.crash(primary, primary.kill),
            lambda: world.crash(secondary, secondary.kill),
            lambda: self._crash_both(power=False),
            lambda: self._crash_both(power=True),
            lambda: world.crash(primary, primary.lose_power),
            lambda: world.crash(secondary, secondary.lose_power),
        ]

    def _suspend(self) -> None:
        self._world.operate(lambda session: session.suspend("by the storm"))

    def _resume(self) -> None:
        self._world.operate(lambda session: session.resume())

    def _crash_both(self, *, power: bool) -> None:
        """One primary and the secondary at the same instant."""
        for node in (self._rng.choice(self._world.primaries), self._world.secondary):
            self._world.crash(node, node.lose_power if power else node.kill)
