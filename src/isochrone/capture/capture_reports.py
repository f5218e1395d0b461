"""What a primary tells its mover of the side file and of delays (CaptureReport), and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.forecast import FillForecast
from isochrone.capture.pacing import pace_delay_ns
from isochrone.capture.route import volume_pacing
from isochrone.capture.side_file import SideFile
from isochrone.capture.stream import SessionStream
from isochrone.capture.throttle import Throttle
from isochrone.link.messages import CaptureReport, VolumeDelay, cut_text

REPORT_NS: Final = 1_000_000_000
"""A report follows the last one after this, when it says something else."""
URGENT_REPORT_NS: Final = 100_000_000
"""The same for one that says that writes are delayed or wait now, or are no longer."""
_NOTHING: Final = CaptureReport(0, 0, 0, 0, None, 0, 0, 0, "", [])


def _volume_delay(stream: SessionStream, captured: CapturedVolume, fill: float, now_ns: int) -> VolumeDelay:
    pacing = volume_pacing(stream, captured) if stream.incarnation else None
    summary = captured.delays.summary(now_ns)
    return VolumeDelay(
        volume=captured.volume.name,
        delay_ns=pace_delay_ns(fill, pacing.curve, pacing.delay_ns_max) if pacing else 0,
        p50_ns=summary.p50_ns,
        p99_ns=summary.p99_ns,
        write_count=summary.write_count,
    )


class CaptureReporter:
    """Tells movers. One for all sessions of a primary.

    A look is taken no more often than every URGENT_REPORT_NS, so that a tick costs nothing.
    """

    def __init__(self, side_file: SideFile, throttle: Throttle, forecast: FillForecast) -> None:
        self._side_file = side_file
        self._throttle = throttle
        self._forecast = forecast

    def report(self, stream: SessionStream, now_ns: int) -> CaptureReport:
        """Return what is to be said of one session now."""
        side_file = self._side_file
        fill = side_file.fill
        delays = [_volume_delay(stream, captured, fill, now_ns) for captured in stream.volumes.values()]
        return CaptureReport(
            side_file_bytes=stream.backlog.held_bytes,
            used_bytes=side_file.used_bytes,
            capacity_bytes=side_file.capacity_bytes,
            spilled_bytes=side_file.spilled_bytes,
            full_in_s=self._forecast.full_in_s(side_file.used_bytes, side_file.capacity_bytes),
            waiting_write_count=self._throttle.waiting_count(stream.delay_totals),
            held_write_count=stream.delay_totals.write_count,
            held_ns=stream.delay_totals.held_ns,
            spill_trouble=cut_text(side_file.spill.trouble) if side_file.spill else "",
            volumes=[delay for delay in delays if delay.delay_ns or delay.write_count],
        )

    def work(self, stream: SessionStream, now_ns: int) -> None:
        """Send a report of `stream` when one is due; called with every tick."""
        if not stream.is_configured or now_ns - stream.report_looked_ns < URGENT_REPORT_NS:
            return
        stream.report_looked_ns = now_ns
        told = stream.report_told
        report = self.report(stream, now_ns)
        is_due = now_ns - stream.report_told_ns >= REPORT_NS and report != (told or _silent(report))
        if is_due or _held(report) != _held(told or _NOTHING):
            stream.report_told = report
            stream.report_told_ns = now_ns
            stream.send(report)


def _held(report: CaptureReport) -> tuple[bool, frozenset[str], str]:
    """Return what is said at once when it changes: whether writes wait, which volumes are delayed, what is wrong."""
    delayed = frozenset(delay.volume for delay in report.volumes if delay.delay_ns)
    return report.waiting_write_count > 0, delayed, report.spill_trouble


def _silent(report: CaptureReport) -> CaptureReport:
    """Return the report of a side file that is empty, which a mover takes for granted."""
    return replace(_NOTHING, capacity_bytes=report.capacity_bytes)
