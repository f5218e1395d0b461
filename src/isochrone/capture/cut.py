"""The cut: how a stream ends exactly at a time that all primaries of a session were told (suspend ATTIME and DRAIN).

At the first moment between two batches when every later stamp is past T, the primary cuts: from then on it captures
nothing, keeps every mark, and copies no more. What it had captured before may reach a little past T; of that only what has
time <= T is sent, and a batch that crosses T is divided. Then it promises T and never more, so F, J and C of the session
come to T and stop there, and the image is exactly the writes up to T of every volume. Everything up to T stays in the side
file until it is hardened, over any loss of the link; everything after T is marked.

Until the cut no promise passes T. A primary that hears of T too late has sent more than that. It cuts where it stands; the
mover's gate (session.gate) leaves out of the image what is later than T. It is not thrown away there: the mover may have
said that it is hardened, and marks may have been cleared because of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from isochrone.model.records import RECORD_DTYPE, RecordBatch, RecordKind, count_through

_DATA = np.uint32(RecordKind.DATA)


def cut_batches(
    batches: Iterable[RecordBatch], after_ns: int, cut_ns: int, track_size_bytes: int
) -> list[RecordBatch]:
    """Return what of `batches` has a time after `after_ns` and up to `cut_ns`."""
    parts = (cut_batch(batch, after_ns, cut_ns, track_size_bytes) for batch in batches)
    return [part for part in parts if part is not None]


def cut_batch(batch: RecordBatch, after_ns: int, cut_ns: int, track_size_bytes: int) -> RecordBatch | None:
    """Return the records of `batch` with after_ns < time <= cut_ns and their payload, None when there are none."""
    if after_ns < batch.first_time_ns and batch.last_time_ns <= cut_ns:
        return batch
    records = np.frombuffer(batch.headers, RECORD_DTYPE)
    first, end = count_through(records, after_ns), count_through(records, cut_ns)
    if first >= end:
        return None
    tracks = np.where((records["kind"] & _DATA) != 0, records["track_count"], 0).astype(np.int64)
    payload_first, payload_end = int(tracks[:first].sum()), int(tracks[:end].sum())
    return RecordBatch(
        batch.volume,
        int(records["time_ns"][first]),
        int(records["time_ns"][end - 1]),
        end - first,
        batch.headers[first * RECORD_DTYPE.itemsize : end * RECORD_DTYPE.itemsize],
        batch.payload[payload_first * track_size_bytes : payload_end * track_size_bytes],
    )
