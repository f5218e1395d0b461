"""The NBD server: listening sockets, the places for clients, the memory they share, and the way down.

What serving can cost is bounded by `ServerSettings.memory_bytes_max`; see `connection` for what one client
can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from isochrone.nbd.budget import BufferBudget
from isochrone.nbd.connection import Connection
from isochrone.nbd.constants import REPLY_BYTES_PER_BATCH
from isochrone.nbd.execution import ConnectionCounters
from isochrone.nbd.export import Exports
from isochrone.nbd.negotiation import Negotiation
from isochrone.nbd.polling import POLL_NS_MAX_DEFAULT, BusyPoller
from isochrone.nbd.receive import RECEIVE_BUFFER_BYTES, RECEIVE_BUFFER_BYTES_MAX

LISTEN_BACKLOG: Final = 128
MEMORY_HOLD_SECONDS_MAX: Final = 10.0
"""While others wait for memory, a client may keep some for one unfinished large request this long."""

CUT_SECONDS_MAX: Final = 1.0
"""A connection that is cut ends within this, unless a flush of its volume is still running."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of a server.

    `connections_max`: clients at a time, also those still negotiating. `large_request_bytes_max`: memory for
    requests that exceed what every connection has, over all connections; at least one largest request.
    `poll_ns_max`: how long the event loop stays awake for the next request of a busy client; 0 = never.
    """

    connections_max: int = 128
    large_request_bytes_max: int = 256 << 20
    poll_ns_max: int = POLL_NS_MAX_DEFAULT

    def __post_init__(self) -> None:
        if self.connections_max < 1:
            raise ValueError("connections_max must be at least 1")
        if self.large_request_bytes_max < RECEIVE_BUFFER_BYTES_MAX:
            raise ValueError(
                f"large_request_bytes_max must be at least {RECEIVE_BUFFER_BYTES_MAX}, one largest request"
            )

    @property
    def memory_bytes_max(self) -> int:
        """Upper bound of buffers for requests and replies: each connection's share, and the large requests."""
        share_bytes = RECEIVE_BUFFER_BYTES + REPLY_BYTES_PER_BATCH
        return self.connections_max * share_bytes + self.large_request_bytes_max


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """One client at the moment of asking. `contexts`: names of the metadata contexts that it selected."""

    peer: str
    export: str
    contexts: tuple[str, ...]
    counters: ConnectionCounters


_log = structlog.get_logger(__name__)


class NbdServer:
    """Serves `exports` on any number of listening sockets, in the running event loop."""

    def __init__(self, exports: Exports, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self._exports = exports
        self._budget = BufferBudget(self.settings.large_request_bytes_max)
        self._listeners: list[asyncio.AbstractServer] = []
        self._socket_paths: list[Path] = []
        self._negotiations: set[Negotiation] = set()
        self._connections: set[Connection] = set()
        self._hold_timer: asyncio.TimerHandle | None = None
        self._poller: BusyPoller | None = None

    @property
    def poller(self) -> BusyPoller:
        """Keeps the event loop awake between the requests of a busy client."""
        if self._poller is None:
            self._poller = BusyPoller(asyncio.get_running_loop(), self.settings.poll_ns_max)
        return self._poller

    @property
    def exports(self) -> Exports:
        """What is served."""
        return self._exports

    @property
    def budget(self) -> BufferBudget:
        """Memory for large requests of all connections."""
        return self._budget

    # --- for the controller ---------------------------------------------------------------------------------

    async def listen_unix(self, path: Path) -> None:
        """Listen on a unix socket at `path`, replacing one that a dead process left. Raises OSError."""
        listener = await asyncio.get_running_loop().create_unix_server(
            lambda: Negotiation(self), sock=_bind_unix(path), backlog=LISTEN_BACKLOG
        )
        self._listeners.append(listener)
        self._socket_paths.append(path)

    async def listen_tcp(self, host: str, port: int) -> int:
        """Listen on TCP; return the port (chosen by the system when `port` is 0). Raises OSError."""
        listener = await asyncio.get_running_loop().create_server(
            lambda: Negotiation(self), host=host, port=port, backlog=LISTEN_BACKLOG, reuse_address=True
        )
        self._listeners.append(listener)
        chosen: int = listener.sockets[0].getsockname()[1]
        return chosen

    def connections(self) -> list[ConnectionReport]:
        """Return the clients that have chosen an export."""
        return [
            ConnectionReport(one.peer, one.export_name, one.context_names, replace(one.counters))
            for one in self._connections
        ]

    def release_held(self) -> None:
        """Answer everything that waits for room."""
        for connection in list(self._connections):
            connection.release_held()

    async def disconnect(self, export_name: str, deadline_s: float) -> None:
        """End the connections to one export once requests in flight are answered; cut them at the deadline."""
        await _end([one for one in self._connections if one.export_name == export_name], deadline_s)

    async def close(self, deadline_s: float) -> None:
        """Take no new client, let requests in flight finish, cut what is left at the deadline. Idempotent."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for negotiation in list(self._negotiations):
            negotiation.abort()
        await _end(list(self._connections), deadline_s)
        for path in self._socket_paths:
            path.unlink(missing_ok=True)
        self._socket_paths.clear()
        if self._hold_timer is not None:
            self._hold_timer.cancel()

    # --- for the connections --------------------------------------------------------------------------------

    def has_place(self, negotiation: Negotiation) -> bool:
        """Return whether there is a place for one more client; if so `negotiation` has it."""
        if len(self._negotiations) + len(self._connections) >= self.settings.connections_max:
            return False
        self._negotiations.add(negotiation)
        return True

    def negotiated(self, negotiation: Negotiation, connection: Connection) -> None:
        """`connection` takes the place of `negotiation`."""
        self._negotiations.discard(negotiation)
        self._connections.add(connection)

    def negotiation_ended(self, negotiation: Negotiation) -> None:
        """`negotiation` came to nothing; its place is free."""
        self._negotiations.discard(negotiation)

    def ended(self, connection: Connection) -> None:
        """`connection` holds nothing any more."""
        self._connections.discard(connection)

    def memory_is_short(self) -> None:
        """A connection is about to wait: take back what others only keep, watch those that do not let go."""
        for connection in self._connections:
            connection.give_up_spare_memory()
        if self._hold_timer is None:
            self._hold_timer = asyncio.get_running_loop().call_later(
                MEMORY_HOLD_SECONDS_MAX, self._cut_longest_holder
            )

    def _cut_longest_holder(self) -> None:
        """While others wait, a client that keeps memory for a request it does not finish has to go."""
        self._hold_timer = None
        if not self._budget.waiter_count:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        holding = [(one.holding_since_s, one) for one in self._connections if one.holding_since_s is not None]
        since_s, longest = min(holding, key=lambda pair: pair[0], default=(now_s, None))
        if longest is not None and now_s - since_s >= MEMORY_HOLD_SECONDS_MAX:
            _log.warning(
                "connection closed: others wait for the memory it holds for an unfinished request",
                peer=longest.peer,
                export=longest.export_name,
                held_s=round(now_s - since_s, 1),
            )
            longest.abort()
        self._hold_timer = loop.call_later(MEMORY_HOLD_SECONDS_MAX / 4, self._cut_longest_holder)


async def _end(connections: list[Connection], deadline_s: float) -> None:
    """Finish `connections`; those that have not ended after `deadline_s` are cut."""
    for connection in connections:
        connection.finish()
    await _wait_ended(connections, deadline_s)
    late = [connection for connection in connections if not connection.has_ended]
    for connection in late:
        connection.abort()
    await _wait_ended(late, CUT_SECONDS_MAX)


async def _wait_ended(connections: list[Connection], deadline_s: float) -> None:
    waits = [asyncio.create_task(connection.wait_ended()) for connection in connections]
    if waits:
        _, late = await asyncio.wait(waits, timeout=deadline_s)
        for wait in late:
            wait.cancel()


def _bind_unix(path: Path) -> socket.socket:
    """Return a socket bound to `path`. The event loops would take the path from a server that is alive."""
    _remove_dead_socket(path)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def _remove_dead_socket(path: Path) -> None:
    """Remove the socket at `path` if nobody listens on it; about anything else bind complains."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
