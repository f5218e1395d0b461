"""What can happen to the links of a simulated world: cuts, stalls, one-way and slow lines, outages, half-open ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isochrone.testing.events import MILLISECOND_NS
from isochrone.testing.network import SimConnection, Wire
from isochrone.testing.sim_primary import PrimaryNode

if TYPE_CHECKING:
    from isochrone.testing.world import World

ONE_WAY_NS_MAX = 400 * MILLISECOND_NS
OUTAGE_NS_MAX = 700 * MILLISECOND_NS
SLOWNESS_MAX = 40


class LinkTroubles:
    """Breaks the links of one world.

    Attributes:
        unreachable: primaries that nobody can connect to at present.
    """

    def __init__(self, world: World) -> None:
        self.unreachable: set[PrimaryNode] = set()
        self._world = world
        self._rng = world.rng
        self._events = world.events

    def _any_link(self) -> SimConnection | None:
        connections = self._world.connections()
        return self._rng.choice(connections) if connections else None

    def cut_one(self) -> None:
        """Break a connection. Sometimes the primary hears of it late, and the mover's next one finds the old one open."""
        connection = self._any_link()
        if connection is not None:
            self._world.tally.cuts += 1
            connection.lingers = self._rng.random() < 0.3
            connection.cut("cut by the world")

    def stall_one(self) -> None:
        """Nothing is delivered any more, and nobody is told."""
        connection = self._any_link()
        if connection is not None:
            connection.is_stalled = connection.lingers = True

    def do_something(self) -> None:
        """One of the rarer troubles."""
        self._world.tally.link_troubles += 1
        connection = self._any_link()
        if self._rng.random() < 0.4 or connection is None:
            self._begin_outage(self._rng.choice(self._world.primaries))
        elif self._rng.random() < 0.5:
            self._begin_one_way(connection, self._rng.choice((connection.to_mover, connection.to_primary)))
        else:
            connection.slowness = self._rng.randrange(2, SLOWNESS_MAX)

    def _begin_one_way(self, connection: SimConnection, wire: Wire) -> None:
        """One direction delivers nothing for a while; then the line is whole again, or broken."""
        wire.is_stalled = True

        def end() -> None:
            if self._rng.random() < 0.5:
                wire.is_stalled = False
                wire.keep_moving()
            else:
                connection.cut("the one-way line broke")

        self._events.after(self._rng.randrange(1, ONE_WAY_NS_MAX), end)

    def _begin_outage(self, node: PrimaryNode) -> None:
        """A primary cannot be reached for so long that its side file may run over."""
        self.unreachable.add(node)
        for connection in list(node.connections.values()):
            connection.lingers = self._rng.random() < 0.5
            connection.cut("the network is out")
        self._events.after(self._rng.randrange(1, OUTAGE_NS_MAX), lambda: self.unreachable.discard(node))

    def heal(self) -> None:
        """Every line is whole and fast again."""
        self.unreachable.clear()
        for connection in self._world.connections():
            if connection.is_troubled:
                connection.cut("the trouble ends")
