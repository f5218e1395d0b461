"""Records of the pointer log: types and payloads (docs/formats.md gives every byte)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from isochrone.model.records import RECORD_DTYPE, RecordArray
from isochrone.store.allocator import TrackNumbers
from isochrone.store.runs import LIST_COUNT_MAX, expand, pairs_of

RECORD_MAGIC: Final = int.from_bytes(b"ISLR", "little")
RECORD_ALIGN: Final = 8
HEADER: Final = Struct("<QQIIII")
"""checksum, sequence, magic, generation, type, payload length; the checksum covers the rest, payload and
padding.
"""

MAP_ENTRY: Final = Struct("<IIII")
"""volume, first track, first physical track (0: unmap), track count."""
MAP_DTYPE: Final = np.dtype([("volume", "<u4"), ("track", "<u4"), ("physical", "<u4"), ("count", "<u4")])
MAP_ENTRY_TRACK_COUNT_MAX: Final = 1024
"""Longer unmapped ranges are UNMAP records, so that a batch of MAP entries expands to a bounded array."""


class RecordType(IntEnum):
    """What a log record says happened. Numbers are on disk: they never change meaning."""

    MAP = 1
    UNMAP = 2
    BARRIER = 3
    VOLUME_CREATE = 4
    VOLUME_RESIZE = 5
    VOLUME_DELETE = 6
    VOLUME_COPY = 7
    DOCUMENT_PUT = 8
    DOCUMENT_DELETE = 9
    STAGE = 10
    COMMIT = 11
    DISCARD = 12
    END_SESSION = 13
    COMPACT = 14
    DISCARD_VOLUME = 15
    DISCARD_SOURCE = 16
    TOGETHER = 17
    ESTABLISH = 18
    HISTORY_BEGIN = 19
    HISTORY_END = 20
    HISTORY_DROP = 21
    HISTORY_RELEASE = 22
    HISTORY_GIVE_BACK = 23
    HISTORY_IMAGE = 24
    HISTORY_REWIND = 25


REPLAY_WEIGHT: Final = {
    RecordType.MAP: 1,
    RecordType.BARRIER: 1,
    RecordType.TOGETHER: 1024,
    RecordType.ESTABLISH: 1024,
}
"""Replay cost per record, in about 5 us; other types count REPLAY_WEIGHT_DEFAULT."""
REPLAY_WEIGHT_DEFAULT: Final = 16

UNMAP: Final = Struct("<III")
BARRIER: Final = Struct("<QQ")
"""tracks_through: all tracks that records before it refer to are durable. log_through: so are records before
it.
"""
VOLUME: Final = Struct("<IQ")
VOLUME_COPY: Final = Struct("<III")
"""source, new volume, its VolumeKind."""
TOGETHER_PART: Final = Struct("<II")
"""type and payload length of one record within TOGETHER; its payload follows."""
NUMBER: Final = Struct("<I")
ESTABLISH: Final = Struct("<III")
"""source, target, count of extents, 0 for the whole volume; then source track, target track and count of each."""
KEY_LENGTH: Final = Struct("<H")
STAGE: Final = Struct("<QQQII")
"""session, source, through_ns, record count, physical run count."""
SESSION_TIME: Final = Struct("<QQ")
SESSION_TIMES: Final = Struct("<QQQ")
SESSION_SOURCE_TIME: Final = Struct("<QQQ")
SESSION_VOLUME: Final = Struct("<QI")
SESSION: Final = Struct("<Q")
COUNT: Final = Struct("<Q")
PAIR: Final = Struct("<II")
"""Two volume numbers; several follow one another to the end of the payload."""


Part = tuple[RecordType, bytes]
"""One record of several that are written, and replayed, as one: type and payload."""


class StagePayload(NamedTuple):
    """A decoded STAGE record: records (RECORD_DTYPE) and the physical tracks of its DATA records, in order."""

    session: int
    source: int
    through_ns: int
    records: RecordArray
    physicals: TrackNumbers


def pack_record(sequence: int, generation: int, kind: int, payload: bytes, seed: int) -> bytes:
    """Return the whole record, padded to RECORD_ALIGN."""
    padded = payload + bytes(-len(payload) % RECORD_ALIGN)
    rest = HEADER.pack(0, sequence, RECORD_MAGIC, generation, kind, len(payload))[8:] + padded
    return xxh3_64_intdigest(rest, seed).to_bytes(8, "little") + rest


def record_size_bytes(payload_length: int) -> int:
    """Return the bytes that a record takes in the log."""
    return HEADER.size + payload_length + -payload_length % RECORD_ALIGN


def map_entries(volume: int, tracks: NDArray[np.integer], physicals: TrackNumbers) -> bytes:
    """Return MAP entries for ascending `tracks` that were mapped to `physicals` (not 0), as few as runs
    allow.
    """
    if len(tracks) <= LIST_COUNT_MAX:
        return _entries_of_few(volume, tracks.tolist(), physicals.tolist())
    steps = (np.diff(tracks.astype(np.int64)) != 1) | (np.diff(physicals.astype(np.int64)) != 1)
    starts = np.concatenate([[0], np.flatnonzero(steps) + 1])
    counts = np.diff(starts, append=len(tracks))
    long = counts > MAP_ENTRY_TRACK_COUNT_MAX
    if long.any():
        pieces = -(-counts // MAP_ENTRY_TRACK_COUNT_MAX)
        offsets = expand(np.zeros(len(pieces), np.int64), pieces) * MAP_ENTRY_TRACK_COUNT_MAX
        starts = np.repeat(starts, pieces) + offsets
        counts = np.minimum(np.repeat(counts, pieces) - offsets, MAP_ENTRY_TRACK_COUNT_MAX)
    entries = np.empty(len(starts), MAP_DTYPE)
    entries["volume"] = volume
    entries["track"] = tracks[starts]
    entries["physical"] = physicals[starts]
    entries["count"] = counts
    return entries.tobytes()


def _entries_of_few(volume: int, tracks: list[int], physicals: list[int]) -> bytes:
    """Return the same for a handful of tracks, at a third of the cost."""
    entries: list[bytes] = []
    first, start, count = tracks[0], physicals[0], 0
    for track, physical in zip(tracks, physicals, strict=True):
        if track != first + count or physical != start + count:
            entries.append(MAP_ENTRY.pack(volume, first, start, count))
            first, start, count = track, physical, 0
        count += 1
    entries.append(MAP_ENTRY.pack(volume, first, start, count))
    return b"".join(entries)


def pack_stage(stage: StagePayload) -> bytes:
    """Return the payload of a STAGE record."""
    runs = pairs_of(stage.physicals)
    head = STAGE.pack(stage.session, stage.source, stage.through_ns, len(stage.records), len(runs))
    return head + stage.records.tobytes() + runs.astype("<u4").tobytes()


def unpack_stage(payload: memoryview) -> StagePayload:
    """Return what a STAGE record says."""
    session, source, through_ns, record_count, run_count = STAGE.unpack_from(payload)
    records = np.frombuffer(payload, RECORD_DTYPE, record_count, STAGE.size).copy()
    offset = STAGE.size + record_count * RECORD_DTYPE.itemsize
    runs = np.frombuffer(payload, "<u4", run_count * 2, offset).reshape(-1, 2)
    return StagePayload(
        session, source, through_ns, records, expand(runs[:, 0], runs[:, 1]).astype(np.uint32)
    )


def pack_document(key: str, value: bytes) -> bytes:
    """Return the payload of DOCUMENT_PUT, or of DOCUMENT_DELETE with an empty value."""
    name = key.encode()
    return KEY_LENGTH.pack(len(name)) + name + value


def unpack_document(payload: memoryview) -> tuple[str, bytes]:
    """Return key and value."""
    (length,) = KEY_LENGTH.unpack_from(payload)
    start = KEY_LENGTH.size + length
    return str(payload[KEY_LENGTH.size : start], "utf-8"), bytes(payload[start:])


def pack_together(parts: Sequence[Part]) -> bytes:
    """Return the payload of TOGETHER: `parts` in order, replayed all or none."""
    return b"".join(TOGETHER_PART.pack(kind, len(payload)) + payload for kind, payload in parts)


def unpack_together(payload: memoryview) -> list[tuple[int, memoryview]]:
    """Return type and payload of each part. ValueError when they do not fill the payload exactly."""
    parts: list[tuple[int, memoryview]] = []
    at = 0
    while at < len(payload):
        kind, length = TOGETHER_PART.unpack_from(payload, at)
        at += TOGETHER_PART.size
        if at + length > len(payload):
            raise ValueError(f"part {len(parts)} is cut short")
        parts.append((kind, payload[at : at + length]))
        at += length
    return parts


def pack_pairs(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Return pairs of volume numbers, back to back."""
    return b"".join(PAIR.pack(*pair) for pair in pairs)


def unpack_pairs(payload: memoryview) -> list[tuple[int, int]]:
    """Return what `pack_pairs` was given."""
    return list(PAIR.iter_unpack(payload))


def pack_establish(source: int, target: int, extents: NDArray[np.int64] | None) -> bytes:
    """Return the payload of ESTABLISH: `extents` of shape (n, 3), None for the whole volume."""
    if extents is None:
        return ESTABLISH.pack(source, target, 0)
    return ESTABLISH.pack(source, target, len(extents)) + extents.astype("<u4").tobytes()


def unpack_establish(payload: memoryview) -> tuple[int, int, NDArray[np.int64] | None]:
    """Return what ESTABLISH says. ValueError when the extents are not as many as it says."""
    source, target, count = ESTABLISH.unpack_from(payload)
    extents = np.frombuffer(payload, "<u4", offset=ESTABLISH.size).astype(np.int64)
    if len(extents) != 3 * count:
        raise ValueError(f"{len(extents)} numbers for {count} extents")
    return source, target, extents.reshape(-1, 3) if count else None
