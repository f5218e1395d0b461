"""The frame: how one message lies in the byte stream of a link, and every bound on it.

::

    connection, each direction:   preamble | frame | frame | ...
    frame:                        header (56 bytes) | body
    body of a control message:    JSON
    body of a record set:         record headers (24 bytes each) | payload, perhaps compressed

The header carries the checksum of the body and then one of itself, so a damaged length is refused before a
single byte is awaited or allocated for it, and no byte of a frame is outside a checksum. docs/formats-link.md
has the byte offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

import xxhash

from isochrone.link.messages import PROTOCOL_VERSION
from isochrone.model.errors import ProtocolError
from isochrone.model.records import RECORD_DTYPE

Buffer = bytes | bytearray | memoryview
"""Bytes to be sent. A memoryview has item size 1 and is contiguous."""

MAGIC: Final = b"\x89ISOCHRONE-LINK\n"
"""First bytes of both directions: not text, broken by any newline conversion, readable in a packet dump."""

_PREAMBLE: Final = Struct("<16sI")
PREAMBLE: Final = _PREAMBLE.pack(MAGIC, PROTOCOL_VERSION)
"""What each side sends first, at once, without waiting for the other: MAGIC and its protocol version."""
PREAMBLE_BYTES: Final = _PREAMBLE.size

FRAME_MAGIC: Final = b"ISOF"
_FIELDS: Final = Struct("<4sHBBIIIIQQQ")
_CHECKSUM: Final = Struct("<Q")
FRAME_HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size
RECORD_BYTES: Final = RECORD_DTYPE.itemsize

_STRANGERS: Final = {
    b"GET ": "an HTTP client",
    b"POST": "an HTTP client",
    b"PUT ": "an HTTP client",
    b"HEAD": "an HTTP client",
    b"OPTI": "an HTTP client",
    b"PRI ": "an HTTP client",
    b"HTTP": "an HTTP server",
    b"NBDM": "an NBD server",
    b"SSH-": "SSH",
    b"\x16\x03": "a TLS peer",
    b"\x00\x00\x00": "an NBD client",
}


class MessageType(IntEnum):
    """Type byte of a frame. Numbers are never used twice; each line says since which protocol version."""

    HELLO = 1
    """Version 1."""
    WELCOME = 2
    """Version 1."""
    REFUSED = 3
    """Version 1."""
    CONFIGURE = 4
    """Version 1."""
    CONFIGURED = 5
    """Version 1."""
    RECORD_SET = 6
    """Version 1."""
    ACK = 7
    """Version 1."""
    COPY_PROGRESS = 8
    """Version 1."""
    SUSPEND = 9
    """Version 1."""
    SUSPENDED = 10
    """Version 1."""
    RESUME = 11
    """Version 1."""
    RESUMED = 12
    """Version 1."""
    QUIESCE = 13
    """Version 1."""
    QUIESCED = 14
    """Version 1."""
    UNQUIESCE = 15
    """Version 1."""
    FENCE = 16
    """Version 1."""
    FENCED = 17
    """Version 1."""
    FORGET = 18
    """Version 1."""
    FORGOTTEN = 19
    """Version 1."""
    MARKS = 30
    """Version 1."""
    MARKED = 31
    """Version 1."""
    APPOINT = 32
    """Version 1."""
    APPOINTED = 33
    """Version 1."""
    CAPTURE_REPORT = 34
    """Version 1."""
    COMPARE = 40
    """Version 1."""
    COMPARED = 41
    """Version 1."""
    STREAM_CUT = 50
    """Version 1."""
    NAMED_INSTANT = 51
    """Version 1."""


class PayloadCoding(IntEnum):
    """Flags byte of a frame: how the payload of a record set lies in the body. 0 for every other message."""

    PLAIN = 0
    """Version 1."""
    LZ4_BLOCK = 1
    """Version 1: one LZ4 block without a stored size."""
    ZSTD_FRAME = 2
    """Version 1: one Zstandard frame that states its content size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most that one frame may hold; a peer that claims more is refused before anything is allocated for it.

    A single NBD write of 32 MiB that starts inside a track makes one record of 32 MiB plus a track (64 KiB at
    most), so the largest write always fits one record set.

    Attributes:
        control_bytes_max: JSON of a control message.
        record_count_max: records of one record set.
        payload_bytes_max: payload of one record set, uncompressed.
    """

    control_bytes_max: int = 1 << 20
    record_count_max: int = 1 << 18
    payload_bytes_max: int = 40 << 20

    @property
    def frame_bytes_max(self) -> int:
        """Most bytes of one frame on the wire.

        A decoder holds no more than this and its staging, and `payload_bytes_max` on top to decompress into.
        """
        record_set = self.record_count_max * RECORD_BYTES + self.payload_bytes_max
        return FRAME_HEADER_BYTES + max(self.control_bytes_max, record_set)


LIMITS: Final = Limits()


class FrameHeader(NamedTuple):
    """Fields of a frame header in the order of the wire, without magic, version and the checksum of the
    header.

    Attributes:
        body_bytes: bytes that follow the header.
        body_checksum: xxh3-64 of the body as it is on the wire.
        record_count, sequence, through_ns: of a record set, else 0.
        payload_bytes: of a record set before compression, else 0.
    """

    type: MessageType
    coding: PayloadCoding
    body_bytes: int
    body_checksum: int
    record_count: int = 0
    payload_bytes: int = 0
    sequence: int = 0
    through_ns: int = 0

    def pack(self) -> bytes:
        """Return the FRAME_HEADER_BYTES bytes of this header."""
        fields = _FIELDS.pack(
            FRAME_MAGIC, PROTOCOL_VERSION, self.type, self.coding, self.body_bytes, self.record_count,
            self.payload_bytes, 0, self.sequence, self.through_ns, self.body_checksum,
        )  # fmt: skip
        return fields + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(fields))


def unpack_header(data: memoryview, limits: Limits) -> FrameHeader:
    """Return the frame header in the FRAME_HEADER_BYTES bytes of `data`, every bound checked.

    Raises ProtocolError.
    """
    magic, version, type_number, coding_number, body_bytes, record_count, payload_bytes, reserved, sequence, \
        through_ns, body_checksum = _FIELDS.unpack_from(data)  # fmt: skip
    if magic != FRAME_MAGIC:
        raise ProtocolError(f"the link is out of step: a frame begins with {magic!r}; reconnect")
    if xxhash.xxh3_64_intdigest(data[: _FIELDS.size]) != _CHECKSUM.unpack_from(data, _FIELDS.size)[0]:
        raise ProtocolError("a frame header was damaged on the link: its checksum does not match; reconnect")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(_version_text(version), peer_version=version, version=PROTOCOL_VERSION)
    try:
        header = FrameHeader(
            MessageType(type_number), PayloadCoding(coding_number), body_bytes, body_checksum, record_count,
            payload_bytes, sequence, through_ns,
        )  # fmt: skip
    except ValueError as error:
        raise ProtocolError(
            f"message type {type_number} with flags {coding_number:#x} is not part of link protocol {version}"
        ) from error
    if reserved != 0:
        raise ProtocolError(f"a reserved field of a {header.type.name} frame is {reserved}, not 0")
    if header.type is MessageType.RECORD_SET:
        _check_record_set_bounds(header, limits)
    else:
        _check_control_bounds(header, limits)
    return header


def _check_record_set_bounds(header: FrameHeader, limits: Limits) -> None:
    if header.record_count > limits.record_count_max:
        raise ProtocolError(
            f"a record set of {header.record_count} records is over the limit of {limits.record_count_max}"
        )
    if header.payload_bytes > limits.payload_bytes_max:
        raise ProtocolError(
            f"a record set of {header.payload_bytes} bytes is over the limit of {limits.payload_bytes_max}"
        )
    sent_bytes = header.body_bytes - header.record_count * RECORD_BYTES
    if header.coding is PayloadCoding.PLAIN:
        fits = sent_bytes == header.payload_bytes
    else:
        fits = 0 < sent_bytes < header.payload_bytes
    if not fits:
        raise ProtocolError(
            f"a record set of {header.record_count} records and {header.payload_bytes} bytes of payload "
            f"({header.coding.name}) cannot have a body of {header.body_bytes} bytes"
        )


def _check_control_bounds(header: FrameHeader, limits: Limits) -> None:
    if header.body_bytes > limits.control_bytes_max:
        raise ProtocolError(
            f"a {header.type.name} message of {header.body_bytes} bytes is over the limit of "
            f"{limits.control_bytes_max}"
        )
    if header[1] or any(header[4:]):
        raise ProtocolError(f"a {header.type.name} frame sets fields that only record sets have")


def check_preamble(data: memoryview) -> bool:
    """Judge the first bytes of a peer: True when they are this side's preamble, False when more bytes are
    needed.

    Raises ProtocolError as soon as one byte cannot belong to a link, or when the versions differ.
    """
    seen = bytes(data[:PREAMBLE_BYTES])
    magic = seen[: len(MAGIC)]
    if magic != MAGIC[: len(magic)]:
        stranger = next((name for start, name in _STRANGERS.items() if seen.startswith(start)), "no link")
        raise ProtocolError(
            f"the peer is {stranger}: it began with {seen[:8]!r}; only isochrone controllers speak on this "
            "port, so check the address on both sides"
        )
    if len(seen) < PREAMBLE_BYTES:
        return False
    version = _PREAMBLE.unpack(seen)[1]
    if version != PROTOCOL_VERSION:
        raise ProtocolError(_version_text(version), peer_version=version, version=PROTOCOL_VERSION)
    return True


def _version_text(peer_version: int) -> str:
    return (
        f"the peer speaks link protocol version {peer_version}, this side version {PROTOCOL_VERSION}: "
        "install the same release of isochrone at both sites"
    )
