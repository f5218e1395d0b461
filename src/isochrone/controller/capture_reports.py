"""What a controller says of the sessions it feeds as a primary."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.capture import captured_volume
from isochrone.capture.document import CaptureState
from isochrone.capture.side_file import SideFile
from isochrone.capture.stream import SessionStream
from isochrone.controller.backlog_reports import backlog_report
from isochrone.controller.primary_shell import LinkHistory
from isochrone.link import messages
from isochrone.model.choices import OverflowPolicy
from isochrone.model.states import SessionState
from isochrone.report.backlog_models import SpillReport
from isochrone.report.models import (
    CapturedVolume,
    CaptureReport,
    LinkState,
    MarksReport,
    PacingReport,
)
from isochrone.report.split_models import SplitReport
from isochrone.report.times import NS_PER_MS, NS_PER_S, TimePoint, wall_text

_STATES = {
    CaptureState.MARKING: SessionState.ACTIVE,
    CaptureState.STREAMING: SessionState.ACTIVE,
    CaptureState.SUSPENDED: SessionState.SUSPENDED,
    CaptureState.ENDED: SessionState.ENDED,
    CaptureState.SERVING: SessionState.ENDED,
}


@dataclass(frozen=True, slots=True)
class Now:
    """One moment by both clocks, nanoseconds."""

    host_ns: int
    wall_ns: int

    def wall_text_of(self, host_time_ns: int) -> str:
        """Return the wall time of an earlier moment of host time."""
        return wall_text(self.wall_ns - (self.host_ns - host_time_ns))


def capture_report(
    stream: SessionStream,
    link: LinkHistory,
    told: messages.CaptureReport,
    *,
    held_write_count: int,
    side_file: SideFile,
    split: SplitReport | None,
    now: Now,
) -> CaptureReport:
    """Return the report of one captured session."""
    document = stream.document
    state = _STATES[stream.state]
    moving = state is not SessionState.ENDED
    paced = document.policy.overflow_policy is not OverflowPolicy.SUSPEND
    return CaptureReport(
        name=document.session_name,
        id=document.session_id,
        epoch=document.epoch,
        state=state,
        mover_id=document.mover_id,
        mover_name=document.mover_name,
        link_state=LinkState.UP if link.is_up else LinkState.DOWN,
        link_since=wall_text(link.since_wall_ns),
        side_file_bytes=stream.backlog.held_bytes,
        side_file_bytes_max=side_file.capacity_bytes,
        unsent_bytes=stream.backlog.unsent_bytes,
        hardened=TimePoint.measure(
            stream.hardened_ns, now_ns=now.host_ns, wall_now_ns=now.wall_ns, moving=moving
        ),
        consistency=TimePoint.measure(
            stream.consistency_ns, now_ns=now.host_ns, wall_now_ns=now.wall_ns, moving=moving
        ),
        volumes=tuple(
            CapturedVolume(
                name=captured.volume.name,
                number=number,
                marked_track_count=captured.change_map.marked_count,
                tracks_remaining=captured.tracks_remaining,
                **_regions(captured),
            )
            for number, captured in sorted(stream.volumes.items())
        ),
        pacing=PacingReport(
            policy=document.policy.overflow_policy,
            level=document.policy.pace_level,
            delay_ms=max((delay.delay_ns for delay in told.volumes), default=0) / NS_PER_MS,
            delay_ms_max=document.policy.pace_delay_ns_max / NS_PER_MS if paced else 0.0,
            hold_ms_max=document.policy.hold_ns_max / NS_PER_MS,
            held_write_count=held_write_count + told.waiting_write_count,
            paced_write_count=told.held_write_count,
            paced_s=told.held_ns / NS_PER_S,
        ),
        marks=_marks_report(stream, now),
        spill=_spill_report(side_file),
        backlog=backlog_report(told),
        quiesced=document.quiesced,
        split=split,
        cut=(
            TimePoint.measure(stream.cut_ns, now_ns=now.host_ns, wall_now_ns=now.wall_ns)
            if stream.cut_ns
            else None
        ),
        suspended_reason=document.reason if state is SessionState.SUSPENDED else None,
        suspended_cause=document.cause if state is SessionState.SUSPENDED else None,
        suspended_since=(
            now.wall_text_of(document.since_ns)
            if state is SessionState.SUSPENDED and document.since_ns
            else None
        ),
    )


def _marks_report(stream: SessionStream, now: Now) -> MarksReport:
    counts = stream.pruner.counts

    def wall(host_ns: int) -> str | None:
        return now.wall_text_of(host_ns) if host_ns else None

    return MarksReport(
        policy=stream.document.policy.mark_policy,
        toggled=wall(counts.toggled_ns),
        discarded=wall(counts.discarded_ns),
        toggle_count=counts.toggles,
        discard_count=counts.generations_discarded,
        track_discarded=wall(counts.tracks_discarded_ns),
        track_discard_count=counts.tracks_discarded,
    )


def _spill_report(side_file: SideFile) -> SpillReport | None:
    spill = side_file.spill
    if spill is None:
        return None
    return SpillReport(
        spilled_bytes=side_file.spilled_bytes,
        reserved_bytes=spill.reserved_bytes,
        bytes_max=spill.bytes_max,
        trouble=spill.trouble or None,
    )


def _regions(captured: captured_volume.CapturedVolume) -> dict[str, int | None]:
    activity, suspicion = captured.activity, captured.suspicion
    return {
        "region_count": activity.region_count if activity else suspicion.region_count if suspicion else None,
        "active_region_count": activity.active_count if activity else None,
        "suspected_region_count": suspicion.suspected_count if suspicion else None,
    }
