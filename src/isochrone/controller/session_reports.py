"""What a controller says of the sessions whose mover runs here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from isochrone.controller.auto_resume_reports import auto_resume_report
from isochrone.controller.backlog_reports import backlog_report
from isochrone.controller.capture_reports import Now
from isochrone.controller.history_reports import history_summary
from isochrone.controller.session_settings import settings_report
from isochrone.controller.session_shell import SessionShell, SourceCount
from isochrone.model.states import PairState, SessionState
from isochrone.mover.mover import Mover
from isochrone.mover.waiting import WaitingSummary
from isochrone.report.models import (
    LinkState,
    PairReport,
    ResyncReport,
    RetryReport,
    SessionReport,
    SourceReport,
    TrackRange,
)
from isochrone.report.split_models import SplitReport
from isochrone.report.times import NS_PER_S, TimePoint, duration_text
from isochrone.session.contact import Contact, ContactState
from isochrone.session.document import PairDocument
from isochrone.session.explain import blocked_on, image_incomplete_because, pair_state, unreadable_text
from isochrone.session.session import Session
from isochrone.store.volume import Volume


def session_report(
    shell: SessionShell,
    *,
    volumes: Mapping[str, Volume],
    read_only_reason: str | None,
    staged_track_count: int,
    staged_bytes: int,
    split: SplitReport | None,
    now: Now,
) -> SessionReport:
    """Return the report of one session. `volumes` are the pool's, `read_only_reason` is why it takes no writes."""
    session = shell.session
    document = session.document
    mover = session.mover
    suspended = document.state is SessionState.SUSPENDED
    ended = document.state is SessionState.ENDED
    there = primaries_now(shell, now)
    waiting = mover.waiting_summary()

    def measure(time_ns: int, *, moving: bool = True) -> TimePoint:
        return TimePoint.measure(
            time_ns, now_ns=there.host_ns, wall_now_ns=now.wall_ns, moving=moving and not ended
        )

    return SessionReport(
        name=document.name,
        id=document.session_id,
        epoch=document.epoch,
        state=document.state,
        blocked_on=None if ended else read_only_reason or blocked_on(session, now.host_ns) or None,
        pending_command=_pending_command(session, there),
        suspend_at=there.wall_text_of(document.suspend_at_ns) if document.suspend_at_ns else None,
        suspended_reason=document.reason if suspended else None,
        suspended_cause=document.cause if suspended else None,
        auto_resume=auto_resume_report(session.suspension.outlook(now.host_ns), now),
        suspended_since=now.wall_text_of(document.since_ns) if suspended else None,
        image_complete=document.is_image_complete,
        image_incomplete_reason=image_incomplete_because(session) or None,
        form=measure(mover.form_ns),
        journal=measure(mover.journal_ns),
        # What a suspension at a time has left is of that time, also when a restart has forgotten idle promises up to it.
        consistency=measure(max(mover.consistency_ns, document.suspended_at_ns)),
        recovered=measure(document.recovered_ns, moving=False) if ended else None,
        rewound_from=(
            measure(document.rewound_from_ns, moving=False) if ended and document.rewound_from_ns else None
        ),
        kept_copy=document.kept_copy or None if ended else None,
        recovered_note=document.reason or None if ended else None,
        history=history_summary(session, there),
        split=split,
        settings=settings_report(document),
        resync=_resync_report(shell) if document.state is SessionState.ACTIVE else None,
        retry=_retry_report(mover, waiting, now),
        staged_track_count=staged_track_count,
        staged_bytes=staged_bytes,
        group_count=mover.groups_committed,
        record_count=mover.records_received,
        byte_count=mover.bytes_received,
        records_per_s=shell.progress.records.rate_per_s() or 0.0,
        bytes_per_s=shell.progress.received_bytes.rate_per_s() or 0.0,
        sources=tuple(
            _source_report(session, number, shell.source(number), now, there)
            for number in range(len(document.sources))
        ),
        pairs=tuple(_pair_report(shell, pair, volumes, waiting, there) for pair in document.pairs),
    )


def _retry_report(mover: Mover, waiting: WaitingSummary, now: Now) -> RetryReport:
    age_ns = None if waiting.since_ns is None else max(0, now.host_ns - waiting.since_ns)
    return RetryReport(
        waiting_track_count=waiting.track_count,
        waiting_bytes=waiting.size_bytes,
        oldest_age_s=None if age_ns is None else age_ns / NS_PER_S,
        retry_count=mover.retry_count,
        reason=waiting.reason or None,
    )


def primaries_now(shell: SessionShell, now: Now) -> Now:
    """Return the present of the primaries' host time: our own clock, and what they were heard to be ahead."""
    ahead_ns = max((count.ahead_ns for count in shell.sources.values()), default=0)
    return Now(now.host_ns + ahead_ns, now.wall_ns)


def _pending_command(session: Session, there: Now) -> str | None:
    at_ns = session.document.suspend_at_ns
    if at_ns > there.host_ns:
        in_s = duration_text((at_ns - there.host_ns) / NS_PER_S)
        return f"suspend: at {there.wall_text_of(at_ns)}, in {in_s}"
    if at_ns:
        behind = ", ".join(session.suspension.behind(at_ns)) or "what is received to be committed"
        return f"suspend: at {there.wall_text_of(at_ns)}, which has come; waits for {behind}"
    if session.is_draining:
        return "recover: draining"
    if session.document.state is SessionState.RECOVERY:
        return _recovery_text(session, there)
    if session.is_deleting:
        return "delete: waiting for the primaries to forget the session"
    leaving = [pair.secondary_volume for pair in session.document.pairs if pair.removing]
    return f"remove: {', '.join(leaving)}" if leaving else None


def _recovery_text(session: Session, there: Now) -> str:
    if not session.document.rewound_from_ns:
        return "recover: committing"
    waits = f"; tried again, because {session.recovery.trouble}" if session.recovery.trouble else ""
    return f"recover: going back to {there.wall_text_of(session.document.recovered_ns)}{waits}"


def _source_report(
    session: Session, number: int, count: SourceCount, now: Now, primaries_now: Now
) -> SourceReport:
    source = session.document.sources[number]
    contact = session.contacts[number]
    state = session.mover.sources.get(number)
    waiting_bytes = sum(received.size_bytes for received in state.waiting) if state else 0
    return SourceReport(
        name=source.name,
        address=source.address,
        controller_id=source.controller_id or None,
        link_state=link_state(contact),
        since=now.wall_text_of(contact.since_ns),
        state_age_s=max(0, now.host_ns - contact.since_ns) / NS_PER_S,
        last_error=count.last_error,
        received=TimePoint.measure(
            state.through_ns if state else 0,
            now_ns=primaries_now.host_ns,
            wall_now_ns=now.wall_ns,
            moving=not session.document.is_over,
        ),
        window_bytes=max(0, session.mover.settings.window_bytes - waiting_bytes),
        received_record_count=count.record_count,
        received_bytes=count.received_bytes,
        reconnect_count=max(0, count.connect_count - 1),
        backlog=backlog_report(contact.capture) if contact.capture else None,
    )


def link_state(contact: Contact) -> LinkState:
    """Return the state of a link as it is shown."""
    match contact.state:
        case ContactState.DOWN:
            return LinkState.REFUSED if contact.error.startswith("refused:") else LinkState.DOWN
        case ContactState.DIALING | ContactState.GREETED | ContactState.WELCOMED | ContactState.APPOINTING:
            return LinkState.CONNECTING
        case ContactState.STREAMING:
            return LinkState.UP
        case _:
            assert_never(contact.state)


def _pair_report(
    shell: SessionShell,
    pair: PairDocument,
    volumes: Mapping[str, Volume],
    waiting: WaitingSummary,
    there: Now,
) -> PairReport:
    session = shell.session
    contact = session.contacts[pair.source]
    remaining = None if pair.duplex else _tracks_remaining(contact, pair)
    copy = shell.progress.copies.get(pair.secondary_volume)
    volume = volumes.get(pair.secondary_volume) if pair.is_confirmed else None
    state = pair_state(session, pair)
    told = None if pair.primary_number is None else contact.copies.get(pair.primary_number)
    copying = state is PairState.COPY and remaining is not None
    return PairReport(
        source=session.document.sources[pair.source].name,
        primary_volume=pair.primary_volume,
        secondary_volume=pair.secondary_volume,
        state=state,
        size_bytes=volume.size_bytes if volume else None,
        tracks_to_copy=max(copy.tracks_to_copy, remaining or 0) if copy and copying else remaining,
        tracks_remaining=remaining,
        estimate_s=shell.progress.pair_estimate_s(pair.secondary_volume) if copying else None,
        priority=pair.priority,
        pace=pair.pace,
        reason=_pair_reason(session, contact, pair, waiting),
        image=_pair_image(session, pair, there),
        suspend_at=there.wall_text_of(pair.suspend_at_ns)
        if pair.suspend_at_ns and not pair.suspended
        else None,
        refused=pair.primary_volume in contact.refused and not pair.removing,
        compared_track_count=told.compared_count if told else 0,
        equal_track_count=told.equal_count if told else 0,
        compare_saved_bytes=told.equal_count * shell.track_size_bytes if told else 0,
        unreadable_track_count=told.unreadable_count if told else 0,
        unreadable=tuple(
            TrackRange(track=run.track, track_count=run.count) for run in (told.unreadable if told else ())
        ),
        waiting_track_count=_waiting_tracks(pair, waiting),
    )


def _resync_report(shell: SessionShell) -> ResyncReport | None:
    progress, track_size_bytes = shell.progress, shell.track_size_bytes
    tracks_remaining = sum(copy.tracks_remaining for copy in progress.copies.values())
    if not progress.copies:
        return None
    return ResyncReport(
        tracks_remaining=tracks_remaining,
        bytes_remaining=tracks_remaining * track_size_bytes,
        bytes_per_s=progress.tracks_per_s() * track_size_bytes,
        estimate_s=progress.estimate_s(),
    )


def _tracks_remaining(contact: Contact, pair: PairDocument) -> int | None:
    return None if pair.primary_number is None else contact.tracks_remaining.get(pair.primary_number)


def _waiting_tracks(pair: PairDocument, waiting: WaitingSummary) -> int:
    return 0 if pair.secondary_number is None else waiting.by_volume.get(pair.secondary_number, 0)


def _pair_image(session: Session, pair: PairDocument, there: Now) -> TimePoint | None:
    """Return the time of an image that is behind the session's; None of one that is not, or is no image yet."""
    if not pair.image_ns or not pair.complete:
        return None
    time_ns = pair.image_time_ns(session.mover.consistency_ns)
    return TimePoint.measure(time_ns, now_ns=there.host_ns, wall_now_ns=there.wall_ns)


def _pair_reason(
    session: Session, contact: Contact, pair: PairDocument, waiting: WaitingSummary
) -> str | None:
    if pair.removing:
        return "leaves the session"
    if session.document.state is SessionState.SUSPENDED:
        return session.document.reason
    if pair.suspended:
        return pair.suspend_reason if pair.suspend_at_ns else "its resume is on the way to its primary"
    if _waiting_tracks(pair, waiting):
        return f"tracks wait for the device: {waiting.reason}"
    return contact.refused.get(pair.primary_volume) or unreadable_text(session, pair) or None
