"""The HTTP API inside the controller's own event loop: uvicorn without its signal handlers and its log format."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Final

import uvicorn
from fastapi import FastAPI

from isochrone.link.unix_socket import listen_on_path, remove_socket, socket_identity
from isochrone.model.addresses import Address, TcpAddress, UnixAddress
from isochrone.model.errors import BusyError, RefusedError

BACKLOG: Final = 128
CONCURRENT_REQUESTS_MAX: Final = 128
"""Further requests are answered 503."""
KEEP_ALIVE_S: Final = 30
STOP_S_MAX: Final = 3
"""Requests that have not ended by then are cut."""


class _Server(uvicorn.Server):
    """Leaves signals to the controller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiServer:
    """Serves one app on any number of addresses.

    Attributes:
        addresses: where it listens, with the ports the kernel chose.
    """

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._files: list[tuple[str, tuple[int, int] | None]] = []

    async def start(self, app: FastAPI, addresses: Sequence[Address]) -> None:
        """Listen and serve. Raises BusyError or RefusedError when an address cannot be had."""
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                sockets += [await self._listen(address)]
        except BaseException:
            for listener in sockets:
                listener.close()
            self._remove_files()
            raise
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=CONCURRENT_REQUESTS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S_MAX,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets), name="api")

    async def stop(self, *, hurry: bool) -> None:
        """Take no more requests; end those that run, at once when in a `hurry`."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        self._server.force_exit = hurry
        await self._task
        self._remove_files()

    async def _listen(self, address: Address) -> socket.socket:
        if isinstance(address, UnixAddress):
            listener = await listen_on_path(address.path, BACKLOG)
            self._files.append((address.path, socket_identity(address.path)))
            self.addresses.append(address)
            return listener
        listener = _listen_on_port(address)
        self.addresses.append(TcpAddress(address.host, listener.getsockname()[1]))
        return listener

    def _remove_files(self) -> None:
        for path, identity in self._files:
            if identity is not None:
                remove_socket(path, identity)
        self._files.clear()


def _listen_on_port(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise RefusedError(
                f"cannot listen on {address}: {error.strerror or error}; use an address and port of this host"
            ) from error
        raise BusyError(f"another process listens on {address}; stop it, or choose another port") from error
    listener.setblocking(False)
    return listener
