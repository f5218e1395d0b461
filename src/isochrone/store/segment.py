"""One file of the pointer log, read back: which records it holds and where they end.

A segment is used for one *generation* (the time between two checkpoints) and then for the next but one. Its
header says which; records of other generations do not count, because their checksums are seeded with the
generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError
from isochrone.store.disk import File
from isochrone.store.log_records import (
    BARRIER,
    HEADER,
    RECORD_ALIGN,
    RECORD_MAGIC,
    RecordType,
    record_size_bytes,
)

SEGMENT_NAMES: Final = ("log.a", "log.b")
"""Generation g is in SEGMENT_NAMES[g % 2]."""
SEGMENT_HEADER_SIZE_BYTES: Final = 512
"""One sector: never a mixture of two writes."""
BOOT_ID_LENGTH_MAX: Final = 64

_MAGIC: Final = b"ISOCSEGM"
_HEADER: Final = Struct("<8s16sIIQ64s")
_CHECKSUM: Final = Struct("<Q")
_MAGIC_OFFSET: Final = 16
_GENERATION_BITS: Final = 32
_U64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Begin of a segment.

    Attributes:
        generation: 0 for a segment that was never used.
        first_sequence: sequence of its first record.
        boot_id: boot of the machine in which all its records were written.
    """

    uuid: bytes
    generation: int
    first_sequence: int
    boot_id: str


class LogRecord(NamedTuple):
    """A valid record: where it is and what it carries."""

    kind: int
    sequence: int
    payload: memoryview
    offset: int


@dataclass(frozen=True, slots=True)
class Scan:
    """Valid records of one segment from its begin on.

    Attributes:
        records: with sequences first_sequence, first_sequence + 1, ...
        end_offset: byte after the last of them.
        end_sequence: sequence that comes next.
    """

    header: SegmentHeader
    records: list[LogRecord]
    end_offset: int
    end_sequence: int


def segment_name(generation: int) -> str:
    """Return the name of the file that generation uses."""
    return SEGMENT_NAMES[generation % 2]


def record_seed(pool_seed: int, generation: int) -> int:
    """Return the checksum seed of the records of one generation of one pool."""
    return pool_seed ^ (generation << _GENERATION_BITS) & _U64


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the SEGMENT_HEADER_SIZE_BYTES bytes at the begin of the file."""
    boot_id = header.boot_id.encode()[:BOOT_ID_LENGTH_MAX]
    body = _HEADER.pack(_MAGIC, header.uuid, header.generation, len(boot_id), header.first_sequence, boot_id)
    body = body.ljust(SEGMENT_HEADER_SIZE_BYTES - _CHECKSUM.size, b"\0")
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def read_segment_header(file: File, name: str, uuid: bytes) -> SegmentHeader:
    """Return the header of a segment of the pool `uuid`; DamagedError when it is not one."""
    data = file.pread(SEGMENT_HEADER_SIZE_BYTES, 0)
    body, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
    magic, pool, generation, boot_length, first_sequence, boot_id = _HEADER.unpack_from(data)
    if magic != _MAGIC or _CHECKSUM.pack(xxh3_64_intdigest(body)) != checksum:
        raise log_damaged(name, 0, "the segment's header contradicts its checksum")
    if pool != uuid:
        raise log_damaged(name, 8, f"the segment belongs to pool {pool.hex()}")
    return SegmentHeader(pool, generation, first_sequence, boot_id[:boot_length].decode())


def scan_segment(data: memoryview, header: SegmentHeader, pool_seed: int) -> Scan:
    """Return the unbroken chain of valid records in `data`, the whole segment."""
    seed = record_seed(pool_seed, header.generation)
    offset, sequence = SEGMENT_HEADER_SIZE_BYTES, header.first_sequence
    records: list[LogRecord] = []
    while (record := _record_at(data, offset, header.generation, seed)) and record.sequence == sequence:
        records.append(record)
        offset += record_size_bytes(len(record.payload))
        sequence += 1
    return Scan(header, records, offset, sequence)


def durable_claim_after(data: memoryview, scan: Scan, pool_seed: int) -> tuple[int, int]:
    """Look behind the end of the chain for valid barriers of this generation.

    Returns:
        (sequence, offset): all records before `sequence` had been made durable when the barrier at `offset`
        was written; (0, 0) when there is no such barrier.
    """
    seed = record_seed(pool_seed, scan.header.generation)
    words = np.frombuffer(data[: len(data) // RECORD_ALIGN * RECORD_ALIGN], "<u4")[_MAGIC_OFFSET // 4 :: 2]
    offsets = np.flatnonzero(words == RECORD_MAGIC) * RECORD_ALIGN
    best = (0, 0)
    for offset in offsets[offsets >= scan.end_offset].tolist():
        record = _record_at(data, offset, scan.header.generation, seed)
        if record and record.kind == RecordType.BARRIER and record.sequence >= scan.end_sequence:
            best = max(best, (BARRIER.unpack_from(record.payload)[1], offset))
    return best


def begins_record(data: memoryview, scan: Scan) -> bool:
    """Whether the bytes behind the chain begin like the record that would come next."""
    if scan.end_offset + HEADER.size > len(data):
        return False
    _, sequence, magic, generation, _, _ = HEADER.unpack_from(data, scan.end_offset)
    return bool((sequence, magic, generation) == (scan.end_sequence, RECORD_MAGIC, scan.header.generation))


def _record_at(data: memoryview, offset: int, generation: int, seed: int) -> LogRecord | None:
    """Return the record at `offset` if it is whole and of this generation."""
    if offset + HEADER.size > len(data):
        return None
    checksum, sequence, magic, record_generation, kind, length = HEADER.unpack_from(data, offset)
    if magic != RECORD_MAGIC or record_generation != generation:
        return None
    end = offset + record_size_bytes(length)
    if end > len(data) or xxh3_64_intdigest(data[offset + 8 : end], seed) != checksum:
        return None
    start = offset + HEADER.size
    return LogRecord(kind, sequence, data[start : start + length], offset)


def log_damaged(name: str, offset: int, what: str) -> DamagedError:
    """Return the error for a contradiction in the log."""
    return DamagedError(
        f"{name}, byte {offset}: {what}; the pool's metadata cannot be trusted: recover its volumes from the other site "
        "and keep the folder for inspection",
        file=name,
        offset=offset,
    )
