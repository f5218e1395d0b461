"""Messages to bytes and back, without I/O.

An `Encoder` turns a message into buffers to send; a `Decoder` hands out the memory that the next bytes are
received into and gives back validated messages. Neither knows of sockets: the connection drives them over
asyncio, the simulator over a queue of bytes.

Where received bytes go. A decoder owns a small staging buffer. Preambles, frame headers and short messages
arrive in it; once a header says that more is to come than staging already holds, one buffer of exactly the
stated size is allocated (bounds were checked before), what staging holds of it is copied, and the rest is
received straight into place. So payload is copied at most once, and only what came in the same read as its
header, and a connection never holds more than staging and one frame. A stream decoder that appends to a
growing buffer would copy everything twice and be bounded by nothing.

What the decoder vouches for. A message it returns is complete, was not damaged, obeys every bound, and, for a
record set, is sound in itself and follows the one before it: the mover relies on this and does not check
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xxhash
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from isochrone.link import messages
from isochrone.link.compare_codec import pack_compare, pack_compared, unpack_compare, unpack_compared
from isochrone.link.compression import decompress, make_compressor
from isochrone.link.frame import (
    FRAME_HEADER_BYTES,
    LIMITS,
    PREAMBLE_BYTES,
    RECORD_BYTES,
    Buffer,
    FrameHeader,
    Limits,
    MessageType,
    PayloadCoding,
    check_preamble,
    unpack_header,
)
from isochrone.link.messages import Compare, Compared, ControlMessage, Message, RecordSet
from isochrone.link.record_check import check_records
from isochrone.model.choices import Compression
from isochrone.model.errors import InternalError, ProtocolError

STAGING_BYTES: Final = 1 << 16
"""Receive buffer for headers and short messages: one per connection."""

CONTROL_TYPES: Final[dict[MessageType, type[ControlMessage]]] = {
    MessageType.HELLO: messages.Hello,
    MessageType.WELCOME: messages.Welcome,
    MessageType.REFUSED: messages.Refused,
    MessageType.CONFIGURE: messages.Configure,
    MessageType.CONFIGURED: messages.Configured,
    MessageType.ACK: messages.Ack,
    MessageType.COPY_PROGRESS: messages.CopyProgress,
    MessageType.STREAM_CUT: messages.StreamCut,
    MessageType.NAMED_INSTANT: messages.NamedInstant,
    MessageType.SUSPEND: messages.Suspend,
    MessageType.SUSPENDED: messages.Suspended,
    MessageType.RESUME: messages.Resume,
    MessageType.RESUMED: messages.Resumed,
    MessageType.QUIESCE: messages.Quiesce,
    MessageType.QUIESCED: messages.Quiesced,
    MessageType.UNQUIESCE: messages.Unquiesce,
    MessageType.FENCE: messages.Fence,
    MessageType.FENCED: messages.Fenced,
    MessageType.FORGET: messages.Forget,
    MessageType.FORGOTTEN: messages.Forgotten,
    MessageType.MARKS: messages.Marks,
    MessageType.MARKED: messages.Marked,
    MessageType.APPOINT: messages.Appoint,
    MessageType.APPOINTED: messages.Appointed,
    MessageType.CAPTURE_REPORT: messages.CaptureReport,
}
"""Every message that travels as JSON, by its number."""

_STRICT: Final = ConfigDict(strict=True, extra="forbid")


def _strict_adapter(message_class: type[ControlMessage]) -> TypeAdapter[Any]:
    return TypeAdapter(with_config(_STRICT)(message_class))


for _part in (
    messages.WantedVolume,
    messages.VolumeInfo,
    messages.VolumeRefusal,
    messages.VolumeCopy,
    messages.VolumeDelay,
    messages.FencedVolume,
    messages.TrackRun,
):
    with_config(_STRICT)(_part)

_ADAPTERS: Final = {number: _strict_adapter(message_class) for number, message_class in CONTROL_TYPES.items()}
_NUMBERS: Final = {message_class: number for number, message_class in CONTROL_TYPES.items()}


class Encoder:
    """Messages of one direction of one link to bytes."""

    def __init__(self, compression: Compression = Compression.OFF, limits: Limits = LIMITS) -> None:
        self._compress = make_compressor(compression)
        self._limits = limits

    def encode(self, message: Message) -> list[Buffer]:
        """Return the frame of `message` as buffers to be sent in this order.

        A record set's own `headers` and, unless it was compressed, `payload` are among them, uncopied: they
        must not change until they are sent. Raises InternalError when the message breaks the rules that the
        peer would hold it to, so that the fault shows on the side that has it.
        """
        if isinstance(message, RecordSet):
            return self._encode_record_set(message)
        if isinstance(message, Compare):
            return self._frame(MessageType.COMPARE, pack_compare(message))
        if isinstance(message, Compared):
            return self._frame(MessageType.COMPARED, pack_compared(message))
        return self._encode_control(message)

    def _encode_record_set(self, message: RecordSet) -> list[Buffer]:
        record_count, rest = divmod(len(message.headers), RECORD_BYTES)
        payload_bytes = len(message.payload)
        limits = self._limits
        if rest or record_count > limits.record_count_max or payload_bytes > limits.payload_bytes_max:
            raise InternalError(
                f"a record set of {len(message.headers)} header bytes and {payload_bytes} payload bytes "
                f"are over {limits.record_count_max} records and {limits.payload_bytes_max} bytes"
            )
        coding, sent = self._compress(message.payload)
        digest = xxhash.xxh3_64(message.headers)
        digest.update(sent)
        header = FrameHeader(
            MessageType.RECORD_SET, coding, len(message.headers) + len(sent), digest.intdigest(),
            record_count, payload_bytes, message.sequence, message.through_ns,
        )  # fmt: skip
        return [header.pack(), *(buffer for buffer in (message.headers, sent) if len(buffer))]

    def _encode_control(self, message: ControlMessage) -> list[Buffer]:
        number = _NUMBERS[type(message)]
        adapter = _ADAPTERS[number]
        try:
            body = adapter.dump_json(message)
            adapter.validate_json(body)
        except ValueError as error:  # pydantic's errors are ValueErrors
            raise InternalError(f"a {number.name} message breaks its own rules: {error}") from error
        return self._frame(number, body)

    def _frame(self, number: MessageType, body: bytes) -> list[Buffer]:
        if len(body) > self._limits.control_bytes_max:
            raise InternalError(
                f"a {number.name} message of {len(body)} bytes cannot be sent: the limit is "
                f"{self._limits.control_bytes_max}"
            )
        header = FrameHeader(number, PayloadCoding.PLAIN, len(body), xxhash.xxh3_64_intdigest(body))
        return [header.pack() + body]


class Decoder:
    """Bytes of one direction of one link to messages.

    Drive it so: receive into `get_buffer()`, tell how much came by `advance()`, take messages by
    `next_message()` until it returns None. After a ProtocolError it stays broken and raises the same error
    again.

    Attributes:
        track_size_bytes: track size of the session. While it is None every record set is refused, so a
            primary never
            takes one and a stranger cannot make this side allocate for one.
    """

    def __init__(self, limits: Limits = LIMITS, track_size_bytes: int | None = None) -> None:
        self.track_size_bytes = track_size_bytes
        self._limits = limits
        # staging[_start:_end] is received and not yet taken; it is empty while a body is received in place.
        self._staging = memoryview(bytearray(STAGING_BYTES))
        self._start = 0
        self._end = 0
        self._greeted = False
        self._header: FrameHeader | None = None
        self._body = memoryview(b"")
        self._body_end = 0
        self._sequence = 0
        self._through_ns = -1
        self._failure: ProtocolError | None = None

    @property
    def greeted(self) -> bool:
        """The peer's preamble has come: it is a link of this version."""
        return self._greeted

    @property
    def mid_message(self) -> bool:
        """Bytes of an incomplete message are held: a stream that ends here was cut."""
        return self._header is not None or self._end > self._start

    def get_buffer(self) -> memoryview:
        """Return memory for the next received bytes, never empty; valid until the next call of `advance`."""
        if self._header is not None and self._body_end < len(self._body):
            return self._body[self._body_end :]
        if self._start:
            held = self._end - self._start
            self._staging[:held] = self._staging[self._start : self._end]
            self._start, self._end = 0, held
        if self._end == STAGING_BYTES:
            raise InternalError("the decoder's staging is full: take its messages before receiving more")
        return self._staging[self._end :]

    def advance(self, count: int) -> None:
        """Note that `count` bytes were received into the buffer that `get_buffer` returned."""
        if self._header is not None and self._body_end < len(self._body):
            self._body_end += count
        else:
            self._end += count

    def next_message(self) -> Message | None:
        """Return the next complete message, or None when more bytes are needed. Raises ProtocolError."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_message()
        except ProtocolError as error:
            self._failure = error
            raise

    def feed(self, data: Buffer) -> Iterator[Message]:
        """Receive `data` by copying it and yield the messages it completes. Iterate to the end.

        Raises ProtocolError after the messages before the fault were yielded.
        """
        rest = memoryview(data)
        while len(rest):
            buffer = self.get_buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            rest = rest[count:]
            self.advance(count)
            while (message := self.next_message()) is not None:
                yield message

    def _next_message(self) -> Message | None:
        if not self._greeted:
            if not check_preamble(self._staging[self._start : self._end]):
                return None
            self._greeted = True
            self._start += PREAMBLE_BYTES
        if self._header is None and not self._begin_frame():
            return None
        if self._header is None or self._body_end < len(self._body):
            return None
        header, body = self._header, self._body
        self._header, self._body, self._body_end = None, memoryview(b""), 0
        if xxhash.xxh3_64_intdigest(body) != header.body_checksum:
            raise ProtocolError(f"a {header.type.name} message was damaged on the link (checksum); reconnect")
        if header.type is MessageType.RECORD_SET:
            return self._decode_record_set(header, body)
        if header.type is MessageType.COMPARE:
            return unpack_compare(body)
        if header.type is MessageType.COMPARED:
            return unpack_compared(body)
        return _decode_control(header, body)

    def _begin_frame(self) -> bool:
        """Take a frame header from staging, allocate its body and move what staging holds of it.

        Returns False when the header is not complete yet.
        """
        if self._end - self._start < FRAME_HEADER_BYTES:
            return False
        header = unpack_header(self._staging[self._start : self._start + FRAME_HEADER_BYTES], self._limits)
        if header.type is MessageType.RECORD_SET and self.track_size_bytes is None:
            raise ProtocolError("a record set came from a peer that is not expected to send any")
        self._start += FRAME_HEADER_BYTES
        count = min(header.body_bytes, self._end - self._start)
        self._body = np.empty(header.body_bytes, np.uint8).data
        self._body[:count] = self._staging[self._start : self._start + count]
        self._start += count
        self._body_end = count
        self._header = header
        return True

    def _decode_record_set(self, header: FrameHeader, body: memoryview) -> RecordSet:
        if header.sequence != self._sequence + 1:
            raise ProtocolError(
                f"record set {header.sequence} follows {self._sequence}: one was lost or repeated; reconnect"
            )
        headers_bytes = header.record_count * RECORD_BYTES
        headers = body[:headers_bytes].toreadonly()
        check_records(header, headers, track_size_bytes=self.track_size_bytes or 0, after_ns=self._through_ns)
        payload = decompress(header.coding, body[headers_bytes:], header.payload_bytes).toreadonly()
        self._sequence, self._through_ns = header.sequence, header.through_ns
        return RecordSet(header.sequence, header.through_ns, headers, payload)


def _decode_control(header: FrameHeader, body: memoryview) -> ControlMessage:
    try:
        message: ControlMessage = _ADAPTERS[header.type].validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ProtocolError(f"a {header.type.name} message is malformed: {where}: {first['msg']}") from error
    return message
