"""A pool in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool in numbers. Tracks: used + free + pending + quarantined = total; staged ones are among the used.

    Attributes:
        quarantined_track_count: tracks that the device could not write; not used before the pool is opened anew.
        history_track_count: of the used ones, those that histories refer to; volumes may show them, too.
        history_record_count: records that histories keep.
        history_given_up_record_count: that had to go because the pool was full, since it was opened.
        mapped_track_count: entries of all volumes; more than tracks linked when volumes share them.
        volume_count: those that are not hidden.
        metadata_bytes: memory of tables, counts and free map.
        log_used_bytes: of the current segment.
        sync_count: completed since the pool was opened, also those made inline because no track was free.
    """

    track_size_bytes: int
    track_count: int
    used_track_count: int
    free_track_count: int
    pending_free_count: int
    quarantined_track_count: int
    staged_track_count: int
    history_track_count: int
    history_record_count: int
    history_given_up_record_count: int
    mapped_track_count: int
    volume_count: int
    table_page_count: int
    metadata_bytes: int
    log_segment_size_bytes: int
    log_used_bytes: int
    sync_count: int
    checkpoint_count: int
    read_only_reason: str | None
    checkpoint_waits_because: str | None
