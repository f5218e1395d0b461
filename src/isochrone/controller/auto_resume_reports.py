"""What a controller says of a suspended session's way back."""

from __future__ import annotations

from isochrone.controller.capture_reports import Now
from isochrone.report.models import AutoResumeReport
from isochrone.report.times import NS_PER_S, duration_text
from isochrone.session.auto_resume import Outlook


def auto_resume_report(outlook: Outlook | None, now: Now) -> AutoResumeReport | None:
    """Return `outlook` in words; None without a suspension."""
    if outlook is None:
        return None
    at = now.wall_text_of(outlook.at_ns) if outlook.at_ns else None
    if outlook.waits_for and at:
        text = f"{outlook.waits_for}; resumes at about {at}, or by command"
    elif outlook.waits_for:
        text = f"waits for {outlook.waits_for}"
    else:
        in_s = max(0, outlook.at_ns - now.host_ns) / NS_PER_S
        text = f"resumes by itself in {duration_text(in_s)} (attempt {outlook.attempt})"
    return AutoResumeReport(attempt=outlook.attempt, at=at, text=text)
