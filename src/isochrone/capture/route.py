"""Where the writes of one volume go, and when they go nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isochrone.capture.activity import DurableMarks
from isochrone.capture.activity_map import ActivityMap
from isochrone.capture.backlog import Backlog
from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.copier import Copier
from isochrone.capture.delays import DelayTotals
from isochrone.capture.document import CaptureDocument
from isochrone.capture.pacing import CURVES, VolumePacing
from isochrone.capture.stream import SessionStream
from isochrone.model.choices import OverflowPolicy, PaceLevel


@dataclass(slots=True)
class Route:
    """Where the writes of one volume go; rebuilt whenever a session changes.

    Attributes:
        activities: activity maps to enter, of sessions whose marks are durable.
        maps: change maps to mark, of every session that holds the volume.
        backlogs: streams that capture it.
        copiers: copiers that still have images of it to bring; empty in the common case.
        streams: the sessions of `backlogs`.
        pacings: how each of them paces the volume; empty where none does.
        waits: the session whose writers wait for room at the limit, None when they do not.
        refusal: why writes are refused, "" when they are not.
        is_noted: the maps' notes say already that something was written since the last tick.
    """

    activities: tuple[ActivityMap, ...] = ()
    maps: tuple[ChangeMap, ...] = ()
    backlogs: tuple[Backlog, ...] = ()
    copiers: tuple[tuple[Backlog, Copier], ...] = ()
    streams: tuple[SessionStream, ...] = ()
    pacings: tuple[VolumePacing, ...] = ()
    waits: DelayTotals | None = None
    refusal: str = ""
    is_noted: bool = False


def volume_pacing(stream: SessionStream, captured: CapturedVolume) -> VolumePacing | None:
    """Return how a session paces one of its volumes, None when it does not."""
    policy = stream.document.policy
    level = captured.pace or policy.pace_level
    if (
        policy.overflow_policy is OverflowPolicy.SUSPEND
        or level is PaceLevel.OFF
        or not policy.pace_delay_ns_max
    ):
        return None
    return VolumePacing(CURVES[level], policy.pace_delay_ns_max, captured.delays, stream.delay_totals)


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


def build_routes(streams: Iterable[SessionStream]) -> dict[int, Route]:
    """Return the route of every captured volume, by its number."""
    routes: dict[int, Route] = {}
    for stream in streams:
        for number, captured in stream.volumes.items():
            route = routes.setdefault(number, Route())
            route.maps += (captured.change_map,)
            if captured.activity is not None:
                route.activities += (captured.activity,)
            if stream.is_capturing and not captured.suspended_ns:
                _add_stream(route, stream, captured)
            route.refusal = route.refusal or write_refusal(stream.document)
    return routes


def _add_stream(route: Route, stream: SessionStream, captured: CapturedVolume) -> None:
    """The session captures the volume."""
    route.backlogs += (stream.backlog,)
    route.streams += (stream,)
    if captured.copier:
        route.copiers += ((stream.backlog, captured.copier),)
    if (pacing := volume_pacing(stream, captured)) is not None:
        route.pacings += (pacing,)
    if stream.document.policy.overflow_policy is OverflowPolicy.HOLD:
        route.waits = stream.delay_totals


def durable_marks(streams: Iterable[SessionStream]) -> dict[int, tuple[DurableMarks, ...]]:
    """Return what has to be prepared for writes to each volume whose marks are durable, by its number."""
    durable: dict[int, tuple[DurableMarks, ...]] = {}
    for stream in streams:
        for number, captured in stream.volumes.items():
            if captured.activity is not None:
                marks = DurableMarks(captured.activity, captured.change_map)
                durable[number] = (*durable.get(number, ()), marks)
    return durable
