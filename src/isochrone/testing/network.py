"""A simulated network: connections that carry the real link framing in chunks, and break."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from isochrone.link.messages import Message
from isochrone.model.errors import ProtocolError
from isochrone.testing.events import MILLISECOND_NS, Events
from isochrone.testing.link_pipe import LinkPipe

CHUNK_BYTES_MAX: Final = 1 << 18
LINGER_NS_MAX: Final = 250 * MILLISECOND_NS


class Wire:
    """One direction of a connection: bytes arrive in order, in chunks of any size, after random delays.

    Attributes:
        is_stalled: nothing is delivered in this direction.
    """

    def __init__(
        self, connection: SimConnection, on_message: Callable[[Message], None], track_size_bytes: int
    ) -> None:
        self._connection = connection
        self._on_message = on_message
        self._pipe = LinkPipe(track_size_bytes=track_size_bytes)
        self._is_moving = False
        self.is_stalled = False

    def send(self, message: Message) -> None:
        """Put `message` on its way."""
        self._pipe.send(message)
        self.keep_moving()

    @property
    def pending_bytes(self) -> int:
        """Bytes not delivered yet."""
        return self._pipe.pending_bytes

    def keep_moving(self) -> None:
        """Deliver a next chunk some time from now."""
        if not self._is_moving and self._pipe.pending_bytes:
            self._is_moving = True
            self._connection.events.after(self._connection.delay_ns(), self._deliver)

    def _is_dead(self) -> bool:
        """Whether nothing arrives any more: a receiver that has not heard of a cut still takes what was sent before."""
        connection = self._connection
        return not connection.is_open and not (connection.lingers and self is connection.to_primary)

    def _deliver(self) -> None:
        self._is_moving = False
        connection = self._connection
        if self._is_dead() or connection.is_stalled or self.is_stalled:
            return
        rng = connection.rng
        size = rng.choice((rng.randrange(1, 200), rng.randrange(1, CHUNK_BYTES_MAX), CHUNK_BYTES_MAX))
        corrupt = connection.corrupt if connection.should_corrupt() else None
        try:
            for message in self._pipe.deliver(size, corrupt):
                if self._is_dead():
                    return
                self._on_message(message)
        except ProtocolError as error:
            connection.cut(f"refused: {error.message}")
            return
        self.keep_moving()


class SimConnection:
    """A connection of a mover to a primary. Cutting it loses what is in flight in both directions.

    Args:
        corruption_odds: chance that a delivered chunk has one byte changed.

    Attributes:
        on_cut_at_mover, on_cut_at_primary: told once, with the reason.
        is_stalled: nothing is delivered, nobody is told.
        lingers: the primary hears of a cut only some time later (a half-open connection); meanwhile it takes what is in
            flight to it, and may meet a second connection of the same mover.
        slowness: how many times its latency every chunk takes.
    """

    def __init__(
        self,
        events: Events,
        rng: Random,
        track_size_bytes: int,
        corruption_odds: float,
        to_primary: Callable[[Message], None],
        to_mover: Callable[[Message], None],
    ) -> None:
        self.events = events
        self.rng = rng
        self.is_open = True
        self.is_stalled = False
        self.lingers = False
        self.slowness = 1
        self.on_cut_at_mover: Callable[[str], None] = _ignore
        self.on_cut_at_primary: Callable[[str], None] = _ignore
        self._corruption_odds = corruption_odds
        self._latency_ns = rng.choice((MILLISECOND_NS // 5, MILLISECOND_NS, 20 * MILLISECOND_NS))
        self.to_primary = Wire(self, to_primary, track_size_bytes)
        self.to_mover = Wire(self, to_mover, track_size_bytes)

    def delay_ns(self) -> int:
        """Return how long the next chunk takes."""
        return self.rng.randrange(1, 2 * self._latency_ns) * self.slowness

    @property
    def is_troubled(self) -> bool:
        """Whether it delivers late, or not at all in some direction."""
        return self.is_stalled or self.to_mover.is_stalled or self.to_primary.is_stalled or self.slowness > 1

    def should_corrupt(self) -> bool:
        """Whether the next chunk is damaged."""
        return self.rng.random() < self._corruption_odds

    def corrupt(self, chunk: bytearray) -> None:
        """Change one bit."""
        chunk[self.rng.randrange(len(chunk))] ^= 1 << self.rng.randrange(8)

    def cut(self, reason: str) -> None:
        """Break the connection; both ends are told, the primary's perhaps later."""
        if not self.is_open:
            return
        self.is_open = False
        self.on_cut_at_mover(reason)
        if self.lingers:
            self.events.after(self.rng.randrange(1, LINGER_NS_MAX), lambda: self._end(reason))
        else:
            self.on_cut_at_primary(reason)

    def _end(self, reason: str) -> None:
        self.lingers = False
        self.on_cut_at_primary(reason)


def _ignore(_reason: str) -> None:
    """Nobody is there yet."""
