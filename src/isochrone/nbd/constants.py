"""Numbers of the NBD protocol, and our limits on what a client may ask.

Source: NetworkBlockDevice/nbd `doc/proto.md`; each group names its section. Values are as sent, big endian on
the wire.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# --- "Newstyle negotiation", "Fixed newstyle negotiation" ---------------------------------------------------

INIT_MAGIC: Final = 0x4E42444D41474943
"""`NBDMAGIC`."""
OPTION_MAGIC: Final = 0x49484156454F5054
"""`IHAVEOPT`."""
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9

FLAG_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_NO_ZEROES: Final = 1 << 1
CLIENT_FLAG_FIXED_NEWSTYLE: Final = 1 << 0
CLIENT_FLAG_NO_ZEROES: Final = 1 << 1

EXPORT_NAME_ZEROES: Final = 124
"""Reserved bytes after the answer to EXPORT_NAME, unless both sides agreed to leave them out."""


class Option(IntEnum):
    """Option types we know ("Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """Option reply types ("Option reply types"); errors have bit 31 set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_PLATFORM = (1 << 31) + 4
    ERR_TLS_REQD = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_SHUTDOWN = (1 << 31) + 7
    ERR_BLOCK_SIZE_REQD = (1 << 31) + 8
    ERR_TOO_BIG = (1 << 31) + 9


OPTION_REPLY_ERROR_BIT: Final = 1 << 31


class Info(IntEnum):
    """Information types of INFO and GO ("NBD_REP_INFO")."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


META_CONTEXT_ALLOCATION: Final = "base:allocation"
META_CONTEXT_NAMESPACE: Final = "base:"
META_CONTEXT_CHANGED_NAMESPACE: Final = "isochrone:"
META_CONTEXT_CHANGED_PREFIX: Final = "isochrone:changed:"
"""Ours: followed by the name of a point-in-time copy."""

# --- "Transmission flags" -----------------------------------------------------------------------------------

FLAG_HAS_FLAGS: Final = 1 << 0
FLAG_READ_ONLY: Final = 1 << 1
FLAG_SEND_FLUSH: Final = 1 << 2
FLAG_SEND_FUA: Final = 1 << 3
FLAG_SEND_TRIM: Final = 1 << 5
FLAG_SEND_WRITE_ZEROES: Final = 1 << 6
FLAG_SEND_DF: Final = 1 << 7
FLAG_CAN_MULTI_CONN: Final = 1 << 8
FLAG_SEND_CACHE: Final = 1 << 10
FLAG_SEND_FAST_ZERO: Final = 1 << 11

# --- "Request message", "Request types", "Command flags" ----------------------------------------------------

REQUEST_MAGIC: Final = 0x25609513
REQUEST_HEADER_BYTES: Final = 28


class Command(IntEnum):
    """Request types."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


CMD_FLAG_FUA: Final = 1 << 0
CMD_FLAG_NO_HOLE: Final = 1 << 1
CMD_FLAG_DF: Final = 1 << 2
CMD_FLAG_REQ_ONE: Final = 1 << 3
CMD_FLAG_FAST_ZERO: Final = 1 << 4

# --- "Simple reply message", "Structured reply chunk message", "Structured reply types" ---------------------

SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF
REPLY_FLAG_DONE: Final = 1 << 0


class Chunk(IntEnum):
    """Structured reply types; error chunks have bit 15 set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_ERROR_BIT: Final = 1 << 15

STATE_HOLE: Final = 1 << 0
STATE_ZERO: Final = 1 << 1
STATE_CHANGED: Final = 1 << 0
"""Of `isochrone:changed:NAME`: the extent may differ from copy NAME."""


class Errno(IntEnum):
    """The only error values a reply may carry ("Error values")."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


# --- Limits -------------------------------------------------------------------------------------------------

REQUEST_LENGTH_MAX: Final = 32 << 20
"""Largest payload of one request or reply: what the specification asks every server to accept."""

STRING_BYTES_MAX: Final = 4096
"""Names and messages ("Conventions")."""

OPTION_LENGTH_MAX: Final = 64 << 10
"""Longest option data that is kept to be looked at; longer data is skipped and refused."""

OPTIONS_MAX: Final = 128
"""Options in one negotiation; a client that is still talking after them is disconnected."""

EXTENTS_PER_REPLY_MAX: Final = 8192
"""Extents in one block status reply; the specification lets a client ask on from where the reply ends."""

HOLE_READ_BYTES_MIN: Final = 256 << 10
"""Reads of at least this many bytes are answered with a hole chunk when nothing in them is mapped."""

REQUESTS_PER_BATCH_MAX: Final = 1024
"""Requests taken from one connection before the others have their turn."""

REPLY_BYTES_PER_BATCH: Final = 512 << 10
"""Bytes that the reads of one batch may ask for together; a larger read makes a batch of its own."""
