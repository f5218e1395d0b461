"""What a primary says of its side file and of delays, as reports show it."""

from __future__ import annotations

from isochrone.link.messages import CaptureReport
from isochrone.report.backlog_models import BacklogReport, VolumeDelayReport
from isochrone.report.times import NS_PER_MS, NS_PER_S


def backlog_report(told: CaptureReport) -> BacklogReport:
    """Return `told` in the units of people."""
    return BacklogReport(
        session_bytes=told.side_file_bytes,
        used_bytes=told.used_bytes,
        capacity_bytes=told.capacity_bytes,
        spilled_bytes=told.spilled_bytes,
        full_in_s=told.full_in_s,
        waiting_write_count=told.waiting_write_count,
        held_write_count=told.held_write_count,
        held_s=told.held_ns / NS_PER_S,
        spill_trouble=told.spill_trouble or None,
        volumes=tuple(
            VolumeDelayReport(
                volume=delay.volume,
                delay_ms=delay.delay_ns / NS_PER_MS,
                delay_ms_p50=delay.p50_ns / NS_PER_MS,
                delay_ms_p99=delay.p99_ns / NS_PER_MS,
                write_count=delay.write_count,
            )
            for delay in told.volumes
        ),
    )
