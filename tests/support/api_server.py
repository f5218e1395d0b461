"""The API served on a unix socket by a thread of the test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from isochrone.api.app import create_app
from isochrone.api.operations import Operations

STARTED_S_MAX = 10.0


class _Server(uvicorn.Server):
    """Tells when it listens, or that it never will; leaves the signals to the test."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        self.listening.set()


class SwitchedApp:
    """An ASGI app that can be exchanged while it is served, so that many tests share one server."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    def serve(self, operations: Operations) -> None:
        self._app = create_app(operations)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        await self._app(scope, receive, send)


@contextlib.contextmanager
def served(app: ASGIApp, path: Path) -> Iterator[str]:
    """Serve `app` while the context lasts; yields the address for --controller."""
    config = uvicorn.Config(
        app, uds=str(path), loop="asyncio", ws="none", lifespan="off", log_level="critical"
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listening.wait(STARTED_S_MAX), "the API server did not start"
        yield f"unix:{path}"
    finally:
        server.should_exit = True
        thread.join()
