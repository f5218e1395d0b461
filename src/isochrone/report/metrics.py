"""A status as Prometheus metrics: a collector over one frozen report, with no registry of the process.

Names are `isochrone_<noun>_<what>_<base unit>`, times in seconds, sizes in bytes. States are one series per
state, 1 for the present one. A figure that was not measured has no series, so an alert on it must also test
for absence: a lag that nobody measures is not a lag of zero. Times still run while a link is down, so
`..._lag_seconds` grows then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from isochrone.model.split import Divergence
from isochrone.model.states import PairState, SessionState
from isochrone.report.backlog_models import BacklogReport
from isochrone.report.copy_metrics import COPY_FAMILIES
from isochrone.report.metric_family import Family, Sample
from isochrone.report.models import (
    CaptureReport,
    ControllerReport,
    LinkState,
    PairReport,
    PoolReport,
    PoolState,
    SessionReport,
    SourceReport,
    StatusReport,
    VolumeReport,
    VolumeRole,
)
from isochrone.report.times import TimePoint


class StatusCollector(Collector):
    """Collects the metrics of one status."""

    def __init__(self, status: StatusReport) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield every family of FAMILIES, also those without a sample."""
        return (family.metric(self._status) for family in FAMILIES)


def exposition(status: StatusReport, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics and their content type, in the format that the `Accept` header prefers."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _controller(name: str, text: str, value: Callable[[ControllerReport], float | None]) -> Family:
    return Family(f"isochrone_controller_{name}", text, (), lambda status: [((), value(status.controller))])


def _pool(name: str, text: str, value: Callable[[PoolReport], float | None]) -> Family:
    return Family(f"isochrone_pool_{name}", text, (), lambda status: [((), value(status.pool))])


def _volume(name: str, text: str, value: Callable[[VolumeReport], float]) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        return (((volume.name,), value(volume)) for volume in status.volumes)

    return Family(f"isochrone_volume_{name}", text, ("volume",), samples)


def _session(name: str, text: str, value: Callable[[SessionReport], float | None]) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        return (((session.name,), value(session)) for session in status.sessions)

    return Family(f"isochrone_session_{name}", text, ("session",), samples)


def _source(name: str, text: str, value: Callable[[SourceReport], float | None]) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        for session in status.sessions:
            for source in session.sources:
                yield (session.name, source.name), value(source)

    return Family(f"isochrone_source_{name}", text, ("session", "source"), samples)


def _pair(name: str, text: str, value: Callable[[PairReport], float | None]) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        for session in status.sessions:
            for pair in session.pairs:
                yield (session.name, pair.secondary_volume), value(pair)

    return Family(f"isochrone_pair_{name}", text, ("session", "volume"), samples)


def _delays(backlog: BacklogReport | None) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield ((volume, percentile), seconds) of the volumes that are delayed."""
    for delay in backlog.volumes if backlog else ():
        if delay.write_count:
            yield (delay.volume, "50"), delay.delay_ms_p50 / 1000
            yield (delay.volume, "99"), delay.delay_ms_p99 / 1000


def _capture(name: str, text: str, value: Callable[[CaptureReport], float | None]) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        return (((capture.name,), value(capture)) for capture in status.captures)

    return Family(f"isochrone_capture_{name}", text, ("session",), samples)


def _states(
    name: str,
    text: str,
    labels: tuple[str, ...],
    states: type[StrEnum],
    found: Callable[[StatusReport], Iterable[tuple[tuple[str, ...], StrEnum]]],
) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        for values, present in found(status):
            for state in states:
                yield (*values, state.value), float(state is present)

    text = f"{text}: 1 for the present one, 0 for the others."
    return Family(f"isochrone_{name}", text, (*labels, name.rpartition("_")[2]), samples)


def _lag_s(point: TimePoint) -> float | None:
    return None if point.lag_ms is None else point.lag_ms / 1000


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "isochrone_build_info",
        "Always 1; the labels say who answers.",
        ("controller", "id", "version"),
        lambda status: [
            ((status.controller.name, status.controller.id, status.controller.version), 1.0),
        ],
    ),
    _controller("uptime_seconds", "Time since the controller started.", lambda c: c.uptime_s),
    _controller("memory_bytes", "Resident memory.", lambda c: c.memory_bytes),
    _controller(
        "memory_limit_bytes",
        "Bound of the memory that follows from the settings.",
        lambda c: c.memory_bytes_max,
    ),
    _states("pool_state", "State of the pool", (), PoolState, lambda status: [((), status.pool.state)]),
    _pool("size_bytes", "Space of all tracks.", lambda p: p.size_bytes),
    _pool("used_bytes", "Space of tracks that hold data, staged ones included.", lambda p: p.used_bytes),
    _pool("free_bytes", "Space of tracks that can be handed out now.", lambda p: p.free_bytes),
    _pool(
        "pending_free_bytes", "Space that becomes free with the next sync.", lambda p: p.pending_free_bytes
    ),
    _pool("staged_bytes", "Space of staged tracks.", lambda p: p.staged_track_count * p.track_size_bytes),
    _pool(
        "quarantined_tracks",
        "Tracks that the device could not write; not used before the controller is restarted.",
        lambda p: p.quarantined_track_count,
    ),
    _pool(
        "warning_ratio",
        "Highest of the levels to warn of that the use of the pool has reached, 0 to 1; absent below all.",
        lambda p: None if p.warning_percent is None else p.warning_percent / 100,
    ),
    _pool("log_bytes", "Pointer log since the last checkpoint.", lambda p: p.log_used_bytes),
    _pool("log_limit_bytes", "Pointer log that makes a checkpoint due.", lambda p: p.log_bytes_max),
    _pool(
        "checkpoint_age_seconds", "Time since the last completed checkpoint.", lambda p: p.checkpoint_age_s
    ),
    _pool(
        "checkpoint_waits",
        "1 while a checkpoint waits for room in the file system of the pool.",
        lambda p: float(p.checkpoint_waits_because is not None),
    ),
    _states(
        "volume_role",
        "Role of a volume",
        ("volume",),
        VolumeRole,
        lambda status: (((volume.name,), volume.role) for volume in status.volumes),
    ),
    _volume("size_bytes", "Size of the volume.", lambda v: v.size_bytes),
    _volume("mapped_bytes", "Space of its mapped tracks.", lambda v: v.mapped_bytes),
    _volume("connections", "NBD connections that have it open.", lambda v: v.connection_count),
    _volume("reads_total", "NBD reads.", lambda v: v.read_count),
    _volume("writes_total", "NBD writes.", lambda v: v.write_count),
    _volume("read_bytes_total", "Bytes read over NBD.", lambda v: v.read_bytes),
    _volume("written_bytes_total", "Bytes written over NBD.", lambda v: v.written_bytes),
    _states(
        "session_state",
        "State of a session at its mover",
        ("session",),
        SessionState,
        lambda status: (((session.name,), session.state) for session in status.sessions),
    ),
    _states(
        "session_divergence",
        "Who wrote after the last common time of a recovered session",
        ("session",),
        Divergence,
        lambda status: (
            ((session.name,), session.split.divergence)
            for session in status.sessions
            if session.split is not None
        ),
    ),
    _session("epoch", "Epoch of the session.", lambda s: s.epoch),
    _session("form_lag_seconds", "Now minus F: everything up to F was received.", lambda s: _lag_s(s.form)),
    _session(
        "journal_lag_seconds", "Now minus J: everything up to J is durable.", lambda s: _lag_s(s.journal)
    ),
    _session(
        "consistency_lag_seconds",
        "Now minus C, the time of the committed image: what a disaster would cost.",
        lambda s: _lag_s(s.consistency),
    ),
    _session(
        "image_complete", "1 when recovery would give a complete image.", lambda s: float(s.image_complete)
    ),
    _session("blocked", "1 while its times cannot move.", lambda s: float(s.blocked_on is not None)),
    _session("staged_bytes", "Received and not yet committed.", lambda s: s.staged_bytes),
    _session(
        "waiting_tracks",
        "Tracks that the device has not taken yet; they are offered again.",
        lambda s: s.retry.waiting_track_count,
    ),
    _session(
        "waiting_age_seconds",
        "How long the one that waits longest has waited; 0 when none does.",
        lambda s: s.retry.oldest_age_s or 0.0,
    ),
    _session("retries_total", "Tries to store waiting tracks.", lambda s: s.retry.retry_count),
    _session("groups_total", "Consistency groups with writes committed.", lambda s: s.group_count),
    _session("records_total", "Records received.", lambda s: s.record_count),
    _session("received_bytes_total", "Bytes of records received, uncompressed.", lambda s: s.byte_count),
    _session(
        "history_seconds",
        "How far back images can be made; absent while no history is kept.",
        lambda s: s.history.window_s if s.history else None,
    ),
    _session(
        "history_limit_seconds",
        "The window of the history; absent while it is off.",
        lambda s: s.settings.history_s_max or None,
    ),
    _session(
        "history_bytes",
        "Payload of what the history keeps.",
        lambda s: s.history.held_bytes if s.history else None,
    ),
    _session(
        "history_metadata_bytes",
        "What is remembered beside that payload.",
        lambda s: s.history.metadata_bytes if s.history else None,
    ),
    _session(
        "history_limit_bytes",
        "Space that the history may take; absent where there is no limit.",
        lambda s: s.settings.history_bytes_max or None,
    ),
    _session(
        "history_records",
        "Writes that the history keeps.",
        lambda s: s.history.record_count if s.history else None,
    ),
    _session(
        "history_given_up_lag_seconds",
        "Now minus the time up to which history was given up for want of space; absent when none was.",
        lambda s: _lag_s(s.history.given_up) if s.history and s.history.given_up else None,
    ),
    _session(
        "history_failing",
        "1 while something is not kept that should be.",
        lambda s: float(s.history.trouble is not None) if s.history else None,
    ),
    _source(
        "link_up",
        "1 while the link to the primary controller is up.",
        lambda s: float(s.link_state is LinkState.UP),
    ),
    _source("received_lag_seconds", "Now minus the time received through.", lambda s: _lag_s(s.received)),
    _source("window_bytes", "What the primary controller may still send.", lambda s: s.window_bytes),
    _source(
        "backlog_bytes",
        "Captured at the primary controller and not hardened, over all its sessions.",
        lambda s: s.backlog.used_bytes if s.backlog else None,
    ),
    _source(
        "backlog_limit_bytes", "Bound of that.", lambda s: s.backlog.capacity_bytes if s.backlog else None
    ),
    _source(
        "full_in_seconds",
        "At the present rate the primary's side file is full then; absent while it is not filling.",
        lambda s: s.backlog.full_in_s if s.backlog else None,
    ),
    _source(
        "held_seconds_total",
        "Sum of the delays of application writes there, for the session.",
        lambda s: s.backlog.held_s if s.backlog else None,
    ),
    Family(
        "isochrone_source_volume_delay_seconds",
        "Delays of application writes there in the last seconds, by percentile; absent for volumes without.",
        ("session", "source", "volume", "percentile"),
        lambda status: (
            ((session.name, source.name, *labels), delay_s)
            for session in status.sessions
            for source in session.sources
            for labels, delay_s in _delays(source.backlog)
        ),
    ),
    _source("records_total", "Records received from it.", lambda s: s.received_record_count),
    _source("received_bytes_total", "Bytes received from it.", lambda s: s.received_bytes),
    _source("reconnects_total", "Times the link was lost and found again.", lambda s: s.reconnect_count),
    _states(
        "pair_state",
        "State of a pair, named by its secondary volume",
        ("session", "volume"),
        PairState,
        lambda status: (
            ((session.name, pair.secondary_volume), pair.state)
            for session in status.sessions
            for pair in session.pairs
        ),
    ),
    _session(
        "copy_remaining_bytes",
        "Images of all its pairs still to be read.",
        lambda s: 0 if s.resync is None else s.resync.bytes_remaining,
    ),
    _pair("waiting_tracks", "Tracks that the device has not taken yet.", lambda p: p.waiting_track_count),
    _pair("tracks_remaining", "Tracks whose image is still to be read.", lambda p: p.tracks_remaining),
    _pair(
        "compared_tracks",
        "Tracks compared before they were sent, in the last copy that compared any.",
        lambda p: p.compared_track_count,
    ),
    _pair(
        "compare_saved_bytes",
        "Of these, bytes of tracks that were equal and not sent.",
        lambda p: p.compare_saved_bytes,
    ),
    _pair(
        "unreadable_tracks",
        "Tracks that the primary's device cannot read; the copy waits for them.",
        lambda p: p.unreadable_track_count,
    ),
    _pair(
        "copied_ratio",
        "Part of the copy that is done, 0 to 1.",
        lambda p: None if p.copied_percent is None else p.copied_percent / 100,
    ),
    _states(
        "capture_state",
        "State of a session at its primary controller",
        ("session",),
        SessionState,
        lambda status: (((capture.name,), capture.state) for capture in status.captures),
    ),
    _capture("link_up", "1 while the mover is connected.", lambda c: float(c.link_state is LinkState.UP)),
    _capture(
        "side_file_bytes",
        "Captured and not yet hardened remotely, in memory and in the spill.",
        lambda c: c.side_file_bytes,
    ),
    _capture(
        "side_file_limit_bytes", "Bound of the side file, memory and spill.", lambda c: c.side_file_bytes_max
    ),
    _capture(
        "spill_bytes",
        "Captured bytes that are on disk and not in memory, over all sessions.",
        lambda c: c.spill.spilled_bytes if c.spill else None,
    ),
    _capture(
        "spill_limit_bytes", "Bound of the spill's files.", lambda c: c.spill.bytes_max if c.spill else None
    ),
    _capture(
        "spill_failed",
        "1 while the spill cannot be written.",
        lambda c: float(c.spill.trouble is not None) if c.spill else None,
    ),
    _capture("unsent_bytes", "Captured and not yet sent.", lambda c: c.unsent_bytes),
    _capture("hardened_lag_seconds", "Now minus J as last acknowledged.", lambda c: _lag_s(c.hardened)),
    _capture("quiesced", "1 while application writes are refused.", lambda c: float(c.quiesced)),
    _capture("pacing_delay_seconds", "How long each write is held now.", lambda c: c.pacing.delay_ms / 1000),
    _capture(
        "pacing_delay_limit_seconds",
        "Longest delay the operator allows.",
        lambda c: c.pacing.delay_ms_max / 1000,
    ),
    _capture("held_writes", "Writes whose acknowledgement waits now.", lambda c: c.pacing.held_write_count),
    _capture("paced_writes_total", "Writes that were delayed.", lambda c: c.pacing.paced_write_count),
    _capture("paced_seconds_total", "Sum of these delays.", lambda c: c.pacing.paced_s),
    _capture("mark_toggles_total", "Generations of marks closed.", lambda c: c.marks.toggle_count),
    _capture(
        "mark_generations_discarded_total",
        "Generations of marks discarded whole, one a volume.",
        lambda c: c.marks.discard_count,
    ),
    _capture(
        "mark_tracks_discarded_total",
        "Marks of single tracks discarded while their generation waited.",
        lambda c: c.marks.track_discard_count,
    ),
    _capture(
        "full_in_seconds",
        "At the present rate the side file is full then; absent while it is not filling.",
        lambda c: c.backlog.full_in_s if c.backlog else None,
    ),
    Family(
        "isochrone_capture_volume_delay_seconds",
        "Delays of writes in the last seconds, by percentile; absent for volumes without.",
        ("session", "volume", "percentile"),
        lambda status: (
            ((capture.name, *labels), delay_s)
            for capture in status.captures
            for labels, delay_s in _delays(capture.backlog)
        ),
    ),
    Family(
        "isochrone_capture_marked_tracks",
        "Tracks that may differ at the secondary.",
        ("session", "volume"),
        lambda status: (
            ((capture.name, volume.name), volume.marked_track_count)
            for capture in status.captures
            for volume in capture.volumes
        ),
    ),
    Family(
        "isochrone_capture_active_regions",
        "Regions that a power loss would make suspect, where marks are durable.",
        ("session", "volume"),
        lambda status: (
            ((capture.name, volume.name), volume.active_region_count)
            for capture in status.captures
            for volume in capture.volumes
        ),
    ),
    *COPY_FAMILIES,
)
