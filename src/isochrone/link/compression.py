"""Payload compression of a link, and decompression that never believes its input.

The frame header states the uncompressed length, which is bounded before it is used. Decompression writes into
exactly that many bytes: an input that would give more, or fewer, is refused, so a small frame cannot become a
large allocation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import lz4.block
import zstandard

from isochrone.link.frame import Buffer, PayloadCoding
from isochrone.model.choices import Compression
from isochrone.model.errors import ProtocolError

ZSTD_LEVEL: Final = 1
"""The link must keep up with the writes: the fastest level that still compresses well."""

COMPRESS_BYTES_MIN: Final = 512
"""Shorter payloads are sent as they are: nothing is gained."""


def make_compressor(compression: Compression) -> Callable[[Buffer], tuple[PayloadCoding, Buffer]]:
    """Return a function that codes a payload for the wire: its coding, and the bytes to send.

    A payload that does not shrink is returned itself, uncopied, as PLAIN. The function is not thread-safe.
    """
    if compression is Compression.OFF:
        return lambda payload: (PayloadCoding.PLAIN, payload)
    if compression is Compression.LZ4:
        coding = PayloadCoding.LZ4_BLOCK
        shrink: Callable[[Buffer], bytes] = partial(lz4.block.compress, store_size=False)
    else:
        coding = PayloadCoding.ZSTD_FRAME
        shrink = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True).compress

    def compress(payload: Buffer) -> tuple[PayloadCoding, Buffer]:
        if len(payload) >= COMPRESS_BYTES_MIN:
            packed = shrink(payload)
            if len(packed) < len(payload):
                return coding, packed
        return PayloadCoding.PLAIN, payload

    return compress


def decompress(coding: PayloadCoding, packed: memoryview, length: int) -> memoryview:
    """Return the `length` bytes that `packed` stands for (itself when PLAIN). The caller has bounded
    `length`.

    Raises ProtocolError when `packed` is malformed or stands for any other number of bytes.
    """
    if coding is PayloadCoding.PLAIN:
        return packed
    try:
        unpack = _decompress_lz4 if coding is PayloadCoding.LZ4_BLOCK else _decompress_zstd
        payload = unpack(packed, length)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError) as error:
        raise ProtocolError(
            f"a {coding.name} payload of {length} bytes cannot be decompressed: {error}"
        ) from error
    if len(payload) != length:
        raise ProtocolError(f"a {coding.name} payload gave {len(payload)} bytes where {length} were stated")
    return memoryview(payload)


def _decompress_lz4(packed: memoryview, length: int) -> bytes:
    payload: bytes = lz4.block.decompress(packed, uncompressed_size=length)
    return payload


def _decompress_zstd(packed: memoryview, length: int) -> bytes:
    # The library allocates what the frame itself claims, so that claim is compared first. The whole output is
    # its own window: no further memory depends on the input.
    if zstandard.frame_content_size(packed) != length:
        raise ValueError("its content size is another one")
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=length, allow_extra_data=False)
