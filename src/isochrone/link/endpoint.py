"""Making connections: `dial` the other side, or `serve` an address."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final

from isochrone.link.connection import DIAL_TIMEOUT_S, Connection
from isochrone.link.unix_socket import listen_on_path, remove_socket, socket_identity
from isochrone.model.addresses import Address, TcpAddress, UnixAddress
from isochrone.model.errors import BusyError, RefusedError, UnavailableError

BACKLOG: Final = 128
"""Connections that may wait in the kernel to be accepted."""

CONNECTIONS_MAX: Final = 1024
"""Connections that one listener keeps open at a time; further ones are closed as they come."""


async def dial(address: Address) -> Connection:
    """Return a connection to `address`; call its `start`. That the peer is a link shows only then.

    Raises UnavailableError when nobody answers within DIAL_TIMEOUT_S.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            if isinstance(address, TcpAddress):
                _, connection = await loop.create_connection(
                    lambda: Connection(str(address)), address.host, address.port
                )
            else:
                _, connection = await loop.create_unix_connection(
                    lambda: Connection(str(address)), address.path
                )
    except TimeoutError as error:
        raise UnavailableError(
            f"{address} did not answer within {DIAL_TIMEOUT_S:.0f} s; is its host up?"
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"{address} cannot be reached: {error.strerror or error}; does its controller listen there?"
        ) from error
    return connection


class Listener:
    """An address that is served.

    Attributes:
        address: with the port that was found when port 0 was asked for.
        refused_count: connections closed at once because CONNECTIONS_MAX were open.
    """

    def __init__(self, on_connection: Callable[[Connection], None]) -> None:
        self.address: Address
        self.refused_count = 0
        self._on_connection = on_connection
        self._connections: set[Connection] = set()
        self._server: asyncio.Server
        self._socket_identity: tuple[int, int] | None = None

    @property
    def connection_count(self) -> int:
        """Connections open now."""
        return len(self._connections)

    async def open(self, address: Address) -> None:
        """Begin to listen. Raises BusyError or RefusedError, see `serve`."""
        if isinstance(address, UnixAddress):
            await self._open_unix(address)
        else:
            await self._open_tcp(address)

    def close(self) -> None:
        """Accept no more and remove the unix socket file; connections that are open stay so."""
        if isinstance(self.address, UnixAddress) and self._socket_identity is not None:
            remove_socket(self.address.path, self._socket_identity)
            self._socket_identity = None
        self._server.close()

    async def _open_tcp(self, address: TcpAddress) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._make, address.host, address.port, backlog=BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BusyError(
                    f"another process listens on {address}; stop it, or choose another port"
                ) from error
            raise RefusedError(
                f"cannot listen on {address}: {error.strerror or error}; use an address of this host"
            ) from error
        self.address = TcpAddress(address.host, self._server.sockets[0].getsockname()[1])

    async def _open_unix(self, address: UnixAddress) -> None:
        loop = asyncio.get_running_loop()
        sock = await listen_on_path(address.path, BACKLOG)
        self._socket_identity = socket_identity(address.path)
        self._server = await loop.create_unix_server(self._make, sock=sock, backlog=BACKLOG)
        self.address = address

    def _make(self) -> Connection:
        return Connection(f"a peer on {self.address}", self._accept, self._connections.discard)

    def _accept(self, connection: Connection) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            self.refused_count += 1
            connection.abort()
            return
        self._connections.add(connection)
        self._on_connection(connection)


async def serve(address: Address, on_connection: Callable[[Connection], None]) -> Listener:
    """Listen on `address`; `on_connection` is given each accepted connection and calls its `start`.

    A unix socket file that a dead process left is replaced. Raises BusyError when another process listens
    there, RefusedError when the address cannot be used.
    """
    listener = Listener(on_connection)
    await listener.open(address)
    return listener
