"""Where the writes of one volume go, and when they go nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.capture.activity_map import ActivityMap
from isochrone.capture.backlog import Backlog
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.copier import Copier
from isochrone.capture.document import CaptureDocument
from isochrone.capture.stream import SessionStream


@dataclass(slots=True)
class Route:
    """Where the writes of one volume go; rebuilt whenever a session changes.

    Attributes:
        activities: activity maps to enter, of sessions whose marks are durable.
        maps: change maps to mark, of every session that holds the volume.
        backlogs: streams that capture it.
        copiers: copiers that still have images of it to bring; empty in the common case.
        streams: the sessions of `backlogs`.
        refusal: why writes are refused, "" when they are not.
        is_noted: the maps' notes say already that something was written since the last tick.
    """

    activities: tuple[ActivityMap, ...] = ()
    maps: tuple[ChangeMap, ...] = ()
    backlogs: tuple[Backlog, ...] = ()
    copiers: tuple[tuple[Backlog, Copier], ...] = ()
    streams: tuple[SessionStream, ...] = ()
    refusal: str = ""
    is_noted: bool = False


def write_refusal(document: CaptureDocument) -> str:
    """Return why application writes to the volumes of a session are refused, "" when they are not."""
    if document.ended and document.reason:
        return f"session {document.session_name!r}: {document.reason}"
    if document.ended:
        return (
            f"session {document.session_name!r} was recovered at {document.mover_name} under epoch {document.epoch}: this "
            f"volume is no longer the primary; `isochrone session delete {document.session_name}` here makes it writable"
        )
    if document.quiesced:
        return f"session {document.session_name!r} is switching over to {document.mover_name}: writes are refused"
    return ""
