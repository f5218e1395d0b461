"""A session's past for a terminal."""

from __future__ import annotations

from isochrone.report.history_models import InstantReport


def instant_text(instant: InstantReport) -> str:
    """Return what was named, and the exact time of it."""
    durable = (
        "durable at the secondary, with every write up to it"
        if instant.hardened
        else "not known to be durable at the secondary yet"
    )
    return f"session {instant.session}: {instant.text!r} is {instant.time.wall} ({instant.time.time_ns} ns), {durable}"
