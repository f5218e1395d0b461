"""A small synchronous NBD client: many requests in flight on one blocking connection.

For the demo, tests and tools; it speaks to any server of the fixed newstyle kind. `read`, `write` and their
like wait for their answer. `submit_*` only sends, and returns a Pending to be given to `wait`, or to be left
to `drain`:

    with connect("/run/isochrone/nbd.sock", "db1") as client:
        pending = [client.submit_write(offset, block) for offset in offsets]
        client.drain()
        client.flush()

While it sends it also receives, so that a server that stops reading until its replies are read cannot block
it for ever. Not for use by several threads at a time.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Final, Self

from isochrone.model.errors import ProtocolError, UnavailableError
from isochrone.nbd import constants as c
from isochrone.nbd.client_handshake import Offer, negotiate
from isochrone.nbd.constants import Chunk, Command, Errno
from isochrone.nbd.errors import NbdError
from isochrone.nbd.requests import head_of

IN_FLIGHT_MAX: Final = 256
"""Requests sent and not answered; one more waits for an answer first."""
TIMEOUT_S: Final = 60.0
"""Longest silence of a server that owes an answer."""

_REQUEST: Final = Struct(">QQQI")
_SIMPLE: Final = Struct(">IIQ")
_CHUNK: Final = Struct(">IHHQI")
_RECEIVE_BYTES: Final = 256 << 10
_SOCKET_BUFFER_BYTES: Final = 1 << 20


@dataclass(eq=False, slots=True)
class Pending:
    """A request in flight. Once `done`: `data` (reads), `extents` (block status), or `error`."""

    command: Command
    offset: int
    length: int
    done: bool = False
    error: NbdError | None = None
    data: bytearray | None = None
    extents: list[tuple[int, int, int]] | None = None


def connect(
    address: str | Path | tuple[str, int], export: str = "", *, timeout_s: float = TIMEOUT_S
) -> NbdClient:
    """Connect to a unix socket (a path) or TCP (host, port) and choose `export`.

    Raises OSError, UnavailableError if the server refuses the export, ProtocolError if it does not speak NBD.
    """
    if isinstance(address, tuple):
        connected = socket.create_connection(address, timeout=timeout_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout_s)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
    try:
        if not isinstance(address, tuple):
            connected.connect(str(address))
        offer = negotiate(connected, export)
    except BaseException:
        connected.close()
        raise
    return NbdClient(connected, offer, timeout_s)


class NbdClient:
    """A connection in the transmission phase.

    Every method may raise NbdError (the server's error value), UnavailableError (the connection is gone or silent)
    or ProtocolError (the server broke the protocol).
    """

    def __init__(self, connected: socket.socket, offer: Offer, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = connected
        self._socket.settimeout(None)  # waiting is done with select, in both directions at once
        self._timeout_s = timeout_s
        self._pending: dict[int, Pending] = {}
        self._next_cookie = 1
        self._received = bytearray()
        self._failed: list[Pending] = []
        self.offer = offer
        self.size_bytes = offer.size_bytes
        self.flags = offer.flags

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return len(self._pending)

    # --- one request, and wait for it ---

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes."""
        pending = self.wait(self.submit_read(offset, length))
        assert pending.data is not None
        return bytes(pending.data)

    def write(self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False) -> None:
        """Write `data`; with `fua` it is on stable storage when this returns."""
        self.wait(self.submit_write(offset, data, fua=fua))

    def flush(self) -> None:
        """Bring every answered write to stable storage."""
        self.wait(self.submit(Command.FLUSH, 0, 0))

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give the range up."""
        self.wait(self.submit(Command.TRIM, offset, length, flags=c.CMD_FLAG_FUA if fua else 0))

    def zero(
        self, offset: int, length: int, *, no_hole: bool = False, fast: bool = False, fua: bool = False
    ) -> None:
        """Make the range read as zeros; `no_hole` keeps its space, `fast` refuses (ENOTSUP) what is slow."""
        flags = no_hole * c.CMD_FLAG_NO_HOLE | fast * c.CMD_FLAG_FAST_ZERO | fua * c.CMD_FLAG_FUA
        self.wait(self.submit(Command.WRITE_ZEROES, offset, length, flags=flags))

    def cache(self, offset: int, length: int) -> None:
        """Announce that the range will be read."""
        self.wait(self.submit(Command.CACHE, offset, length))

    def block_status(
        self, offset: int, length: int, *, one_extent: bool = False
    ) -> list[tuple[int, int, int]]:
        """Return (offset, length, STATE_ flags) extents from `offset` on; they may end early."""
        flags = c.CMD_FLAG_REQ_ONE if one_extent else 0
        pending = self.wait(self.submit(Command.BLOCK_STATUS, offset, length, flags=flags))
        if pending.extents is None:
            raise ProtocolError("a block status request was answered without a status")
        return pending.extents

    # --- many requests in flight ---

    def submit_read(self, offset: int, length: int) -> Pending:
        """Send a read; its `data` is complete once it is done."""
        return self.submit(Command.READ, offset, length)

    def submit_write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> Pending:
        """Send a write. `data` is free to be used again when this returns."""
        return self.submit(Command.WRITE, offset, len(data), data, flags=c.CMD_FLAG_FUA if fua else 0)

    def submit(
        self,
        command: int,
        offset: int,
        length: int,
        payload: bytes | bytearray | memoryview = b"",
        *,
        flags: int = 0,
    ) -> Pending:
        """Send any request, also one that the server will refuse."""
        while len(self._pending) >= IN_FLIGHT_MAX:
            self._receive_some()
        cookie, self._next_cookie = self._next_cookie, self._next_cookie + 1
        pending = Pending(Command(command), offset, length)
        if command == Command.READ:
            pending.data = bytearray(length)
        self._pending[cookie] = pending
        self._send(_REQUEST.pack(head_of(command, flags), cookie, offset, length), payload)
        return pending

    def wait(self, pending: Pending) -> Pending:
        """Return `pending` once it is answered. Raises NbdError if the answer is an error."""
        self._receive_until(lambda: pending.done)
        if pending.error is not None:
            if pending in self._failed:
                self._failed.remove(pending)
            raise pending.error
        return pending

    def drain(self) -> None:
        """Wait for all requests in flight. Raises the first NbdError of one that nobody waited for."""
        self._receive_until(lambda: not self._pending)
        if self._failed:
            failed, self._failed = self._failed, []
            assert failed[0].error is not None
            raise failed[0].error

    def poll(self) -> int:
        """Take the answers that have arrived, without waiting; return `in_flight`."""
        while self._pending and select.select([self._socket], [], [], 0)[0]:
            self._receive_some()
        return len(self._pending)

    def close(self) -> None:
        """Say good-bye and close; what is in flight is not waited for. Idempotent."""
        if self._socket.fileno() < 0:
            return
        try:
            self._socket.sendall(_REQUEST.pack(head_of(Command.DISC), 0, 0, 0))
        except OSError:
            pass  # the server is gone already, and there is nothing left to tell it
        finally:
            self._socket.close()

    # --- the wire ---

    def _send(self, header: bytes, payload: bytes | bytearray | memoryview) -> None:
        """Send a request, taking answers meanwhile so that neither side waits for the other."""
        buffers = [memoryview(header), memoryview(payload)] if len(payload) else [memoryview(header)]
        deadline_s = time.monotonic() + self._timeout_s
        while buffers:
            try:
                sent_bytes = self._socket.sendmsg(buffers, [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait_for_room(deadline_s)
                continue
            except OSError as error:
                raise UnavailableError(f"the NBD server is gone: {error}") from error
            deadline_s = time.monotonic() + self._timeout_s
            while buffers and sent_bytes >= len(buffers[0]):
                sent_bytes -= len(buffers.pop(0))
            if buffers:
                buffers[0] = buffers[0][sent_bytes:]

    def _wait_for_room(self, deadline_s: float) -> None:
        left_s = max(0.0, deadline_s - time.monotonic())
        readable, writable, _ = select.select([self._socket], [self._socket], [], left_s)
        if readable:
            self._receive_some()
        elif not writable:
            raise UnavailableError(f"the NBD server took no request for {self._timeout_s} s")

    def _receive_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._receive_some()

    def _receive_some(self) -> None:
        """Receive once, and settle every answer that is complete."""
        try:
            data = self._receive_bytes()
        except OSError as error:
            raise UnavailableError(f"the NBD server is gone: {error}") from error
        if not data:
            raise UnavailableError(
                f"the NBD server closed the connection, {len(self._pending)} requests unanswered"
            )
        self._received += data
        position = 0
        while consumed_bytes := self._take_reply(position):
            position += consumed_bytes
        del self._received[:position]

    def _receive_bytes(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not select.select([self._socket], [], [], self._timeout_s)[0]:
                raise UnavailableError(f"the NBD server gave no answer for {self._timeout_s} s") from None
        return self._socket.recv(_RECEIVE_BYTES)

    def _take_reply(self, position: int) -> int:
        """Settle the reply or chunk at `position`; return its size, 0 while it is not complete."""
        available_bytes = len(self._received) - position
        if available_bytes < _SIMPLE.size:
            return 0
        magic, errno, cookie = _SIMPLE.unpack_from(self._received, position)
        if magic == c.SIMPLE_REPLY_MAGIC:
            pending = self._pending_of(cookie)
            has_data = pending.data is not None and not errno
            size_bytes = _SIMPLE.size + (pending.length if has_data else 0)
            if available_bytes < size_bytes:
                return 0
            if has_data:
                start = position + _SIMPLE.size
                pending.data = self._received[start : start + pending.length]
            if errno:
                self._fail(pending, errno, "")
            self._settle(cookie)
            return size_bytes
        if magic != c.STRUCTURED_REPLY_MAGIC:
            raise ProtocolError(
                f"a reply starts with {magic:#010x}: this is no NBD server, or the stream is damaged"
            )
        if available_bytes < _CHUNK.size:
            return 0
        length: int
        _, flags, kind, cookie, length = _CHUNK.unpack_from(self._received, position)
        if length > c.REQUEST_LENGTH_MAX + _CHUNK.size:
            raise ProtocolError(f"a reply chunk of {length} bytes")
        if available_bytes < _CHUNK.size + length:
            return 0
        start = position + _CHUNK.size
        self._take_chunk(self._pending_of(cookie), kind, self._received[start : start + length])
        if flags & c.REPLY_FLAG_DONE:
            self._settle(cookie)
        return _CHUNK.size + length

    def _take_chunk(self, pending: Pending, kind: int, payload: bytearray) -> None:
        if kind == Chunk.NONE:
            return
        if kind == Chunk.OFFSET_DATA and pending.data is not None:
            start = int.from_bytes(payload[:8], "big") - pending.offset
            pending.data[start : start + len(payload) - 8] = memoryview(payload)[8:]
        elif kind == Chunk.OFFSET_HOLE and pending.data is not None:
            return  # the range is zeros already
        elif kind == Chunk.BLOCK_STATUS:
            pending.extents, offset = [], pending.offset
            for at in range(4, len(payload), 8):
                length, flags = (
                    int.from_bytes(payload[at : at + 4], "big"),
                    int.from_bytes(payload[at + 4 : at + 8], "big"),
                )
                pending.extents.append((offset, length, flags))
                offset += length
        elif kind & c.CHUNK_ERROR_BIT:
            message_bytes = int.from_bytes(payload[4:6], "big")
            self._fail(
                pending,
                int.from_bytes(payload[:4], "big"),
                payload[6 : 6 + message_bytes].decode(errors="replace"),
            )
        else:
            raise ProtocolError(f"a reply chunk of type {kind} to {pending.command.name}")

    def _pending_of(self, cookie: int) -> Pending:
        try:
            return self._pending[cookie]
        except KeyError:
            raise ProtocolError(f"a reply to request {cookie}, which is not in flight") from None

    def _fail(self, pending: Pending, errno: int, message: str) -> None:
        known = (
            Errno(errno) if errno in set(Errno) else Errno.EINVAL
        )  # "treat an unexpected error value as EINVAL"
        text = message or f"{pending.command.name} of {pending.length} bytes at {pending.offset} failed"
        pending.error = NbdError(known, f"{known.name}: {text}")
        self._failed.append(pending)

    def _settle(self, cookie: int) -> None:
        self._pending.pop(cookie).done = True
