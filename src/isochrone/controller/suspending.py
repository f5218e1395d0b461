"""From a request to suspend to the session's command: wall clock and waiting times become host time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from isochrone.api.requests import ResumeRequest, SuspendRequest
from isochrone.controller.capture_reports import Now
from isochrone.model.states import SessionState
from isochrone.report.times import NS_PER_S
from isochrone.session.pair_suspension import PairSuspension
from isochrone.session.session import Session

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def suspend_session(session: Session, request: SuspendRequest, now: Now) -> None:
    """Give the command. `now` is the present by the primaries' host time and by the wall clock here.

            Suspending a suspended session at once only keeps it from resuming by itself. Raises ConflictError or
    NotFoundError.
    """
    if request.secondary_volumes:
        _suspend_pairs(session.pair_suspension, request, now)
        return
    suspension = session.suspension
    if request.cancel:
        suspension.cancel()
    elif request.drain:
        suspension.drain(request.reason, now.host_ns)
    elif (at_ns := _time_asked(request, now)) is not None:
        suspension.suspend_at(at_ns, request.reason)
    else:
        suspension.suspend(request.reason)


def _suspend_pairs(suspension: PairSuspension, request: SuspendRequest, now: Now) -> None:
    names = request.secondary_volumes
    if request.cancel:
        suspension.cancel(names)
    elif request.drain:
        suspension.drain(names, request.reason, now.host_ns)
    elif (at_ns := _time_asked(request, now)) is not None:
        suspension.suspend(names, at_ns, request.reason)
    else:
        suspension.suspend_now(names, request.reason, now.host_ns)


def _time_asked(request: SuspendRequest, now: Now) -> int | None:
    if request.after_s is not None:
        return now.host_ns + round(request.after_s * NS_PER_S)
    return None if request.at is None else host_time_ns(request.at, now)


def resume_session(session: Session, request: ResumeRequest) -> None:
    """Give the command. Resuming what runs changes nothing. Raises ConflictError or NotFoundError."""
    if request.secondary_volumes:
        session.pair_suspension.resume(request.secondary_volumes)
    elif session.document.state is not SessionState.ACTIVE or session.document.suspend_at_ns:
        session.resume()


def host_time_ns(moment: datetime, now: Now) -> int:
    """Return the host time of a moment of the wall clock, 0 for one before host time began."""
    wall_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    return max(0, now.host_ns + wall_ns - now.wall_ns)
