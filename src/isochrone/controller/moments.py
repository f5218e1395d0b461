"""From an instant as a request gives it to host time, and back to words when there is no image of it."""

from __future__ import annotations

from typing import Final

from isochrone.api.requests import MomentRequest
from isochrone.controller.capture_reports import Now
from isochrone.controller.suspending import host_time_ns
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.report.times import NS_PER_S
from isochrone.session.history_window import Reach
from isochrone.session.session import Session

SAME_NS_MAX: Final = 2_000_000
"""Moments of the wall clock that are so near to one another may mean the same instant."""
NAMED_MAX: Final = 5
"""Named instants that one refusal lists."""


def asked_ns(request: MomentRequest, session: Session, there: Now) -> int | None:
    """Return the instant that a request gives, host time of the primaries; None when it gives none.

    Args:
        there: the present of the primaries' host time, and of the wall clock here.

    Raises NotFoundError or ConflictError when a name stands for none, or for several instants.
    """
    if request.at_ns is not None:
        return request.at_ns
    if request.at is not None:
        return host_time_ns(request.at, there)
    if request.before_s is not None:
        return max(0, there.host_ns - round(request.before_s * NS_PER_S))
    return None if request.instant is None else _named_ns(request.instant, session, there)


def _named_ns(text: str, session: Session, there: Now) -> int:
    name = session.document.name
    known = session.history.document.instants
    found = [instant.time_ns for instant in known if instant.text == text]
    if not found:
        newest = ", ".join(repr(instant.text) for instant in known[-NAMED_MAX:]) or "none"
        raise NotFoundError(
            f"session {name!r} has no instant called {text!r}; its newest are: {newest}; see `isochrone session history "
            f"{name}`",
            session=name,
        )
    if len(found) > 1:
        times = "; ".join(moment_text(time_ns, there) for time_ns in found[-NAMED_MAX:])
        raise ConflictError(
            f"session {name!r} has {len(found)} instants called {text!r}: give the time of one: {times}",
            session=name,
        )
    return found[0]


def moment_text(time_ns: int, there: Now) -> str:
    """Return an instant for people and for `--at`."""
    return f"{there.wall_text_of(time_ns)} ({time_ns})"


def unreachable(session: Session, reach: Reach, at_ns: int, there: Now) -> ConflictError:
    """Return the refusal of an instant that no image can be made of, with the nearest that there are."""
    name = session.document.name
    gap = reach.gap_at(at_ns)
    before_ns, after_ns = reach.nearest(at_ns)
    if reach.first_ns is None:
        why = f"it keeps no history (`isochrone session set {name} --history 24h` begins one)"
    elif gap is not None:
        why = (
            f"a resync, or a pair suspended by itself, has left a gap after {moment_text(gap.from_ns, there)}"
        )
        why += "" if gap.to_ns is None else f" until {moment_text(gap.to_ns, there)}"
    elif at_ns < reach.first_ns:
        why = "its history does not go back so far"
    else:
        why = "it is later than what is committed"
    nearest = [moment_text(time_ns, there) for time_ns in (before_ns, after_ns) if time_ns is not None]
    return ConflictError(
        f"session {name!r} has no image of {moment_text(at_ns, there)}: {why}. "
        f"Nearest with an image: {' and '.join(nearest) or 'none'}",
        session=name,
        at_ns=at_ns,
        before_ns=before_ns,
        after_ns=after_ns,
    )


def instant_to_recover(session: Session, request: MomentRequest, there: Now) -> int | None:
    """Return the instant that a recovery is to go to, None for the newest. Raises ConflictError when it cannot.

    A recovery may be asked for again, also in words that come out a little different every time.
    """
    at_ns = asked_ns(request, session, there)
    document = session.document
    if at_ns is None:
        return None
    if document.is_over:
        if abs(at_ns - document.recovered_ns) > SAME_NS_MAX and not document.reason:
            raise ConflictError(
                f"session {document.name!r} is recovered to {moment_text(document.recovered_ns, there)} already; for "
                f"another instant of its history make an image: `isochrone session image {document.name} --at`",
                session=document.name,
            )
        return document.recovered_ns
    reach = session.history.reach()
    if at_ns <= reach.through_ns and not reach.holds(at_ns):
        raise unreachable(session, reach, at_ns, there)
    return at_ns
