"""A recovery for a terminal: the question before it, and where the volumes stand after it."""

from __future__ import annotations

from isochrone.report.models import SessionReport
from isochrone.report.times import TimePoint, duration_text


def recover_question(session: SessionReport, *, drain: bool, at: str | None = None) -> str:
    """What recovering `session` means now, as a question. `at` is the instant of its past that was asked for."""
    if drain:
        return f"Switch session {session.name} over to here? Writes at its primaries are refused from now on."
    if at is not None:
        return (
            f"Recover session {session.name} here as it was at {at}? Its primaries are refused from then on. What was "
            "written later is not in the volumes; their present image is kept as snapshots."
        )
    image = "complete" if session.image_complete else f"NOT complete ({session.image_incomplete_reason})"
    return (
        f"Recover session {session.name} here? Its primaries are refused from then on. The image is {image}; "
        f"the writes of the last {_lag(session.journal)} are not in it."
    )


def _lag(point: TimePoint) -> str:
    return "-" if point.lag_ms is None else duration_text(point.lag_ms / 1000)


def recovered_text(session: SessionReport) -> str:
    """What a finished recovery gives: the time the volumes stand at."""
    if session.recovered is None or session.recovered.time_ns == 0:
        return f"session {session.name} is {session.state}; nothing was recovered"
    first, *others = recovered_lines(session)
    return "\n".join([f"session {session.name} is {first}", *others])


def recovered_lines(session: SessionReport) -> list[str]:
    """Where the volumes of a recovered session stand, and what is left of the image before."""
    point = session.recovered
    if point is None:
        return []
    line = f"recovered to {point.wall or '-'} (host time {point.time_ns} ns)"
    if not session.image_complete:
        line += f"; the image is NOT complete: {session.image_incomplete_reason}"
    lines = [line]
    if session.recovered_note is not None:
        lines.append(f"NOT the time that was asked for: {session.recovered_note}")
    if session.kept_copy is not None:
        of = f" of {session.rewound_from.wall}" if session.rewound_from is not None else ""
        lines.append(
            f"the image before it{of} is kept as copy {session.kept_copy}; `isochrone copy delete {session.kept_copy}` when "
            "it is not needed any more"
        )
    return lines
