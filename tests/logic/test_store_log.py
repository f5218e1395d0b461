"""Where a log ends, what is damage and what is a torn tail; the formats of its records."""

from __future__ import annotations

import numpy as np
import pytest

from isochrone.model.errors import DamagedError
from isochrone.model.records import RecordKind
from isochrone.store.head import HEAD, HEAD_MARK, decode_head
from isochrone.store.log import default_segment_size_bytes
from isochrone.store.log_records import (
    BARRIER,
    MAP_DTYPE,
    RecordType,
    StagePayload,
    map_entries,
    pack_document,
    pack_record,
    pack_stage,
    unpack_document,
    unpack_stage,
)
from isochrone.store.runs import expand, neighbours, pairs_of, runs_of
from isochrone.store.segment import (
    SEGMENT_HEADER_SIZE_BYTES,
    SegmentHeader,
    durable_claim_after,
    encode_segment_header,
    read_segment_header,
    record_seed,
    scan_segment,
)
from isochrone.testing.sim_disk import SimDisk
from support.store import records

UUID = bytes(range(16))
SEED = 12345
HEADER = SegmentHeader(UUID, 7, 100, "boot")


def segment(*kinds: tuple[int, bytes], size: int = 8192, first: int = 100) -> bytearray:
    seed = record_seed(SEED, 7)
    body = b"".join(
        pack_record(first + index, 7, kind, payload, seed) for index, (kind, payload) in enumerate(kinds)
    )
    data = bytearray(size)
    data[SEGMENT_HEADER_SIZE_BYTES : SEGMENT_HEADER_SIZE_BYTES + len(body)] = body
    return data


def test_records_are_found_up_to_the_end() -> None:
    data = segment((1, b"one"), (9, b""), (8, b"three" * 100))
    scan = scan_segment(memoryview(data), HEADER, SEED)
    assert [(record.kind, record.sequence, bytes(record.payload)) for record in scan.records] == [
        (1, 100, b"one"),
        (9, 101, b""),
        (8, 102, b"three" * 100),
    ]
    assert scan.end_sequence == 103


@pytest.mark.parametrize("where", range(SEGMENT_HEADER_SIZE_BYTES, SEGMENT_HEADER_SIZE_BYTES + 40))
def test_every_byte_of_a_record_is_covered_padding_too(where: int) -> None:
    data = segment((1, b"one"), (1, b"two"))
    data[where] ^= 0x10
    scan = scan_segment(memoryview(data), HEADER, SEED)
    assert scan.records == []
    assert scan.end_offset == SEGMENT_HEADER_SIZE_BYTES


def test_records_of_another_generation_or_pool_are_not_taken() -> None:
    data = memoryview(segment((1, b"one")))
    assert not scan_segment(data, SegmentHeader(UUID, 8, 100, "boot"), SEED).records
    assert not scan_segment(data, HEADER, SEED + 1).records
    assert not scan_segment(data, SegmentHeader(UUID, 7, 99, "boot"), SEED).records


def test_a_record_cut_off_by_the_segments_end_is_not_taken() -> None:
    data = segment((1, b"x" * 100), (1, b"y" * 100))
    cut = memoryview(data)[: SEGMENT_HEADER_SIZE_BYTES + 136 + 50]
    assert len(scan_segment(cut, HEADER, SEED).records) == 1


def test_a_surviving_barrier_behind_a_break_tells_how_far_the_log_had_been_durable() -> None:
    barrier = (RecordType.BARRIER, BARRIER.pack(103, 102))
    data = segment((1, b"one"), (1, b"two"), (1, b"three"), barrier)
    assert durable_claim_after(memoryview(data), scan_segment(memoryview(data), HEADER, SEED), SEED)[0] == 0
    data[SEGMENT_HEADER_SIZE_BYTES + 33] ^= 1
    scan = scan_segment(memoryview(data), HEADER, SEED)
    assert durable_claim_after(memoryview(data), scan, SEED)[0] == 102


@pytest.mark.parametrize("where", [0, 9, 30, 60, 200, SEGMENT_HEADER_SIZE_BYTES - 1])
def test_a_segment_header_that_was_changed_is_refused(where: int) -> None:
    file = SimDisk(seed=1).open("log.a", create=True)
    data = bytearray(encode_segment_header(HEADER))
    file.pwrite(data, 0)
    assert read_segment_header(file, "log.a", UUID) == HEADER
    data[where] ^= 1
    file.pwrite(data, 0)
    with pytest.raises(DamagedError, match=r"log\.a, byte"):
        read_segment_header(file, "log.a", UUID)


def test_a_segment_of_another_pool_is_refused() -> None:
    file = SimDisk(seed=1).open("log.a", create=True)
    file.pwrite(encode_segment_header(HEADER), 0)
    with pytest.raises(DamagedError, match="belongs to pool"):
        read_segment_header(file, "log.a", bytes(16))


def test_the_head_notices_a_changed_word() -> None:
    data = bytearray(HEAD.pack(77, 77 ^ HEAD_MARK))
    assert decode_head(data) == 77
    data[3] ^= 1
    assert decode_head(data) is None


def test_map_entries_say_runs_and_split_long_ones() -> None:
    tracks = np.array([5, 6, 7, 9, *range(100, 2200)])
    physicals = np.array([50, 51, 60, 61, *range(1000, 3100)], np.uint32)
    entries = np.frombuffer(map_entries(3, tracks, physicals), MAP_DTYPE)
    assert entries["count"].max() == 1024
    assert len(entries) == 6
    assert np.array_equal(expand(entries["track"], entries["count"]), tracks)
    assert np.array_equal(expand(entries["physical"], entries["count"]), physicals)


def test_a_stage_record_gives_back_what_it_was_given() -> None:
    rows = records((5, 1, 2, 3, RecordKind.DATA), (6, 1, 9, 4, RecordKind.ZERO))
    stage = StagePayload(2**63, 7, 9, rows, np.array([10, 11, 20], np.uint32))
    back = unpack_stage(memoryview(pack_stage(stage)))
    assert (back.session, back.source, back.through_ns) == (2**63, 7, 9)
    assert np.array_equal(back.records, rows)
    assert np.array_equal(back.physicals, stage.physicals)


def test_a_document_record_gives_back_key_and_value() -> None:
    assert unpack_document(memoryview(pack_document("café", b"\0v"))) == ("café", b"\0v")


def test_runs_cover_zeros_and_neighbours() -> None:
    physicals = np.array([0, 0, 5, 6, 7, 9, 0, 1], np.uint32)
    assert runs_of(physicals) == [(0, 2, 0), (2, 3, 5), (5, 1, 9), (6, 1, 0), (7, 1, 1)]
    assert pairs_of(physicals[2:6]).tolist() == [[5, 3], [9, 1]]
    assert neighbours(physicals[2:6]) == [(0, 3), (3, 4)]
    assert neighbours(physicals[:0]) == []


@pytest.mark.parametrize(
    ("pool_bytes", "segment_bytes"), [(4096, 1 << 20), (1 << 30, 16 << 20), (1 << 40, 64 << 20)]
)
def test_the_log_scales_with_the_pool(pool_bytes: int, segment_bytes: int) -> None:
    assert default_segment_size_bytes(pool_bytes) == segment_bytes
