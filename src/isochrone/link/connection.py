"""The link over asyncio: a codec at each end of a byte stream.

A `Connection` is an asyncio protocol and knows nothing of what carries its bytes: TCP and unix sockets today,
any other asyncio transport (TLS) without a change here. Everything is bounded: received bytes by the decoder
(staging and one frame), bytes to be sent by WRITE_BUFFER_BYTES_MAX, the wait for a peer's first bytes and for
its last by time.

Three ways a connection ends: this side closes it, the peer or the network breaks it, or the peer sends what
is not the protocol. `on_lost` is called exactly once for each and tells which.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from isochrone.link.codec import Decoder, Encoder
from isochrone.link.frame import LIMITS, PREAMBLE
from isochrone.link.messages import Message
from isochrone.model.addresses import TcpAddress
from isochrone.model.choices import Compression
from isochrone.model.errors import BusyError, InternalError, IsochroneError, ProtocolError, UnavailableError

WRITE_BUFFER_HIGH_BYTES: Final = 4 << 20
"""Above it `writable` turns false: a sender that respects it stops."""
WRITE_BUFFER_LOW_BYTES: Final = 1 << 20
"""Below it `writable` turns true again and `on_writable` is called."""
WRITE_BUFFER_BYTES_MAX: Final = 64 << 20
"""Most bytes that wait for the kernel. A sender that asks `writable` first never meets it: at most
WRITE_BUFFER_HIGH_BYTES wait when it sends one more record set, beside which control messages still fit."""
_RESERVE_BYTES: Final = 8 * LIMITS.control_bytes_max
assert WRITE_BUFFER_HIGH_BYTES + LIMITS.frame_bytes_max + _RESERVE_BYTES <= WRITE_BUFFER_BYTES_MAX

DIAL_TIMEOUT_S: Final = 5.0
PREAMBLE_TIMEOUT_S: Final = 10.0
"""A peer that has not shown to be a link by then is dropped."""
CLOSE_TIMEOUT_S: Final = 5.0
"""After `close()` a peer has this long to take what was sent before."""

UNIX_SEND_BUFFER_BYTES: Final = 2 << 20
"""What a unix socket may hold; TCP sizes its buffers itself."""
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS_MAX: Final = 30_000
"""TCP gives a connection up when sent data stays unacknowledged this long."""

_DROPPED: Final = memoryview(bytearray(1 << 16))
"""Where all connections that are closing receive what nobody will read."""

OnMessage = Callable[[Message], None]
OnLost = Callable[[IsochroneError | None], None]
OnWritable = Callable[[], None]


class Connection(asyncio.BufferedProtocol):
    """One connection of a link; made by `dial` and `serve`. Not thread-safe: use it in its event loop.

    Nothing is delivered before `start`. Messages are handed over as they are decoded, in order, from the
    event loop; a callback that raises ends the connection with that error as the reason.

    Attributes:
        peer: the other end's address, for people.
        received_bytes: bytes received so far.
        sent_bytes: bytes accepted by `send` so far.
        writable: not more than WRITE_BUFFER_HIGH_BYTES wait to be sent.
    """

    def __init__(
        self,
        peer: str,
        on_open: Callable[[Connection], None] | None = None,
        on_end: Callable[[Connection], None] | None = None,
    ) -> None:
        self.peer = peer
        self.received_bytes = 0
        self.sent_bytes = 0
        self.writable = True
        self._on_open = on_open
        self._on_end = on_end
        self._on_message: OnMessage | None = None
        self._on_lost: OnLost | None = None
        self._on_writable: OnWritable | None = None
        self._loop = asyncio.get_running_loop()
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False  # by this side
        self._lost = False
        self._paused = False
        self._told = False
        self._reason: IsochroneError | None = None

    def start(self, on_message: OnMessage, on_lost: OnLost, on_writable: OnWritable | None = None) -> None:
        """Begin delivery, once.

        Args:
            on_message: is given each message.
            on_lost: is called once at the end, with None after `close` or `abort`, a ProtocolError when the
                peer broke the protocol, an UnavailableError when it went away, or the error of a callback.
            on_writable: is called when `writable` turns true again.
        """
        if self._on_message is not None:
            raise InternalError("a connection was started twice")
        self._on_message, self._on_lost, self._on_writable = on_message, on_lost, on_writable
        self._loop.call_soon(self._continue)

    def accept_record_sets(self, track_size_bytes: int) -> None:
        """Let record sets in, of this track size; until then a peer that sends one breaks the protocol."""
        self._decoder.track_size_bytes = track_size_bytes

    def set_compression(self, compression: Compression) -> None:
        """Compress the payload of record sets sent from now on."""
        self._encoder = Encoder(compression)

    @property
    def pending_bytes(self) -> int:
        """Bytes accepted by `send` and not yet taken by the kernel."""
        return 0 if self._transport is None or self._lost else self._transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Send `message`, without waiting. The buffers of a record set must not change from now on.

        When the connection is closing or lost the message is dropped: `on_lost` tells, and what was sent
        shortly before may not have arrived either. Raises BusyError, having sent nothing, when more than
        WRITE_BUFFER_BYTES_MAX would wait; ask `writable` before sending a record set.
        """
        if self._transport is None or self._closing or self._lost or self._transport.is_closing():
            return
        buffers = self._encoder.encode(message)
        size_bytes = sum(map(len, buffers))
        if self.pending_bytes + size_bytes > WRITE_BUFFER_BYTES_MAX:
            raise BusyError(
                f"{self.pending_bytes} bytes wait to be sent to {self.peer} and {size_bytes} more are over "
                f"the limit of {WRITE_BUFFER_BYTES_MAX}; send when the connection is writable"
            )
        self.sent_bytes += size_bytes
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        else:
            self._transport.writelines(buffers)

    def pause_reading(self) -> None:
        """Stop delivering, and receiving: the peer's sends come to a halt in the network's buffers."""
        self._paused = True
        self._pause_transport()

    def resume_reading(self) -> None:
        """Go on delivering, from the event loop."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._continue)

    def close(self) -> None:
        """Deliver nothing more, send what is pending within CLOSE_TIMEOUT_S, then end.

        Bytes that still come are read and dropped: a kernel that closes a socket with unread bytes resets the
        connection, and what was sent last (a refusal, say) would be lost on the way.
        """
        if self._transport is None or self._closing or self._lost or self._transport.is_closing():
            return
        self._closing = True
        self._set_timer(CLOSE_TIMEOUT_S, self._transport.abort)
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def abort(self) -> None:
        """End at once; what is pending is dropped."""
        if self._transport is not None and not self._lost:
            self._closing = True
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer and wait for its greeting."""
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if isinstance(name := transport.get_extra_info("peername"), tuple):
            self.peer = str(TcpAddress(name[0], name[1]))
            _tune_tcp(connected)
        elif connected is not None:
            # The default holds a fifth of a record set: both ends would take turns waking each other.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BUFFER_BYTES)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH_BYTES, low=WRITE_BUFFER_LOW_BYTES)
        self._transport.write(PREAMBLE)
        self._set_timer(PREAMBLE_TIMEOUT_S, self._miss_preamble)
        if self._on_open is not None:
            self._on_open(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio passes it; the frame decides
        """Return memory for the next received bytes."""
        return _DROPPED if self._closing else self._decoder.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` received bytes."""
        self.received_bytes += nbytes
        if not self._closing:
            self._decoder.advance(nbytes)
            self._deliver()

    def eof_received(self) -> bool:
        """Take note that the peer sends no more: the transport closes."""
        if self._reason is None and not self._closing:
            cut = ", in the middle of a message" if self._decoder.mid_message else ""
            self._reason = UnavailableError(f"{self.peer} closed the connection{cut}")
        return False

    def pause_writing(self) -> None:
        """Take note that more than WRITE_BUFFER_HIGH_BYTES wait."""
        self.writable = False

    def resume_writing(self) -> None:
        """Take note that no more than WRITE_BUFFER_LOW_BYTES wait."""
        self.writable = True
        if self._on_writable is not None and not self._closing:
            try:
                self._on_writable()
            except Exception as error:  # the owner learns it from on_lost
                self._fail(_as_reason(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reason is None and not self._closing:
            if exc is None or isinstance(exc, OSError):
                text = f"the connection to {self.peer} was lost" + (f": {exc}" if exc else "")
                self._reason = UnavailableError(text)
            else:
                self._reason = _as_reason(exc)
        if self._on_end is not None:
            self._on_end(self)
        self._tell_lost()

    # Delivery.

    def _continue(self) -> None:
        """Deliver what was held back before `start` or `resume_reading`, and receive again."""
        if self._lost:
            self._tell_lost()
            return
        self._deliver()
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _deliver(self) -> None:
        if self._on_message is None:
            self._pause_transport()
            return
        while not (self._paused or self._closing or self._lost or self._reason):
            try:
                message = self._decoder.next_message()
                if message is None:
                    break
                self._on_message(message)
            except Exception as error:  # the owner learns it from on_lost
                self._fail(_as_reason(error))
        if self._timer is not None and self._decoder.greeted and not self._closing:
            self._timer.cancel()
            self._timer = None

    def _tell_lost(self) -> None:
        if self._on_lost is not None and not self._told:
            self._told = True
            self._on_lost(self._reason)

    def _miss_preamble(self) -> None:
        self._fail(
            ProtocolError(
                f"{self.peer} did not say within {PREAMBLE_TIMEOUT_S:.0f} s that it is an isochrone link; "
                "check the address on both sides"
            )
        )

    def _pause_transport(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _fail(self, reason: IsochroneError) -> None:
        if self._reason is None and not self._closing and not self._lost:
            self._reason = reason
            if self._transport is not None:
                self._transport.abort()

    def _set_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, callback)


def _as_reason(error: Exception) -> IsochroneError:
    if isinstance(error, IsochroneError):
        return error
    reason = InternalError(f"handling a message failed: {error!r}; please report this")
    reason.__cause__ = error
    return reason


def _tune_tcp(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)
