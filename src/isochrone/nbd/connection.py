"""One client's connection after the handshake: the asyncio shell around parser and replies.

How a wake-up goes: the transport fills the receive buffer; every complete request in it is parsed and acted
on; `end_batch` is called once; all replies leave with one write. Payload goes from the buffer to the export
as it is.

Where the export wants notice of changes (marks that survive power loss), a batch may have to wait before it is acted on.
Its payload stays in the receive buffer, and nothing more is received on this connection until then.

Replies that leave later: FLUSH and FUA wait for the export's flush, replies to writes may be held
(`end_batch`), zeroing of a long range is done in slices. Other requests go on meanwhile and are answered
first.

What a client can cost is bounded. Reading from it stops while its replies are not being read, while too many
of its replies are outstanding, and while it waits for memory for a large request; a small receive buffer, a
short reply queue and DEFERRED_REPLIES_MAX cookies are all it holds then. Reading stops on this connection
only.

Closing: DISC, end of stream, a broken stream and a server that goes down all end the same way. No further
request is taken, what is in flight is answered, then the connection is closed; FINISH_SECONDS_MAX later it is
cut.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from isochrone.nbd import constants as c
from isochrone.nbd import replies
from isochrone.nbd.budget import BufferBudget, Waiter
from isochrone.nbd.execution import ConnectionCounters, Executor, LongZero
from isochrone.nbd.export import Exports
from isochrone.nbd.flushing import Flushed, FlushQueue
from isochrone.nbd.handshake import Agreement
from isochrone.nbd.holding import HeldReplies, hold_for
from isochrone.nbd.polling import BusyPoller
from isochrone.nbd.receive import RECEIVE_BUFFER_BYTES, ReceiveBuffer
from isochrone.nbd.requests import Batch, RequestParser

SEND_BUFFER_BYTES: Final = 1 << 20
"""Asked of the kernel for a unix socket, so that large reads leave in few pieces. TCP tunes itself."""
DEFERRED_REPLIES_MAX: Final = 4096
"""Replies outstanding (held, or waiting for a flush) beyond which a connection is not read."""
FINISH_SECONDS_MAX: Final = 10.0
LARGE_BUFFER_SECONDS: Final = 1.0
"""A grown receive buffer is given back when no large request came for this long."""

_log = structlog.get_logger(__name__)


class ConnectionOwner(Protocol):
    """What a connection needs of its server."""

    @property
    def exports(self) -> Exports:
        """Where the export goes back to."""
        ...

    @property
    def budget(self) -> BufferBudget:
        """Memory for large requests."""
        ...

    @property
    def poller(self) -> BusyPoller:
        """Keeps the event loop awake between requests."""
        ...

    def memory_is_short(self) -> None:
        """Called before a connection waits for memory: others give up what they only keep."""
        ...

    def ended(self, connection: Connection) -> None:
        """`connection` holds nothing any more."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One client on one export, from the end of the handshake until nothing of it is left."""

    def __init__(
        self, owner: ConnectionOwner, transport: asyncio.Transport, agreement: Agreement, peer: str
    ) -> None:
        self._owner = owner
        self._poller = owner.poller
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._export = agreement.export
        self._agreement = agreement
        self._executor = Executor(
            agreement.export,
            structured_replies=agreement.terms.structured_replies,
            peer=peer,
            contexts=agreement.contexts,
        )
        self._parser = RequestParser(agreement.terms)
        self._receive = ReceiveBuffer()
        self._wake_at = 0  # the parser has nothing to do before the buffer is filled up to here
        self._turn_scheduled = False
        # Replies that leave later.
        self._flush_queue = FlushQueue(agreement.export, self._answer_flushed, self._end_if_settled)
        self._held = HeldReplies(self._loop, self._answer_held)
        self._zero_tasks: set[asyncio.Task[None]] = set()
        self._deferred_count = 0
        self._preparing: asyncio.Task[None] | None = None  # a batch waits until its changes may be made
        # Memory beyond what every connection has.
        self._waiter: Waiter | None = None
        self._large_read: Batch | None = None  # waits for memory for its reply
        self._reply_memory_bytes = 0
        self._large_seen = False
        self._shrink_timer: asyncio.TimerHandle | None = None
        # How it goes on.
        self._reading = True
        self._write_paused = False
        self._finishing = False
        self._finish_timer: asyncio.TimerHandle | None = None
        self._lost = False
        self._ended = asyncio.Event()
        self.peer = peer
        self.holding_since_s: float | None = None
        """Loop time since when it keeps memory of the budget for one unfinished request, else None."""

    @property
    def export_name(self) -> str:
        """The export it is on."""
        return self._export.name

    @property
    def context_names(self) -> tuple[str, ...]:
        """The metadata contexts that were selected."""
        return tuple(context.name for context in self._agreement.contexts)

    @property
    def counters(self) -> ConnectionCounters:
        """What it did so far."""
        return self._executor.counters

    # --- the transport's side -------------------------------------------------------------------------------

    def begin(self, leftover: bytes) -> None:
        """Take over from the handshake, with what it received beyond its end."""
        self._transport.set_write_buffer_limits(high=0)  # what the socket does not take at once pauses us
        connected = self._transport.get_extra_info("socket")
        if connected.family == socket.AF_UNIX:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        else:
            # A host that is gone frees its place.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._transport.set_protocol(self)
        if leftover:
            self._receive.space()[: len(leftover)] = leftover
            self.buffer_updated(len(leftover))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (a hint is not needed)
        """Return where to receive."""
        return self._receive.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Act on what has arrived, if it completes a request."""
        receive = self._receive
        receive.end += nbytes
        if receive.end >= self._wake_at:
            self._take_turn()

    def eof_received(self) -> bool:
        """Answer what is in flight, then close."""
        self.finish()
        return True

    def pause_writing(self) -> None:
        """The client does not read its replies: act on nothing more until it does."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The client has read on."""
        self._write_paused = False
        self._release_reply_memory()
        self._take_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client. A flush or a zeroing that runs is let finish: it is the volume's, too."""
        self._lost = self._finishing = True
        _log.debug(
            "connection lost", peer=self.peer, export=self._export.name, error=str(exc) if exc else None
        )
        for timer in (self._finish_timer, self._shrink_timer):
            if timer is not None:
                timer.cancel()
        self._held.close()
        if self._waiter is not None:
            self._owner.budget.cancel(self._waiter)
            self._waiter = None
        self._large_read = None
        self._release_reply_memory()
        grown_bytes, self._receive = self._receive.grown_bytes, ReceiveBuffer()
        self._owner.budget.give(grown_bytes)
        self.holding_since_s = None
        self._end_if_settled()

    # --- taking turns ---------------------------------------------------------------------------------------

    def _is_blocked(self) -> bool:
        return (
            self._write_paused
            or self._finishing
            or self._waiter is not None
            or self._preparing is not None
            or self._deferred_count >= DEFERRED_REPLIES_MAX
        )

    def _take_turn(self) -> None:
        """Act on one batch of the receive buffer, unless something stands in the way."""
        if not self._is_blocked() and not self._turn_scheduled:
            receive = self._receive
            batch = self._parser.parse(receive.view, receive.start, receive.end)
            if batch.is_large_read:
                receive.consume(batch.position)
                self._begin_large_read(batch)
                self._go_on_after(batch)
            elif (ready := self._executor.prepare(batch)) is None:
                self._act_and_go_on(batch)
            else:
                self._preparing = self._loop.create_task(self._act_when(ready, batch), name="nbd prepare")
        self._update_reading()

    def _act_and_go_on(self, batch: Batch) -> None:
        self._act(batch)
        self._receive.consume(batch.position)
        self._go_on_after(batch)

    async def _act_when(self, ready: Awaitable[None], batch: Batch) -> None:
        """Act on `batch`, whose payload waits in the receive buffer, once its changes may be made."""
        await ready
        self._preparing = None
        if not self._lost:
            self._act_and_go_on(batch)
            self._update_reading()
        self._end_if_settled()

    def _go_on_after(self, batch: Batch) -> None:
        if batch.broken:
            _log.warning(
                "connection closed on bad data", peer=self.peer, export=self.export_name, reason=batch.broken
            )
            self.finish()
        elif batch.ended:
            self.finish()
        elif batch.more:
            self._turn_scheduled = True
            self._loop.call_soon(self._take_scheduled_turn)
        else:
            self._expect(batch.request_bytes)

    def _take_scheduled_turn(self) -> None:
        self._turn_scheduled = False
        self._take_turn()

    def _update_reading(self) -> None:
        """Receive while nothing stands in the way and no turn is due (the buffer may be full until then)."""
        reading = not self._turn_scheduled and not self._is_blocked()
        if reading != self._reading and not self._lost:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # --- memory for large requests --------------------------------------------------------------------------

    def _expect(self, request_bytes: int) -> None:
        """Make room for the rest of the request at the front; `request_bytes` is 0 until its header is there."""
        receive = self._receive
        self.holding_since_s = None
        if request_bytes <= RECEIVE_BUFFER_BYTES:
            receive.expect(request_bytes or c.REQUEST_HEADER_BYTES)
            self._wake_at = receive.start + request_bytes
            return
        growth_bytes = receive.growth_bytes(request_bytes)
        if growth_bytes and not self._owner.budget.take(growth_bytes):
            self.give_up_spare_memory()
            growth_bytes = receive.growth_bytes(request_bytes)
            if not self._take_memory(growth_bytes, lambda: self._receive_large(request_bytes)):
                return
        self._receive_large(request_bytes)

    def _receive_large(self, request_bytes: int) -> None:
        self._waiter = None
        self._receive.expect(request_bytes)
        self._wake_at = request_bytes
        self.holding_since_s = self._loop.time()
        self._large_seen = True
        if self._shrink_timer is None:
            self._shrink_timer = self._loop.call_later(LARGE_BUFFER_SECONDS, self._shrink_if_unused)
        self._update_reading()

    def _shrink_if_unused(self) -> None:
        self._shrink_timer = None
        if self._large_seen or self._receive.awaits_large:
            self._large_seen = False
            self._shrink_timer = self._loop.call_later(LARGE_BUFFER_SECONDS, self._shrink_if_unused)
        else:
            self.give_up_spare_memory()

    def give_up_spare_memory(self) -> None:
        """Give back what the receive buffer has grown by, unless a large request is arriving in it."""
        grown_bytes = self._receive.grown_bytes
        if grown_bytes and not self._receive.awaits_large and self._preparing is None:
            self._receive.shrink()
            self._owner.budget.give(grown_bytes)

    def _take_memory(self, size_bytes: int, granted: Callable[[], None]) -> bool:
        """Take memory from the budget; if that is not possible now, `granted` is called when it is."""
        budget = self._owner.budget
        if budget.take(size_bytes):
            return True
        self._owner.memory_is_short()
        if budget.take(size_bytes):
            return True
        self._waiter = budget.wait(size_bytes, granted)
        return False

    def _begin_large_read(self, batch: Batch) -> None:
        """Act on a large read once there is memory for its reply."""
        self._large_read = batch
        if self._take_memory(batch.reply_bytes, self._large_read_granted):
            self._act_on_large_read()

    def _large_read_granted(self) -> None:
        self._waiter = None
        self._act_on_large_read()
        self._update_reading()
        self._end_if_settled()

    def _act_on_large_read(self) -> None:
        assert self._large_read is not None
        batch, self._large_read = self._large_read, None
        self._reply_memory_bytes = batch.reply_bytes
        self.holding_since_s = self._loop.time()
        self._act(batch)
        if not self._write_paused:
            self._release_reply_memory()

    def _release_reply_memory(self) -> None:
        if self._reply_memory_bytes:
            size_bytes, self._reply_memory_bytes = self._reply_memory_bytes, 0
            self.holding_since_s = None
            self._owner.budget.give(size_bytes)

    # --- acting and answering -------------------------------------------------------------------------------

    def _act(self, batch: Batch) -> None:
        """Act on `batch`, send the replies that may leave, arrange for the others."""
        if not batch.requests and not batch.refusals:
            return
        self._poller.requests_came()
        outcome = self._executor.act(batch)
        parts = outcome.parts
        if outcome.written:
            if outcome.hold_ns > 0:
                self._defer(len(outcome.written))
                self._held.hold(outcome.written, hold_for(outcome.hold_ns, outcome.room_wait_ns))
            else:
                parts.append(replies.successes(outcome.written))
        self._send(parts)
        self._poller.replies_left()
        if outcome.flushes or outcome.durable:
            hold = hold_for(outcome.hold_ns, outcome.room_wait_ns)
            self._flush(Flushed(outcome.flushes, outcome.durable, hold))
        for zero in outcome.long_zeroes:
            self._defer(1)
            task = self._loop.create_task(self._zero(zero), name="nbd zero")
            self._zero_tasks.add(task)
            task.add_done_callback(self._zero_ended)

    def _send(self, parts: list[bytes]) -> None:
        if self._lost or not parts:
            return
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    def release_held(self) -> None:
        """Answer what waits for room: there is some."""
        self._held.room()

    def _answer_held(self, cookies: list[bytes]) -> None:
        self._settle(len(cookies), [replies.successes(cookies)])

    def _flush(self, flushed: Flushed) -> None:
        self._defer(flushed.request_count)
        self._flush_queue.add(flushed)

    def _answer_flushed(self, flushed: Flushed, error: Exception | None) -> None:
        if error is not None:
            parts = self._executor.failures((*flushed.flushes, *flushed.writes), error)
            self._settle(flushed.request_count, parts)
            return
        if flushed.flushes:
            self._settle(len(flushed.flushes), [replies.successes(flushed.flushes)])
        if flushed.writes:
            self._held.hold(flushed.writes, flushed.hold)

    async def _zero(self, zero: LongZero) -> None:
        """Zero a long range slice by slice; others have their turn between two."""
        offset, hold_ns, room_wait_ns = zero.offset, 0, 0
        try:
            while offset < zero.offset + zero.length:
                ready = self._executor.prepare_slice(zero, offset)
                if ready is not None:
                    await ready
                offset, hold_ns, room_wait_ns = self._executor.zero_slice(zero, offset)
                await asyncio.sleep(0)
        except Exception as error:
            self._settle(1, [self._executor.failure(zero.cookie, error)])
            return
        hold = hold_for(hold_ns, room_wait_ns)
        if zero.durable:
            self._flush_queue.add(Flushed([], [zero.cookie], hold))
        else:
            self._held.hold([zero.cookie], hold)

    def _zero_ended(self, task: asyncio.Task[None]) -> None:
        self._zero_tasks.discard(task)
        self._end_if_settled()

    def _defer(self, reply_count: int) -> None:
        self._deferred_count += reply_count

    def _settle(self, reply_count: int, parts: list[bytes]) -> None:
        """Send deferred replies, and go on with what waited for them."""
        self._deferred_count -= reply_count
        self._send(parts)
        if not self._reading:
            self._take_turn()
        self._end_if_settled()

    # --- ending ---------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Take no further request, answer those in flight, then close. Idempotent."""
        if self._finishing:
            return
        self._finishing = True
        self._update_reading()
        self._finish_timer = self._loop.call_later(FINISH_SECONDS_MAX, self.abort)
        self._end_if_settled()

    def abort(self) -> None:
        """Cut the connection; nothing more is answered."""
        self._transport.abort()

    @property
    def has_ended(self) -> bool:
        """Whether the client is gone and nothing of its requests is running."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Return once the client is gone and nothing of its requests is running."""
        await self._ended.wait()

    def _end_if_settled(self) -> None:
        """Having finished: close once nothing is in flight, let go of the export once the client is gone."""
        if not self._finishing:
            return
        if self._lost:
            is_running = self._flush_queue.is_running or self._zero_tasks or self._preparing is not None
            if not is_running and not self._ended.is_set():
                self._ended.set()
                self._agreement.close(self._owner.exports)
                self._owner.ended(self)
        elif not self._deferred_count and self._large_read is None and self._preparing is None:
            self._transport.close()
