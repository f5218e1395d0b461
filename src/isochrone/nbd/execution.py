"""Requests to deeds: acts on the batches of one connection, and says which replies may leave when.

No event loop in here. What cannot be done at once (a flush, the zeroing of a long range) is handed back in
the Outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from isochrone.nbd import constants as c
from isochrone.nbd import replies
from isochrone.nbd.constants import Command
from isochrone.nbd.contexts import SelectedContext
from isochrone.nbd.errors import errno_of, is_expected
from isochrone.nbd.export import Export
from isochrone.nbd.requests import CHANGING, HEAD_READ, HEAD_WRITE, Batch, Refusal, Request

ZERO_SLICE_BYTES: Final = 32 << 20
"""Longer ranges are zeroed in slices of this size, so that one request does not keep all others waiting."""

FAILURES_LOGGED_MAX: Final = 16
"""Refused or failed requests of one connection that are logged; all are counted."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ConnectionCounters:
    """What a connection did since it began. `zeroes`: TRIM and WRITE_ZEROES; `failures`: refused ones as well."""

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    zeroes: int = 0
    flushes: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class LongZero:
    """A valid TRIM or WRITE_ZEROES of more than ZERO_SLICE_BYTES, still to be done."""

    cookie: bytes
    offset: int
    length: int
    allocate: bool
    durable: bool


@dataclass(slots=True)
class Outcome:
    """What a batch came to.

    `parts`: replies that may leave now. `written`: cookies of changes, to be acknowledged after `hold_ns`, and while
    there is no room not before `room_wait_ns`;
    `durable`: the same with FUA, after a flush as well. `flushes`: cookies of FLUSH. `long_zeroes`: to be
    done in slices.
    """

    parts: list[bytes] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    durable: list[bytes] = field(default_factory=list)
    flushes: list[bytes] = field(default_factory=list)
    long_zeroes: list[LongZero] = field(default_factory=list)
    hold_ns: int = 0
    room_wait_ns: int = 0


class Executor:
    """Acts on one export for one connection."""

    def __init__(
        self,
        export: Export,
        *,
        structured_replies: bool,
        peer: str,
        contexts: Sequence[SelectedContext] = (),
    ) -> None:
        self._export = export
        self._contexts = contexts
        self._structured = structured_replies
        self._data_header = replies.data_chunk_header if structured_replies else replies.simple_data_header
        self._peer = peer
        self.counters = ConnectionCounters()

    def prepare(self, batch: Batch) -> Awaitable[None] | None:
        """Return what to wait for before `act` is called for `batch`, None for nothing."""
        if not self._export.wants_notice:
            return None
        changes = [
            (offset, length, command != Command.WRITE)
            for head, _, offset, length, _ in batch.requests
            if (command := head & 0xFFFF) in CHANGING
            and (command == Command.WRITE or length <= ZERO_SLICE_BYTES)
        ]
        return self._export.prepare(changes) if changes else None

    def prepare_slice(self, zero: LongZero, offset: int) -> Awaitable[None] | None:
        """Return what to wait for before `zero_slice` is called, None for nothing."""
        if not self._export.wants_notice:
            return None
        end = min(offset + ZERO_SLICE_BYTES, zero.offset + zero.length)
        return self._export.prepare([(offset, end - offset, True)])

    def act(self, batch: Batch) -> Outcome:
        """Act on all requests of `batch` in order, end the batch."""
        outcome = Outcome()
        write, read, data_header = self._export.write, self._export.read, self._data_header
        written, parts = outcome.written.append, outcome.parts.append
        read_count = read_bytes = write_count = written_bytes = 0
        for request in batch.requests:
            head, cookie, offset, length, payload = request
            try:
                if head == HEAD_WRITE:
                    write(offset, payload)
                    written(cookie)
                    write_count += 1
                    written_bytes += length
                elif head == HEAD_READ and length < c.HOLE_READ_BYTES_MIN:
                    data = read(offset, length)
                    parts(data_header(cookie, offset, length))
                    parts(data)
                    read_count += 1
                    read_bytes += length
                else:
                    self._act_unusual(request, outcome)
            except Exception as error:
                parts(self.failure(cookie, error))
        for head, cookie, refusal in batch.refusals:
            parts(self._refuse(cookie, head, refusal))
        counters = self.counters
        counters.reads += read_count
        counters.read_bytes += read_bytes
        counters.writes += write_count
        counters.written_bytes += written_bytes
        self._end_batch(outcome)
        return outcome

    def _act_unusual(self, request: Request, outcome: Outcome) -> None:
        head, cookie, offset, length, payload = request
        flags = head >> 16 & 0xFFFF
        changed = outcome.durable if flags & c.CMD_FLAG_FUA else outcome.written
        match head & 0xFFFF:
            case Command.WRITE:
                self._export.write(offset, payload)
                self.counters.writes += 1
                self.counters.written_bytes += length
                changed.append(cookie)
            case Command.READ:
                outcome.parts += self._read(cookie, offset, length)
                self.counters.reads += 1
                self.counters.read_bytes += length
            case Command.TRIM | Command.WRITE_ZEROES:
                allocate = bool(flags & c.CMD_FLAG_NO_HOLE)
                self.counters.zeroes += 1
                if length > ZERO_SLICE_BYTES:
                    durable = bool(flags & c.CMD_FLAG_FUA)
                    outcome.long_zeroes.append(LongZero(cookie, offset, length, allocate, durable))
                else:
                    self._export.zero(offset, length, allocate=allocate)
                    changed.append(cookie)
            case Command.FLUSH:
                self.counters.flushes += 1
                outcome.flushes.append(cookie)
            case Command.CACHE:  # the page cache below does what there is to do
                outcome.parts.append(replies.successes([cookie]))
            case Command.BLOCK_STATUS:
                told = [(context.id, context.states.extents(offset, length)) for context in self._contexts]
                one_extent = bool(flags & c.CMD_FLAG_REQ_ONE)
                outcome.parts.append(replies.block_status_chunks(cookie, told, one_extent=one_extent))
            case command:
                raise AssertionError(f"command {command} passed validation and is not implemented")

    def _read(self, cookie: bytes, offset: int, length: int) -> list[bytes]:
        """Return the reply to a read; a long unmapped range goes as a hole where the client knows holes."""
        if self._structured and length >= c.HOLE_READ_BYTES_MIN:
            _, run_bytes, mapped = next(iter(self._export.block_status(offset, length)))
            if not mapped and run_bytes >= length:
                return [replies.hole_chunk(cookie, offset, length)]
        data = self._export.read(offset, length)
        return [self._data_header(cookie, offset, length), data]

    def _end_batch(self, outcome: Outcome) -> None:
        """End the batch; when that fails, none of its changes is acknowledged."""
        try:
            outcome.hold_ns = self._export.end_batch()
            if outcome.hold_ns:
                outcome.room_wait_ns = self._export.room_wait_ns()
        except Exception as error:
            for cookie in (*outcome.written, *outcome.durable):
                outcome.parts.append(self.failure(cookie, error))
            outcome.written.clear()
            outcome.durable.clear()

    def zero_slice(self, zero: LongZero, offset: int) -> tuple[int, int, int]:
        """Zero the slice of `zero` at `offset` as a batch of its own; return where the next begins, the hold and the wait
        for room, both in ns.

        Raises what the export raises.
        """
        end = min(offset + ZERO_SLICE_BYTES, zero.offset + zero.length)
        self._export.zero(offset, end - offset, allocate=zero.allocate)
        hold_ns = self._export.end_batch()
        return end, hold_ns, self._export.room_wait_ns() if hold_ns else 0

    def failure(self, cookie: bytes, error: Exception) -> bytes:
        """Return the reply for a request on which the export raised `error`."""
        errno = errno_of(error)
        if self._may_log():
            _log.warning(
                "request failed",
                peer=self._peer,
                export=self._export.name,
                errno=errno.name,
                reason=str(error),
                exc_info=None if is_expected(error) else error,
            )
        return replies.error_reply(cookie, errno, str(error), structured=self._structured)

    def failures(self, cookies: Iterable[bytes], error: Exception) -> list[bytes]:
        """Return `failure` for each of `cookies`."""
        return [self.failure(cookie, error) for cookie in cookies]

    def _refuse(self, cookie: bytes, head: int, refusal: Refusal) -> bytes:
        """Return the reply to a request that is not in order: the client's affair, so it is told and no one warned."""
        if self._may_log():
            _log.info(
                "request refused",
                peer=self._peer,
                export=self._export.name,
                command=head & 0xFFFF,
                errno=refusal.errno.name,
                reason=refusal.reason,
            )
        return replies.error_reply(cookie, refusal.errno, refusal.reason, structured=self._structured)

    def _may_log(self) -> bool:
        self.counters.failures += 1
        return self.counters.failures <= FAILURES_LOGGED_MAX
