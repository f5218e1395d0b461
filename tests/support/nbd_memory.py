"""Exports in memory and a real NBD server over them in a thread, with handles to make things go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

import uvloop

from isochrone.model.errors import NotFoundError
from isochrone.nbd.export import Export
from isochrone.nbd.server import NbdServer, ServerSettings

Result = TypeVar("Result")
DEADLINE_S: Final = 20.0


class MemoryExport:
    """An export on a bytearray, mapped by track.

    Attributes:
        failures: by method name, what it raises when called.
        hold_ns: what `end_batch` returns.
        room_ns: what `room_wait_ns` returns.
        flush_gate: while set to an event, `flush` waits for it.
        contexts: metadata contexts it has besides base:allocation, with (length, flags) of all of it.
        open_map_count: how many of them are open.
        prepare_gate: while set to an event, changes are to be told first and wait for it.
        log: names of the calls, in order; "write" with offset and length.
    """

    def __init__(
        self,
        name: str = "mem",
        size_bytes: int = 16 << 20,
        *,
        read_only: bool = False,
        block_size_min: int = 1,
        block_size_preferred: int = 4096,
        description: str = "a volume in memory",
    ) -> None:
        self.name = name
        self.description = description
        self.size_bytes = size_bytes
        self.read_only = read_only
        self.block_size_min = block_size_min
        self.block_size_preferred = block_size_preferred
        self.content = bytearray(size_bytes)
        self.mapped = bytearray(-(-size_bytes // block_size_preferred))
        self.failures: dict[str, Exception] = {}
        self.hold_ns = 0
        self.room_ns = 0
        self.flush_gate: asyncio.Event | None = None
        self.prepare_gate: asyncio.Event | None = None
        self.log: list[tuple[str, int, int]] = []
        self.open_count = 0
        self.contexts: dict[str, list[tuple[int, int]]] = {}
        self.open_map_count = 0

    def _enter(self, method: str, offset: int = 0, length: int = 0) -> None:
        self.log.append((method, offset, length))
        if method in self.failures:
            raise self.failures[method]

    def _tracks(self, offset: int, length: int) -> slice:
        track = self.block_size_preferred
        return slice(offset // track, -(-(offset + length) // track))

    def read(self, offset: int, length: int) -> bytes:
        self._enter("read", offset, length)
        return bytes(memoryview(self.content)[offset : offset + length])

    def write(self, offset: int, data: memoryview) -> None:
        self._enter("write", offset, len(data))
        self.content[offset : offset + len(data)] = data
        tracks = self._tracks(offset, len(data))
        self.mapped[tracks] = b"\1" * (tracks.stop - tracks.start)

    def zero(self, offset: int, length: int, *, allocate: bool) -> None:
        self._enter("zero", offset, length)
        self.content[offset : offset + length] = bytes(length)
        tracks = self._tracks(offset, length)
        if allocate:
            self.mapped[tracks] = b"\1" * (tracks.stop - tracks.start)
        else:
            track = self.block_size_preferred
            whole = range(-(-offset // track), (offset + length) // track)
            if whole:
                self.mapped[whole.start : whole.stop] = bytes(len(whole))

    def block_status(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        self._enter("block_status", offset, length)
        track, end = self.block_size_preferred, offset + length
        while offset < end:
            mapped = self.mapped[offset // track]
            other = self.mapped.find(not mapped, offset // track)
            run_end = end if other < 0 else min(other * track, end)
            yield offset, run_end - offset, bool(mapped)
            offset = run_end

    def open_map(self, context: str) -> MemoryMap:
        if context not in self.contexts:
            raise NotFoundError(f"no context {context!r}")
        self.open_map_count += 1
        return MemoryMap(self, self.contexts[context])

    @property
    def wants_notice(self) -> bool:
        return self.prepare_gate is not None

    def prepare(self, changes: Sequence[tuple[int, int, bool]]) -> Awaitable[None] | None:
        for offset, length, _ in changes:
            self._enter("prepare", offset, length)
        assert self.prepare_gate is not None
        return None if self.prepare_gate.is_set() else self._pass_gate(self.prepare_gate)

    @staticmethod
    async def _pass_gate(gate: asyncio.Event) -> None:
        await gate.wait()

    def end_batch(self) -> int:
        self._enter("end_batch")
        return self.hold_ns

    def room_wait_ns(self) -> int:
        return self.room_ns

    async def flush(self) -> None:
        self._enter("flush")
        if self.flush_gate is not None:
            await self.flush_gate.wait()
        self._enter("flushed")

    def calls(self, method: str) -> list[tuple[int, int]]:
        """Return (offset, length) of the calls to `method`."""
        return [(offset, length) for name, offset, length in self.log if name == method]


class MemoryMap:
    """One metadata context of a MemoryExport."""

    def __init__(self, export: MemoryExport, extents: list[tuple[int, int]]) -> None:
        self._export = export
        self._extents = extents

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        position = 0
        for run_length, flags in self._extents:
            start, end = max(position, offset), min(position + run_length, offset + length)
            if start < end:
                yield end - start, flags
            position += run_length

    def close(self) -> None:
        self._export.open_map_count -= 1


class MemoryExports:
    """The exports of a server, by name; counts how often each is open."""

    def __init__(self, *exports: MemoryExport) -> None:
        self._exports = {export.name: export for export in exports}
        self.refusal: Exception | None = None

    def names(self) -> list[str]:
        return list(self._exports)

    def default(self) -> str:
        return next(iter(self._exports)) if len(self._exports) == 1 else ""

    def contexts(self, name: str) -> list[str]:
        return list(self._exports[name].contexts)

    def open(self, name: str) -> MemoryExport:
        if self.refusal is not None:
            raise self.refusal
        if name not in self._exports:
            raise NotFoundError(f"no export {name!r}")
        export = self._exports[name]
        export.open_count += 1
        return export

    def close(self, export: Export) -> None:
        assert isinstance(export, MemoryExport)
        export.open_count -= 1


class RunningServer:
    """A server in an event loop of its own thread; `path` and `port` are where it listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: NbdServer, path: Path, port: int) -> None:
        self.loop = loop
        self.server = server
        self.path = path
        self.port = port

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={self.path}"

    def uri_of(self, export: str) -> str:
        return f"nbd+unix:///{export}?socket={self.path}"

    def call(self, function: Callable[[], Result]) -> Result:
        """Call `function` in the event loop and return what it returns."""
        done: Future[Result] = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(DEADLINE_S)

    def close(self, deadline_s: float) -> None:
        """Close the server, as a controller that stops does."""
        asyncio.run_coroutine_threadsafe(self.server.close(deadline_s), self.loop).result(DEADLINE_S)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition`, asked in the event loop, holds; fail after DEADLINE_S."""
        wait_until(lambda: self.call(condition))


def wait_until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Return once `condition` holds; fail after DEADLINE_S."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} does not hold after {DEADLINE_S} s"
        time.sleep(0.002)


@contextlib.contextmanager
def running_server(
    folder: Path, *exports: MemoryExport, settings: ServerSettings | None = None, on_uvloop: bool = True
) -> Iterator[RunningServer]:
    """Serve `exports` on a unix socket in `folder` and on a TCP port; at the end nothing may be left open."""
    loop = uvloop.new_event_loop() if on_uvloop else asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="nbd server", daemon=True)
    thread.start()
    path = folder / "nbd.sock"

    async def start() -> RunningServer:
        server = NbdServer(MemoryExports(*exports), settings)
        await server.listen_unix(path)
        return RunningServer(loop, server, path, await server.listen_tcp("127.0.0.1", 0))

    running = asyncio.run_coroutine_threadsafe(start(), loop).result(DEADLINE_S)
    try:
        yield running
        running.close(deadline_s=5.0)
        running.wait_until(lambda: not any(export.open_count or export.open_map_count for export in exports))
        assert running.server.budget.free_bytes == running.server.budget.limit_bytes
    finally:
        running.close(deadline_s=0.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        loop.close()
