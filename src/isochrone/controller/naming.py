"""`session mark`: an instant is named where writes are stamped, at a primary."""

from __future__ import annotations

from isochrone.api.history_requests import NameInstantRequest
from isochrone.capture.instants import Instant, InstantState
from isochrone.capture.stream import SessionStream
from isochrone.controller.capture_reports import Now
from isochrone.controller.session_set import wait_while
from isochrone.model.errors import ConflictError
from isochrone.report.history_models import InstantReport
from isochrone.report.times import TimePoint
from isochrone.session.document import SessionDocument


async def name_instant(stream: SessionStream, request: NameInstantRequest) -> Instant:
    """Name the present of a session that is fed from here; wait until it is hardened, as long as the request says.

    Raises ConflictError when no image of the moment can be made, BusyError when too many wait.
    """
    instant = stream.name_instant(request.text)
    await wait_while(lambda: instant.state is InstantState.WAITING, request.wait_s)
    if instant.state is InstantState.LOST:
        raise ConflictError(
            f"session {stream.document.session_name!r} stopped before the instant was hardened: what was written around it "
            "is only marked, and no image of it can be made. Name another once its pairs are DUPLEX again",
            session=stream.document.session_name,
        )
    return instant


def instant_report(session: str, instant: Instant, now: Now) -> InstantReport:
    """Return what is known of a named instant."""
    return InstantReport(
        session=session,
        text=instant.text,
        time=TimePoint.measure(instant.time_ns, now_ns=now.host_ns, wall_now_ns=now.wall_ns),
        hardened=instant.state is InstantState.HARDENED,
    )


def refuse_at_mover(document: SessionDocument) -> ConflictError:
    """Return the refusal to name an instant where the secondaries are."""
    primaries = ", ".join(
        f"{document.sources[source].name} ({document.sources[source].address})"
        for source in sorted(document.sources_in_use)
    )
    return ConflictError(
        f"the mover of session {document.name!r} is here, and instants are named where writes are stamped: give the command "
        f"to the controller of a primary: {primaries or 'none is in the session'}",
        session=document.name,
    )
