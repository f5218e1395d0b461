"""Records expanded to *entries*, one for each track that they cover, and put together again from some of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import RecordArray, RecordKind
from isochrone.store.disk import Buffer
from isochrone.store.runs import expand

EntryMask = NDArray[np.bool_]
"""Array of shape (entries,): which entries of some records are meant."""


def entry_keys(records: RecordArray) -> NDArray[np.int64]:
    """Return volume << 32 | track of each entry, in order."""
    counts = records["track_count"]
    volumes = np.repeat(records["volume"], counts).astype(np.int64)
    return (volumes << 32) | expand(records["track"], counts)


def entry_times(records: RecordArray) -> NDArray[np.uint64]:
    """Return the time of each entry."""
    return np.repeat(records["time_ns"], records["track_count"])


def entries_with_data(records: RecordArray) -> EntryMask:
    """Return which entries have payload."""
    return np.repeat(records["kind"] & np.uint32(RecordKind.DATA) != 0, records["track_count"])


def select(records: RecordArray, mask: EntryMask) -> RecordArray:
    """Return the records of the entries in `mask`, in order; neighbours of one record stay one."""
    counts = records["track_count"]
    record_of = np.repeat(np.arange(len(records)), counts)[mask]
    tracks = expand(records["track"], counts)[mask]
    breaks = np.flatnonzero((np.diff(record_of) != 0) | (np.diff(tracks) != 1)) + 1
    starts = np.concatenate([[0], breaks]) if len(tracks) else np.empty(0, np.int64)
    selected: RecordArray = records[record_of[starts]].copy()
    selected["track"] = tracks[starts]
    selected["track_count"] = np.diff(starts, append=len(tracks))
    return selected


def select_single(records: RecordArray, mask: EntryMask) -> RecordArray:
    """Return the entries in `mask` as records of one track each, in order."""
    counts = records["track_count"]
    singles: RecordArray = np.repeat(records, counts)[mask]
    singles["track"] = expand(records["track"], counts)[mask]
    singles["track_count"] = 1
    return singles


def select_payload(
    records: RecordArray, payload: Buffer, mask: EntryMask, track_size_bytes: int
) -> NDArray[np.uint8]:
    """Return the images of the entries in `mask` that have payload: shape (images, track_size_bytes), a copy."""
    images = np.frombuffer(payload, np.uint8).reshape(-1, track_size_bytes)
    return images[mask[entries_with_data(records)]]
