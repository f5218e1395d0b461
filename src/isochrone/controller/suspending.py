"""From a request to suspend to the session's command: wall clock and waiting times become host time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from isochrone.api.requests import SuspendRequest
from isochrone.controller.capture_reports import Now
from isochrone.report.times import NS_PER_S
from isochrone.session.suspension import Suspension

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def suspend_session(suspension: Suspension, request: SuspendRequest, now: Now) -> None:
    """Give the command. `now` is the present by the primaries' host time and by the wall clock here.

    Suspending a suspended session at once only keeps it from resuming by itself. Raises ConflictError.
    """
    if request.cancel:
        suspension.cancel()
    elif request.drain:
        suspension.drain(request.reason, now.host_ns)
    elif request.after_s is not None:
        suspension.suspend_at(now.host_ns + round(request.after_s * NS_PER_S), request.reason)
    elif request.at is not None:
        suspension.suspend_at(host_time_ns(request.at, now), request.reason)
    else:
        suspension.suspend(request.reason)


def host_time_ns(moment: datetime, now: Now) -> int:
    """Return the host time of a moment of the wall clock, 0 for one before host time began."""
    wall_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    return max(0, now.host_ns + wall_ns - now.wall_ns)
