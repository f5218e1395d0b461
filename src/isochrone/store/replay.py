"""Replaying the log: what its records say, done to the state again.

Consecutive MAP records are applied as one batch, in which the last entry of a track wins as it did when they
were written. Records whose checksums are right but that do not fit the state before them are damage too.
"""

from __future__ import annotations

from struct import error as StructError  # noqa: N812 (struct names its error in lower case)
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history_changes import (
    begin_history,
    drop_history,
    end_volume,
    give_back,
    link_image,
    release_history,
    rewind,
)
from isochrone.store.log_records import (
    COUNT,
    NUMBER,
    SESSION,
    SESSION_SOURCE_TIME,
    SESSION_TIME,
    SESSION_TIMES,
    SESSION_VOLUME,
    UNMAP,
    VOLUME,
    VOLUME_COPY,
    RecordType,
    unpack_document,
    unpack_establish,
    unpack_pairs,
    unpack_stage,
    unpack_together,
)
from isochrone.store.segment import LogRecord, log_damaged
from isochrone.store.state import PoolState, decode_map

_REPLAY_TRACK_COUNT: Final = 1 << 20
"""Tracks that a batch of MAP entries is expanded to: bounds its temporary arrays to about 40 MiB."""


def replay(state: PoolState, records: list[tuple[str, LogRecord]]) -> None:
    """Apply log records in order. Consecutive MAP records, also across barriers, are applied together."""
    maps: list[memoryview] = []
    for name, record in records:
        if record.kind == RecordType.MAP:
            maps.append(record.payload)
        elif record.kind != RecordType.BARRIER:
            _apply_maps(state, maps, name, record.offset)
            maps = []
            _apply(state, name, record)
    if maps:
        _apply_maps(state, maps, *(records[-1][0], records[-1][1].offset))


def _apply_maps(state: PoolState, payloads: list[memoryview], name: str, offset: int) -> None:
    """Apply MAP entries in pieces that expand to bounded arrays."""
    if not payloads:
        return
    entries = decode_map(payloads)
    ends = np.cumsum(entries["count"], dtype=np.int64)
    _check_entries(state, entries, name, offset)
    piece: NDArray[np.int64] = ends // _REPLAY_TRACK_COUNT
    starts = np.flatnonzero(np.diff(piece, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(entries)], strict=True):
        state.map(entries[start:stop])


def _check_entries(state: PoolState, entries: NDArray[np.void], name: str, offset: int) -> None:
    ends = entries["physical"].astype(np.int64) + entries["count"] * (entries["physical"] != 0)
    if int(ends.max()) > state.allocator.track_count + 1:
        raise log_damaged(name, offset, "an entry at or before this record points beyond the last track")
    for number in np.unique(entries["volume"]).tolist():
        table = state.volumes.get(number)
        mine = entries[entries["volume"] == number]
        if table is None or int((mine["track"].astype(np.int64) + mine["count"]).max()) > table.track_count:
            raise log_damaged(name, offset, f"an entry at or before this record is not in volume {number}")


def _apply(state: PoolState, name: str, record: LogRecord) -> None:
    """Apply one record of a type other than MAP and BARRIER."""
    try:
        if record.kind == RecordType.TOGETHER:
            for kind, payload in unpack_together(record.payload):
                _apply_one(state, kind, payload)
        else:
            _apply_one(state, record.kind, record.payload)
    except (KeyError, IndexError, ValueError, StructError) as error:
        raise log_damaged(
            name, record.offset, f"the record does not fit the state before it ({error})"
        ) from error


def _apply_one(state: PoolState, kind: int, payload: memoryview) -> None:
    match kind:
        case RecordType.UNMAP:
            state.unmap(*UNMAP.unpack(payload))
        case RecordType.VOLUME_CREATE:
            number, size_bytes = VOLUME.unpack_from(payload)
            state.create_volume(number, str(payload[VOLUME.size :], "utf-8"), size_bytes)
        case RecordType.VOLUME_RESIZE:
            state.resize_volume(*VOLUME.unpack(payload))
        case RecordType.VOLUME_DELETE:
            state.delete_volume(*NUMBER.unpack(payload))
        case RecordType.VOLUME_COPY:
            source, number, volume_kind = VOLUME_COPY.unpack_from(payload)
            name = str(payload[VOLUME_COPY.size :], "utf-8")
            state.copy_volume(source, number, name, VolumeKind(volume_kind))
        case RecordType.ESTABLISH:
            source, target, extents = unpack_establish(payload)
            state.establish(source, target, extents)
        case RecordType.DOCUMENT_PUT:
            key, value = unpack_document(payload)
            state.documents[key] = value
        case RecordType.DOCUMENT_DELETE:
            del state.documents[unpack_document(payload)[0]]
        case RecordType.STAGE:
            state.stage(unpack_stage(payload))
        case RecordType.COMMIT:
            state.commit(*SESSION_TIME.unpack(payload))
        case RecordType.DISCARD:
            state.discard(*SESSION_TIME.unpack(payload))
        case RecordType.COMPACT:
            state.compact(*SESSION_TIMES.unpack(payload))
        case RecordType.DISCARD_VOLUME:
            state.discard_volume(*SESSION_VOLUME.unpack(payload))
        case RecordType.DISCARD_SOURCE:
            state.discard_source(*SESSION_SOURCE_TIME.unpack(payload))
        case RecordType.END_SESSION:
            state.end_session(*SESSION.unpack(payload))
        case _:
            _apply_history(state, kind, payload)


def _apply_history(state: PoolState, kind: int, payload: memoryview) -> None:
    match kind:
        case RecordType.HISTORY_BEGIN:
            (session,) = SESSION.unpack_from(payload)
            begin_history(state, session, unpack_pairs(payload[SESSION.size :]))
        case RecordType.HISTORY_END:
            end_volume(state, *SESSION_VOLUME.unpack(payload))
        case RecordType.HISTORY_DROP:
            drop_history(state, *SESSION.unpack(payload))
        case RecordType.HISTORY_RELEASE:
            release_history(state, *SESSION_TIME.unpack(payload))
        case RecordType.HISTORY_GIVE_BACK:
            give_back(state, *COUNT.unpack(payload))
        case RecordType.HISTORY_IMAGE:
            session, at_ns = SESSION_TIME.unpack_from(payload)
            link_image(state, session, at_ns, dict(unpack_pairs(payload[SESSION_TIME.size :])))
        case RecordType.HISTORY_REWIND:
            session, at_ns = SESSION_TIME.unpack_from(payload)
            rewind(state, session, at_ns, unpack_pairs(payload[SESSION_TIME.size :]))
        case _:
            raise ValueError(f"type {kind} is unknown")
