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


class Wire:
    """One direction of a connection: bytes arrive in order, in chunks of any size, after random delays."""

    def __init__(
        self, connection: SimConnection, on_message: Callable[[Message], None], track_size_bytes: int
    ) -> None:
        self._connection = connection
        self._on_message = on_message
        self._pipe = LinkPipe(track_size_bytes=track_size_bytes)
        self._is_moving = False

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

    def _deliver(self) -> None:
        self._is_moving = False
        connection = self._connection
        if not connection.is_open or connection.is_stalled:
            return
        rng = connection.rng
        size = rng.choice((rng.randrange(1, 200), rng.randrange(1, CHUNK_BYTES_MAX), CHUNK_BYTES_MAX))
        corrupt = connection.corrupt if connection.should_corrupt() else None
        try:
            for message in self._pipe.deliver(size, corrupt):
                if connection.was_cut():
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
        on_cut: told once, with the reason, at each end.

    Attributes:
        is_stalled: half-open: nothing is delivered, nobody is told.
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
        self.on_cut: list[Callable[[str], None]] = []
        self._corruption_odds = corruption_odds
        self._latency_ns = rng.choice((MILLISECOND_NS // 5, MILLISECOND_NS, 20 * MILLISECOND_NS))
        self.to_primary = Wire(self, to_primary, track_size_bytes)
        self.to_mover = Wire(self, to_mover, track_size_bytes)

    def delay_ns(self) -> int:
        """Return how long the next chunk takes."""
        return self.rng.randrange(1, 2 * self._latency_ns)

    def should_corrupt(self) -> bool:
        """Whether the next chunk is damaged."""
        return self.rng.random() < self._corruption_odds

    def corrupt(self, chunk: bytearray) -> None:
        """Change one bit."""
        chunk[self.rng.randrange(len(chunk))] ^= 1 << self.rng.randrange(8)

    def was_cut(self) -> bool:
        """Whether an end has gone away."""
        return not self.is_open

    def cut(self, reason: str) -> None:
        """Break the connection; both ends are told."""
        if self.is_open:
            self.is_open = False
            for told in self.on_cut:
                told(reason)
