"""Limits and intervals of capture at one primary controller."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
COPY_SHARE = 4
"""The copier of a session takes at most one part in COPY_SHARE of the side file."""

READ_AHEAD_BYTES_MAX = 8 * MIB


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What an operator may choose, and the limits that follow from it.

    Attributes:
        side_file_bytes_max: captured, not yet hardened bytes over all sessions; at the limit a session suspends.
        spill_bytes_max: space for captured bytes beyond memory, in files; 0 = none.
        spill_segment_bytes: size of one of these files.
        record_set_bytes_max: a record set is closed when it holds this much; one larger write still travels whole.
        link_pending_bytes_max: bytes handed to a link and not yet taken by the kernel; the sender stops above it.
        copy_ahead_bytes_max: images captured and not yet hardened, a session: the copier's share of the side file.
        copy_step_tracks_max: tracks that one step of the copier reads.
        copy_step_tracks_beside_writes_max: the same while applications write, whose next write waits for the step.
        heartbeat_interval_ns: an idle session promises its time this often.
        progress_interval_ns: copy progress is told this often.
        prune_interval_ns, prune_tracks_max: change maps are toggled when this much time has gone by, or this many tracks
            were captured, since the last toggle (S3, level 1).
        discard_interval_ns, discard_tracks_max: single marks of a generation that waits to be released are discarded when
            it has waited this long, or this many tracks are marked in the session (S3, level 2).
        activity_region_bytes: unit in which durable marks are kept, a power of two and at least a track.
        activity_regions_max: regions of a volume that stay active although they hold nothing to remember.
        activity_idle_ns: a region is given up only when it was not written for this long.
        activity_trim_interval_ns: how often regions are given up, while there are too many.
        clock_error_ns: acknowledgements wait until every other host's clock is past the stamp; 0 on one host.
    """

    side_file_bytes_max: int = 256 * MIB
    spill_bytes_max: int = 0
    spill_segment_bytes: int = 64 * MIB
    record_set_bytes_max: int = MIB
    link_pending_bytes_max: int = 4 * MIB
    copy_ahead_bytes_max: int = 16 * MIB
    copy_step_tracks_max: int = 256
    copy_step_tracks_beside_writes_max: int = 64
    heartbeat_interval_ns: int = 10 * MILLISECOND_NS
    progress_interval_ns: int = 100 * MILLISECOND_NS
    prune_interval_ns: int = 2 * SECOND_NS
    prune_tracks_max: int = 262_144
    discard_interval_ns: int = 10 * SECOND_NS
    discard_tracks_max: int = 7_500
    activity_region_bytes: int = 4 * MIB
    activity_regions_max: int = 2048
    activity_idle_ns: int = 10 * SECOND_NS
    activity_trim_interval_ns: int = 2 * SECOND_NS
    clock_error_ns: int = 0

    @property
    def copy_share_bytes(self) -> int:
        """Images that one session may hold in the side file: never so many that application writes find it full."""
        return min(self.copy_ahead_bytes_max, self.side_file_bytes_max // COPY_SHARE)

    @property
    def copy_stop_bytes(self) -> int:
        """Memory in use by the side file above which no image is added."""
        return self.side_file_bytes_max * 3 // 4

    @property
    def read_ahead_bytes(self) -> int:
        """What a sender keeps in memory of what it will send next, and has read back ahead of need."""
        return min(READ_AHEAD_BYTES_MAX, self.side_file_bytes_max // 8)
