"""The transmission phase, inbound: bytes of the receive buffer to requests.

Nearly every request of a busy client is a plain read or write that is in order. For those the parser does one
unpack and one chain of comparisons and leaves the payload where it is. Whatever does not pass that chain goes
through `validate_request`, the one place that knows why a request is refused and with which error value.

Only WRITE carries a payload. A refused write's payload is skipped as it arrives and never buffered, then the
refusal is answered and the connection lives on. A wrong magic number leaves no way to find the next request:
that connection ends.

A header is read as one 64-bit `head` (magic, flags, type), the cookie as bytes (it is only ever echoed),
offset and length. Comparing `head` with a constant settles magic, flags and type in one step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from isochrone.nbd import constants as c
from isochrone.nbd.constants import Command, Errno
from isochrone.nbd.terms import Terms

_HEADER: Final = Struct(">Q8sQI")
_HEADER_BYTES: Final = c.REQUEST_HEADER_BYTES
assert _HEADER.size == _HEADER_BYTES


def head_of(command: int, flags: int = 0) -> int:
    """Return the first eight bytes of a request as a number: magic, command flags, type."""
    return c.REQUEST_MAGIC << 32 | flags << 16 | command


HEAD_READ: Final = head_of(Command.READ)
HEAD_WRITE: Final = head_of(Command.WRITE)
_EXTENTS_BYTES_MAX: Final = 8 * c.EXTENTS_PER_REPLY_MAX
_NO_PAYLOAD: Final = memoryview(b"")

_FLAGS_ALLOWED: Final = {
    # FUA is to be accepted on every command ("Command flags").
    Command.READ: c.CMD_FLAG_FUA | c.CMD_FLAG_DF,
    Command.WRITE: c.CMD_FLAG_FUA,
    Command.FLUSH: c.CMD_FLAG_FUA,
    Command.TRIM: c.CMD_FLAG_FUA,
    Command.CACHE: c.CMD_FLAG_FUA,
    Command.WRITE_ZEROES: c.CMD_FLAG_FUA | c.CMD_FLAG_NO_HOLE | c.CMD_FLAG_FAST_ZERO,
    Command.BLOCK_STATUS: c.CMD_FLAG_FUA | c.CMD_FLAG_REQ_ONE,
}
CHANGING: Final = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})
_ENOSPC_BEYOND_END: Final = frozenset({Command.WRITE, Command.WRITE_ZEROES})


Request = tuple[int, bytes, int, int, memoryview]
"""A valid request: head, cookie, offset, length, payload.

`head` is a value of `head_of`; the payload lies in the receive buffer and is empty but for writes. A plain tuple,
because the parser makes a hundred thousand a second, and they cost a quarter of a NamedTuple.
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: the specification's error value, and the reason for people."""

    errno: Errno
    reason: str


@dataclass(slots=True)
class Batch:
    """What one look into the receive buffer gave.

    `position`: first byte not consumed. `request_bytes`: size of the request that starts there if its header
    is known and its payload is not complete, else 0. `more`: the batch stopped at one of its limits, look
    again. `reply_bytes`: what its reads ask for together: more than REPLY_BYTES_PER_BATCH only for one read
    that is alone. `ended`: the client sent DISC; `broken`: why the stream cannot be read on.
    """

    requests: list[Request] = field(default_factory=list)
    refusals: list[tuple[int, bytes, Refusal]] = field(default_factory=list)
    position: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    more: bool = False
    ended: bool = False
    broken: str = ""

    def has_room_for_reply(self, reply_bytes: int) -> bool:
        """Count `reply_bytes` if the batch may still ask for them, else end it."""
        if self.requests and self.reply_bytes + reply_bytes > c.REPLY_BYTES_PER_BATCH:
            self.more = True
            return False
        self.reply_bytes += reply_bytes
        return True

    @property
    def is_large_read(self) -> bool:
        """Whether it is one read for more than REPLY_BYTES_PER_BATCH, and nothing else."""
        return self.reply_bytes > c.REPLY_BYTES_PER_BATCH


def validate_request(terms: Terms, head: int, offset: int, length: int) -> Refusal | None:
    """Return why a request with the right magic is refused, None if it is in order.

    Error values are those of "Error values", "Request types" and "Size constraints"; where several reasons
    apply, the order here is: command, flags, permission, length, range, alignment, size.
    """
    number, flags = head & 0xFFFF, head >> 16 & 0xFFFF
    try:
        command = Command(number)
    except ValueError:
        return Refusal(Errno.EINVAL, f"command {number} is not known here")
    if flags & ~_FLAGS_ALLOWED.get(command, 0):
        return Refusal(Errno.EINVAL, f"command flags {flags:#x} do not go with {command.name}")
    if flags & c.CMD_FLAG_DF and not terms.flags & c.FLAG_SEND_DF:
        return Refusal(Errno.EINVAL, "DF needs structured replies, which were not negotiated")
    if command is Command.FLUSH:
        return Refusal(Errno.EINVAL, "FLUSH takes offset 0 and length 0") if offset or length else None
    if command is Command.BLOCK_STATUS and not terms.context_count:
        return Refusal(Errno.EINVAL, "BLOCK_STATUS needs a metadata context, and none was selected")
    if terms.read_only and command in CHANGING:
        return Refusal(Errno.EPERM, f"the export is read-only: {command.name} is not permitted")
    if length == 0:
        return Refusal(Errno.EINVAL, f"{command.name} of length 0")
    if offset + length > terms.size_bytes:
        errno = Errno.ENOSPC if command in _ENOSPC_BEYOND_END else Errno.EINVAL
        return Refusal(errno, f"{command.name} of {length} bytes at {offset} ends beyond {terms.size_bytes}")
    if (offset | length) & (terms.block_size_min - 1):
        return Refusal(
            Errno.EINVAL, f"offset {offset} and length {length} must be multiples of {terms.block_size_min}"
        )
    if length > c.REQUEST_LENGTH_MAX and command in (Command.READ, Command.WRITE):
        may_overflow = command is Command.READ and terms.structured_replies
        return Refusal(
            Errno.EOVERFLOW if may_overflow else Errno.EINVAL,
            f"{command.name} of {length} bytes: at most {c.REQUEST_LENGTH_MAX} in one request",
        )
    if flags & c.CMD_FLAG_FAST_ZERO and not _zeroes_fast(terms, flags, offset, length):
        return Refusal(Errno.ENOTSUP, "zeroing this range would take as long as writing it")
    return None


def _zeroes_fast(terms: Terms, flags: int, offset: int, length: int) -> bool:
    """Return whether zeroing is faster than writing: at least one whole track is given up, not written."""
    track = terms.block_size_preferred
    first_whole = -(-offset // track)
    return not flags & c.CMD_FLAG_NO_HOLE and (offset + length) // track > first_whole


class RequestParser:
    """Turns the receive buffer of one connection into batches.

    Keeps nothing in between but how much of a refused payload is still to come.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._size_bytes = terms.size_bytes
        self._writable_bytes = 0 if terms.read_only else terms.size_bytes
        self._unaligned = terms.block_size_min - 1
        self._skip_bytes = 0
        self._skipped: tuple[int, bytes, Refusal] | None = None

    def parse(self, view: memoryview, start: int, end: int) -> Batch:
        """Return the complete requests in `view[start:end]`, in order, up to the limits of a batch.

        The payloads are slices of `view`: the caller leaves that memory alone until it has acted on the
        batch.
        """
        batch = Batch()
        position = self._skip(batch, start, end)
        take = batch.requests.append
        unpack = _HEADER.unpack_from
        size_bytes, writable_bytes, unaligned = self._size_bytes, self._writable_bytes, self._unaligned
        length_max = c.REQUEST_LENGTH_MAX
        last_start = end - _HEADER_BYTES
        limit = c.REQUESTS_PER_BATCH_MAX

        while position <= last_start:
            if not limit:
                batch.more = True
                break
            limit -= 1
            head, cookie, offset, length = unpack(view, position)
            if head == HEAD_WRITE and (
                0 < length <= length_max
                and offset + length <= writable_bytes
                and not (offset | length) & unaligned
            ):
                payload_start = position + _HEADER_BYTES
                payload_end = payload_start + length
                if payload_end > end:
                    batch.request_bytes = payload_end - position
                    break
                take((head, cookie, offset, length, view[payload_start:payload_end]))
                position = payload_end
            elif head == HEAD_READ and (
                0 < length <= length_max
                and offset + length <= size_bytes
                and not (offset | length) & unaligned
            ):
                if not batch.has_room_for_reply(length):
                    break
                take((head, cookie, offset, length, _NO_PAYLOAD))
                position += _HEADER_BYTES
                if length > c.REPLY_BYTES_PER_BATCH:
                    batch.more = True
                    break
            else:
                next_position = self._parse_unusual(batch, view, position, end)
                if next_position is None:
                    break
                position = next_position
                if batch.is_large_read:
                    batch.more = True
                    break

        batch.position = position
        return batch

    def _parse_unusual(self, batch: Batch, view: memoryview, position: int, end: int) -> int | None:
        """Take the request at `position`, left by the fast path; return where the next starts, None to stop."""
        head, cookie, offset, length = _HEADER.unpack_from(view, position)
        payload_start = position + _HEADER_BYTES
        command = head & 0xFFFF
        if head >> 32 != c.REQUEST_MAGIC:
            batch.broken = f"a request starts with {head >> 32:#010x} instead of the request magic"
            return None
        if command == Command.DISC:
            batch.ended = True
            return None
        payload_bytes = length if command == Command.WRITE else 0
        refusal = validate_request(self._terms, head, offset, length)
        if refusal is not None:
            missing_bytes = payload_start + payload_bytes - end
            if missing_bytes > 0:
                self._skip_bytes, self._skipped = missing_bytes, (head, cookie, refusal)
                return end
            batch.refusals.append((head, cookie, refusal))
            return payload_start + payload_bytes
        if payload_start + payload_bytes > end:
            batch.request_bytes = _HEADER_BYTES + payload_bytes
            return None
        if command == Command.READ and not batch.has_room_for_reply(length):
            return None
        if command == Command.BLOCK_STATUS and not batch.has_room_for_reply(
            _EXTENTS_BYTES_MAX * self._terms.context_count
        ):
            return None
        batch.requests.append(
            (head, cookie, offset, length, view[payload_start : payload_start + payload_bytes])
        )
        return payload_start + payload_bytes

    def _skip(self, batch: Batch, start: int, end: int) -> int:
        """Pass over the rest of a refused write's payload; at its end the refusal joins the batch."""
        if self._skipped is None:
            return start
        skipped_bytes = min(self._skip_bytes, end - start)
        self._skip_bytes -= skipped_bytes
        if self._skip_bytes == 0:
            batch.refusals.append(self._skipped)
            self._skipped = None
        return start + skipped_bytes
