"""The transmission phase, outbound: outcomes to bytes.

A success without data is a simple reply, also where structured replies were negotiated (the specification
allows it and it is the shortest). Data and block status go in one chunk that ends the reply. Errors are
chunks with their reason where structured replies were negotiated, else simple replies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Final

from isochrone.nbd import constants as c
from isochrone.nbd.constants import Chunk, Errno

_SIMPLE: Final = Struct(">II8s")
_CHUNK: Final = Struct(">IHH8sI")
_DATA: Final = Struct(">IHH8sIQ")
_HOLE: Final = Struct(">IHH8sIQI")
_ERROR: Final = Struct(">IHH8sIIH")
_CONTEXT: Final = Struct(">I")
_EXTENT: Final = Struct(">II")

_SUCCESS: Final = Struct(">II").pack(c.SIMPLE_REPLY_MAGIC, 0)
_MESSAGE_BYTES_MAX: Final = 256
assert _MESSAGE_BYTES_MAX <= c.STRING_BYTES_MAX


def successes(cookies: Sequence[bytes]) -> bytes:
    """Return simple replies that acknowledge every request of `cookies` (at least one)."""
    return _SUCCESS + _SUCCESS.join(cookies)


def simple_data_header(cookie: bytes, _offset: int, _length: int) -> bytes:
    """Return what stands before the data of a read without structured replies: the client knows the rest."""
    return _SUCCESS + cookie


def data_chunk_header(cookie: bytes, offset: int, length: int) -> bytes:
    """Return what stands before `length` bytes of data in the one chunk that answers a read."""
    return _DATA.pack(
        c.STRUCTURED_REPLY_MAGIC, c.REPLY_FLAG_DONE, Chunk.OFFSET_DATA, cookie, 8 + length, offset
    )


def hole_chunk(cookie: bytes, offset: int, length: int) -> bytes:
    """Return the answer to a read of a range that holds nothing but zeros."""
    return _HOLE.pack(
        c.STRUCTURED_REPLY_MAGIC, c.REPLY_FLAG_DONE, Chunk.OFFSET_HOLE, cookie, 12, offset, length
    )


def error_reply(cookie: bytes, errno: Errno, reason: str, *, structured: bool) -> bytes:
    """Return the answer to a failed request; `reason` is cut to a length that fits a log line."""
    if not structured:
        return _SIMPLE.pack(c.SIMPLE_REPLY_MAGIC, errno, cookie)
    message = reason.encode()[:_MESSAGE_BYTES_MAX].decode(errors="ignore").encode()
    return (
        _ERROR.pack(
            c.STRUCTURED_REPLY_MAGIC,
            c.REPLY_FLAG_DONE,
            Chunk.ERROR,
            cookie,
            6 + len(message),
            errno,
            len(message),
        )
        + message
    )


def block_status_chunks(
    cookie: bytes, contexts: Sequence[tuple[int, Iterable[tuple[int, int]]]], *, one_extent: bool
) -> bytes:
    """Return the answer to a block status request, a chunk for each of `contexts`: its number, and (length, flags).

    At most EXTENTS_PER_REPLY_MAX extents of each; a client asks on from where they end.
    """
    limit = 1 if one_extent else c.EXTENTS_PER_REPLY_MAX
    chunks = []
    for position, (context, extents) in enumerate(contexts):
        descriptors = [
            _EXTENT.pack(length, flags) for length, flags in itertools.islice(_joined(extents), limit)
        ]
        payload = _CONTEXT.pack(context) + b"".join(descriptors)
        done = c.REPLY_FLAG_DONE if position == len(contexts) - 1 else 0
        chunks.append(
            _CHUNK.pack(c.STRUCTURED_REPLY_MAGIC, done, Chunk.BLOCK_STATUS, cookie, len(payload)) + payload
        )
    return b"".join(chunks)


def _joined(extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield (length, flags) with neighbours of one kind joined.

    They lie within a request, whose length fits 32 bits, so every sum does.
    """
    pending_length = pending_flags = 0
    for length, flags in extents:
        if pending_length and flags != pending_flags:
            yield pending_length, pending_flags
            pending_length = 0
        pending_length += length
        pending_flags = flags
    if pending_length:
        yield pending_length, pending_flags
