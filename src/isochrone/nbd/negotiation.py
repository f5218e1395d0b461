"""The first moments of a connection: the asyncio shell around the handshake."""

from __future__ import annotations

import asyncio
import socket
from struct import Struct
from typing import Final, Protocol, cast

import structlog

from isochrone.nbd.connection import Connection, ConnectionOwner
from isochrone.nbd.handshake import Handshake, State

HANDSHAKE_SECONDS_MAX: Final = 10.0
"""A client that has not chosen an export by then is disconnected."""

_BUFFER_BYTES: Final = 4096
_CREDENTIALS: Final = Struct("3i")
"""ucred of unix(7): process, user, group."""

_log = structlog.get_logger(__name__)


class NegotiationOwner(ConnectionOwner, Protocol):
    """What a negotiation needs of its server."""

    def has_place(self, negotiation: Negotiation) -> bool:
        """Return whether there is a place for one more client; if so `negotiation` has it."""
        ...

    def negotiated(self, negotiation: Negotiation, connection: Connection) -> None:
        """`connection` takes the place of `negotiation`."""
        ...

    def negotiation_ended(self, negotiation: Negotiation) -> None:
        """`negotiation` came to nothing; its place is free."""
        ...


class Negotiation(asyncio.BufferedProtocol):
    """One client before it has chosen an export. Bounded in time, bytes and options; holds no export."""

    def __init__(self, owner: NegotiationOwner) -> None:
        self._owner = owner
        self._handshake = Handshake(owner.exports)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, if there is a place for it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have another ancestry
        self._peer = _peer_of(transport)
        if not self._owner.has_place(self):
            _log.warning("connection refused: no place left", peer=self._peer)
            self._transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS_MAX, self._give_up)
        self._transport.write(self._handshake.greeting())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (a hint is not needed)
        """Return where to receive."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Answer what has arrived; hand over once an export is chosen."""
        handshake, transport = self._handshake, self._transport
        assert transport is not None
        transport.write(handshake.receive(self._buffer[:nbytes]))
        if handshake.agreement is not None:
            connection = Connection(self._owner, transport, handshake.agreement, self._peer)
            self._stop_timer()
            self._owner.negotiated(self, connection)
            connection.begin(handshake.leftover)
        elif not handshake.is_open:
            log = _log.info if handshake.state is State.ENDED else _log.warning
            log("negotiation ended", peer=self._peer, reason=handshake.reason)
            transport.close()

    def pause_writing(self) -> None:
        """The client does not read its replies: take no further options until it does."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read on."""
        assert self._transport is not None
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left without choosing."""
        _log.debug("negotiation left", peer=self._peer, error=str(exc) if exc else None)
        self._stop_timer()
        self._owner.negotiation_ended(self)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self) -> None:
        _log.warning("negotiation took too long", peer=self._peer, seconds_max=HANDSHAKE_SECONDS_MAX)
        self.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the client for people: its address, or its process on a unix socket."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}"
    connected = transport.get_extra_info("socket")
    process, _, _ = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return f"process {process}"
