"""Payload compression: what shrinks, what is left alone, and inputs that lie about their length."""

from __future__ import annotations

import random
import tracemalloc

import lz4.block
import pytest
import zstandard

from isochrone.link.compression import COMPRESS_BYTES_MIN, decompress, make_compressor
from isochrone.link.frame import PayloadCoding
from isochrone.model.choices import Compression
from isochrone.model.errors import ProtocolError

CODINGS = {
    Compression.OFF: PayloadCoding.PLAIN,
    Compression.LZ4: PayloadCoding.LZ4_BLOCK,
    Compression.ZSTD: PayloadCoding.ZSTD_FRAME,
}
LYING = [
    (PayloadCoding.LZ4_BLOCK, lambda data: lz4.block.compress(data, store_size=False)),
    (PayloadCoding.ZSTD_FRAME, zstandard.ZstdCompressor().compress),
]


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_compressible_payload_comes_back(compression: Compression, kind: type) -> None:
    payload = kind(b"track " * 10_000)
    coding, sent = make_compressor(compression)(payload)
    assert coding is CODINGS[compression]
    assert (len(sent) < 2_000) == (compression is not Compression.OFF)
    assert decompress(coding, memoryview(sent), len(payload)) == payload


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("payload", [b"", bytes(COMPRESS_BYTES_MIN - 1), random.Random(1).randbytes(8192)])
def test_a_payload_that_does_not_shrink_is_sent_as_it_is(compression: Compression, payload: bytes) -> None:
    coding, sent = make_compressor(compression)(payload)
    assert coding is PayloadCoding.PLAIN
    assert sent is payload


@pytest.mark.parametrize(("coding", "compress"), LYING)
@pytest.mark.parametrize("stated", [1, 65535, 65537, 1 << 20])
def test_a_stated_length_that_is_not_the_real_one_is_refused(coding, compress, stated: int) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProtocolError, match=coding.name):
        decompress(coding, memoryview(compress(bytes(65536))), stated)


@pytest.mark.parametrize(("coding", "compress"), LYING)
@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b"", lambda _: b"\xff" * 40]
)
def test_a_malformed_payload_is_refused(coding, compress, change) -> None:  # type: ignore[no-untyped-def]
    packed = compress(random.Random(2).randbytes(1000) * 4)
    with pytest.raises(ProtocolError, match=coding.name):
        decompress(coding, memoryview(change(packed)), 4000)


@pytest.mark.parametrize(("coding", "compress"), LYING)
def test_a_small_input_cannot_become_a_large_allocation(coding, compress) -> None:  # type: ignore[no-untyped-def]
    bomb = compress(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decompress(coding, memoryview(bomb), 4096)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_of_unstated_size_is_refused() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4096))
    with pytest.raises(ProtocolError, match="content size"):
        decompress(PayloadCoding.ZSTD_FRAME, memoryview(packed), 4096)
