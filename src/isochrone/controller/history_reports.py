"""What a controller says of the past of its sessions."""

from __future__ import annotations

from collections.abc import Callable

from isochrone.controller.capture_reports import Now
from isochrone.report.history_models import (
    GapReport,
    HistoryReport,
    HistorySummary,
    ImageReport,
    ImageVolumeReport,
    KeptVolumeReport,
    NamedInstantReport,
)
from isochrone.report.times import NS_PER_S, TimePoint
from isochrone.session.image_document import ImageDocument
from isochrone.session.images import holds
from isochrone.session.session import Session


def _point(time_ns: int, there: Now) -> TimePoint:
    return TimePoint.measure(time_ns, now_ns=there.host_ns, wall_now_ns=there.wall_ns)


def history_summary(session: Session, there: Now) -> HistorySummary | None:
    """Return a session's history in figures; None when it keeps none."""
    history = session.history
    stats, document = history.stats, history.document
    given_up = _point(document.given_up_ns, there) if document.given_up_ns else None
    if stats is None:
        if not session.document.history_ns_max or session.document.is_over:
            return None
        return HistorySummary(
            window_s=0.0,
            record_count=0,
            held_bytes=0,
            metadata_bytes=0,
            given_up=given_up,
            given_up_reason=document.given_up_reason or None,
            trouble=history.trouble or "no pair has been DUPLEX yet",
        )
    through_ns = max(stats.through_ns, session.mover.consistency_ns)
    return HistorySummary(
        window_s=max(0, through_ns - stats.first_ns) / NS_PER_S,
        record_count=stats.record_count,
        held_bytes=stats.held_bytes,
        metadata_bytes=stats.metadata_bytes,
        given_up=given_up,
        given_up_reason=document.given_up_reason or None,
        trouble=history.trouble or None,
    )


def history_report(session: Session, there: Now) -> HistoryReport:
    """Return which instants of a session can be reached. `there` is the primaries' present."""
    document, reach, stats = session.document, session.history.reach(), session.history.stats
    first_ns = reach.first_ns or 0
    gaps = [gap for gap in reach.gaps if gap.to_ns is None or gap.to_ns > first_ns]
    return HistoryReport(
        session=document.name,
        window_s_max=document.history_ns_max / NS_PER_S,
        bytes_max=document.history_bytes_max,
        first=None if reach.first_ns is None else _point(reach.first_ns, there),
        through=_point(reach.through_ns, there),
        summary=history_summary(session, there),
        gaps=tuple(
            GapReport(
                since=_point(gap.from_ns, there),
                until=None if gap.to_ns is None else _point(gap.to_ns, there),
            )
            for gap in gaps
        ),
        instants=tuple(
            NamedInstantReport(
                text=instant.text,
                time=_point(instant.time_ns, there),
                source=document.sources[instant.source].name,
                reachable=holds(reach, session, instant.time_ns),
            )
            for instant in session.history.document.instants
        ),
        volumes=tuple(
            KeptVolumeReport(
                volume=session.pool.volume_by_number(stay.base).name,
                since=_point(stay.from_ns, there),
                until=None if stay.until_ns is None else _point(stay.until_ns, there),
            )
            for stay in (stats.volumes if stats else ())
        ),
    )


def image_report(
    document: ImageDocument,
    clients_of: Callable[[str], list[str]],
    now: Now,
    *,
    made_in_ms: float | None = None,
) -> ImageReport:
    """Return the report of one image. `clients_of` names the NBD clients of a volume."""
    return ImageReport(
        session=document.session,
        image=document.image,
        time=_point(document.at_ns, now),
        made=now.wall_text_of(document.made_ns),
        volumes=tuple(
            ImageVolumeReport(
                secondary=member.secondary, volume=member.volume, clients=tuple(clients_of(member.volume))
            )
            for member in document.members
        ),
        left_out=document.left_out,
        made_in_ms=made_in_ms,
    )
