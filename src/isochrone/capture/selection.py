"""Selection: the records of a joined batch that a mover is still to have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import MIXED_VOLUMES, RECORD_DTYPE, RecordArray, RecordBatch, RecordKind

NEVER_NS: Final = (1 << 64) - 1


def select_records(
    batch: RecordBatch,
    spans_ns: Mapping[int, tuple[int, int]],
    received_through_ns: int,
    track_size_bytes: int,
) -> RecordBatch | None:
    """Return the part of `batch` that is to be sent, None when it is empty.

    Args:
        spans_ns: by volume, after which time and up to which time its records are wanted; none of a volume that is not
            named are.
        received_through_ns: the mover has everything up to here.
    """
    records = np.frombuffer(batch.headers, RECORD_DTYPE)
    wanted = records["time_ns"] > received_through_ns
    for volume in np.unique(records["volume"]):
        after_ns, through_ns = spans_ns.get(int(volume), (NEVER_NS, 0))
        in_span = (records["time_ns"] > after_ns) & (records["time_ns"] <= through_ns)
        wanted &= (records["volume"] != volume) | in_span
    if wanted.all():
        return batch
    if not wanted.any():
        return None
    chosen = records[wanted]
    return RecordBatch(
        MIXED_VOLUMES,
        int(chosen["time_ns"][0]),
        int(chosen["time_ns"][-1]),
        len(chosen),
        chosen.tobytes(),
        _payload_of(batch.payload, records, wanted, track_size_bytes),
    )


def _payload_of(
    payload: bytes, records: RecordArray, wanted: NDArray[np.bool_], track_size_bytes: int
) -> bytes:
    """Return the payload of the records where `wanted`, shape (n,), is true."""
    has_payload = (records["kind"] & np.uint32(RecordKind.DATA)) != 0
    tracks = np.where(has_payload, records["track_count"], 0).astype(np.int64)
    rows = np.frombuffer(payload, np.uint8).reshape(-1, track_size_bytes)
    chosen: bytes = rows[np.repeat(wanted, tracks)].tobytes()
    return chosen
