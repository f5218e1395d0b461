"""Both histories of a recovered session, as reports."""

from __future__ import annotations

from collections.abc import Mapping

from isochrone.capture.stream import SessionStream
from isochrone.controller.capture_reports import Now
from isochrone.model.split import Divergence, Side
from isochrone.model.states import SessionState
from isochrone.report.split_models import SideReport, SplitReport, WrittenVolume
from isochrone.report.times import NOT_MEASURED, TimePoint
from isochrone.session.document import SessionDocument
from isochrone.session.histories import SideHistory, histories
from isochrone.session.session import Session


def session_split_report(
    session: Session, controller_name: str, track_size_bytes: int, now: Now
) -> SplitReport | None:
    """Return what both sides wrote since `session` was recovered here; None while it is not."""
    document = session.document
    if document.state is not SessionState.ENDED:
        return None
    found = histories(document, session.own_marks.written(document.session_id))
    sides = [_side(Side.PRIMARY, side.name, side, track_size_bytes, now) for side in found.primaries]
    sides.append(_side(Side.SECONDARY, controller_name, found.secondary, track_size_bytes, now))
    return SplitReport(
        divergence=found.divergence,
        last_common=_point(found.last_common_ns, now),
        sides=tuple(sides),
        commands=(discard_secondary_command(document.name), _discard_primary_hint(document, controller_name)),
    )


def capture_split_report(
    stream: SessionStream, controller_name: str, track_size_bytes: int, now: Now
) -> SplitReport | None:
    """Return what this fenced primary wrote since the recovery; None while it is not fenced."""
    document = stream.document
    if not document.ended or not document.recovered_ns:
        return None
    last_ns = stream.last_write_ns
    own = SideHistory(
        controller_name,
        last_ns > document.recovered_ns,
        last_ns,
        {c.volume.name: c.change_map.marked_count for _, c in sorted(stream.volumes.items())},
    )
    return SplitReport(
        divergence=Divergence.UNKNOWN,
        last_common=_point(document.recovered_ns, now),
        sides=(_side(Side.PRIMARY, controller_name, own, track_size_bytes, now),),
        commands=(
            f"at {document.mover_name}: {discard_secondary_command(document.session_name)}",
            discard_primary_command(document.session_name, document.mover_name),
        ),
    )


def discard_secondary_command(session: str) -> str:
    """Return the command that gives the recovered site's writes up, for that site."""
    return f"isochrone session resync {session} --discard secondary"


def discard_primary_command(session: str, recovered_at: str) -> str:
    """Return the command that gives the old primary's writes up, for that primary."""
    return f"isochrone session resync {session} --discard primary --primary {recovered_at}=ADDRESS"


def _discard_primary_hint(document: SessionDocument, controller_name: str) -> str:
    names = [document.sources[source].name for source in sorted(document.sources_in_use)]
    if len(names) == 1:
        return f"at {names[0]}: {discard_primary_command(document.name, controller_name)}"
    return (
        f"--discard primary is not possible with {len(names)} primary controllers: delete the session at all of "
        "them and here, and create one in the other direction, with one of them as the secondary of all volumes"
    )


def _point(time_ns: int, now: Now) -> TimePoint:
    return TimePoint.measure(time_ns, now_ns=now.host_ns, wall_now_ns=now.wall_ns, moving=False)


def _side(side: Side, name: str, history: SideHistory, track_size_bytes: int, now: Now) -> SideReport:
    return SideReport(
        side=side,
        name=name,
        wrote=history.wrote,
        last_write=NOT_MEASURED if not history.last_write_ns else _point(history.last_write_ns, now),
        volumes=_written(history.tracks, track_size_bytes),
    )


def _written(tracks: Mapping[str, int | None], track_size_bytes: int) -> tuple[WrittenVolume, ...]:
    return tuple(
        WrittenVolume(
            name=name,
            track_count=count,
            size_bytes=None if count is None else count * track_size_bytes,
        )
        for name, count in tracks.items()
    )
