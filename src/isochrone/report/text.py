"""Reports as rich renderables for a terminal: what an operator asks first stands first.

Every text that came from outside goes in as `Text`, never as markup: "[Errno 111]" is a message, not a style.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isochrone.model.sizes import format_size
from isochrone.model.states import PairState, SessionState
from isochrone.report.backlog_models import BacklogReport, SpillReport
from isochrone.report.copy_text import copies_lines
from isochrone.report.history_text import summary_line
from isochrone.report.models import (
    CaptureReport,
    ControllerReport,
    LinkState,
    PairReport,
    PoolReport,
    PoolState,
    ResyncReport,
    SessionReport,
    SessionSettings,
    SourceReport,
    StatusReport,
    VolumeReport,
)
from isochrone.report.recovery_text import recovered_lines
from isochrone.report.split_text import short_verdict, split_view
from isochrone.report.tables import facts_table, indented, row, table_of
from isochrone.report.times import TimePoint, duration_text

NONE: Final = "-"
"""Shown where nothing was measured."""

_GOOD: Final = "green"
_BUSY: Final = "yellow"
_BAD: Final = "bold red"
_STYLES: Final = {
    PairState.DUPLEX: _GOOD,
    PairState.COPY: _BUSY,
    PairState.PENDING: _BUSY,
    SessionState.ACTIVE: _GOOD,
    SessionState.RECOVERY: _BUSY,
    SessionState.SUSPENDED: _BAD,
    PoolState.SERVING: _GOOD,
    PoolState.FULL: _BAD,
    PoolState.READ_ONLY: _BAD,
    LinkState.UP: _GOOD,
    LinkState.CONNECTING: _BUSY,
    LinkState.DOWN: _BAD,
    LinkState.REFUSED: _BAD,
}


def status_view(status: StatusReport) -> RenderableType:
    """Everything of one controller; parts that are empty are left out."""
    parts: list[RenderableType] = [controller_view(status.controller), pool_line(status.pool)]
    parts += copies_lines(status.copies)
    if status.volumes:
        parts += [Text(), volumes_table(status.volumes)]
    for session in status.sessions:
        parts += [Text(), session_view(session)]
    for capture in status.captures:
        parts += [Text(), capture_view(capture)]
    return Group(*parts)


def controller_view(controller: ControllerReport) -> RenderableType:
    """Who answers, since when, and where it listens."""
    memory = format_size(controller.memory_bytes)
    if controller.memory_bytes_max is not None:
        memory += f" of at most {format_size(controller.memory_bytes_max)}"
    first = Text.assemble(
        "controller ",
        (controller.name, "bold"),
        f"  version {controller.version}  up {duration_text(controller.uptime_s)}"
        f"  memory {memory}  {controller.wall_time}",
    )
    listens = "   ".join(
        f"{what} {' '.join(addresses) or NONE}"
        for what, addresses in (
            ("nbd", controller.nbd_addresses),
            ("link", controller.link_addresses),
            ("api", controller.api_addresses),
        )
    )
    return Group(first, Text("  " + listens, style="dim"))


def pool_line(pool: PoolReport) -> Text:
    """The pool in one line, with the reason when it takes no writes."""
    line = Text.assemble(
        "pool ",
        _state(pool.state),
        f"  {_share(pool.used_bytes, pool.size_bytes)} used  {format_size(pool.free_bytes)} free  "
        f"log {_share(pool.log_used_bytes, pool.log_bytes_max)}  checkpoint {_age(pool.checkpoint_age_s)}",
    )
    if pool.read_only_reason is not None:
        line.append(f"\n  read-only: {pool.read_only_reason}", style=_BAD)
    elif pool.checkpoint_waits_because is not None:
        line.append(f"\n  checkpoint waits: {pool.checkpoint_waits_because}", style=_BUSY)
    if pool.warning_percent is not None:
        line.append(f"\n  {pool.warning_percent} % of it are used: delete copies or trim volumes", style=_BAD)
    return line


def pool_view(pool: PoolReport) -> RenderableType:
    """All of the pool, one fact a line."""
    facts: list[tuple[str, str | Text]] = [
        ("uuid", pool.uuid),
        ("path", pool.path),
        ("state", _state(pool.state)),
        ("read-only reason", pool.read_only_reason or NONE),
        ("checkpoint waits for", pool.checkpoint_waits_because or NONE),
        ("size", f"{format_size(pool.size_bytes)} ({pool.track_count} tracks of {pool.track_size_bytes} B)"),
        ("used", _tracks(pool.used_bytes, pool.used_track_count)),
        (
            "of these staged",
            _tracks(pool.staged_track_count * pool.track_size_bytes, pool.staged_track_count),
        ),
        ("free", _tracks(pool.free_bytes, pool.free_track_count)),
        ("free after next sync", _tracks(pool.pending_free_bytes, pool.pending_free_track_count)),
        ("in quarantine", f"{pool.quarantined_track_count} tracks that the device could not write"),
        ("volumes", str(pool.volume_count)),
        ("pointer log", _share(pool.log_used_bytes, pool.log_bytes_max)),
        ("checkpoint", _age(pool.checkpoint_age_s)),
    ]
    return facts_table(facts)


def volumes_table(volumes: Iterable[VolumeReport]) -> Table:
    """One line a volume."""
    table = table_of(
        ("VOLUME", "SIZE>", "MAPPED>", "ROLE", "SESSIONS", "EXPORT", "OPEN>", "READS>", "WRITES>", "WRITTEN>")
    )
    for volume in volumes:
        export = Text(volume.export_state.value + (" read-only" if volume.read_only else ""))
        if volume.export_reason is not None:
            export.append(f" ({volume.export_reason})", style="dim")
        row(
            table,
            volume.name,
            format_size(volume.size_bytes),
            format_size(volume.mapped_bytes),
            volume.role.value,
            " ".join(volume.sessions) or (f"{volume.kind} of {volume.copy_of}" if volume.copy_of else NONE),
            export,
            str(volume.connection_count),
            str(volume.read_count),
            str(volume.write_count),
            format_size(volume.written_bytes),
        )
    return table


def sessions_table(sessions: Iterable[SessionReport]) -> Table:
    """One line a session whose mover is here."""
    table = table_of(
        ("SESSION", "STATE", "PAIRS", "F LAG>", "J LAG>", "C LAG>", "RATE>", "IMAGE", "BLOCKED ON")
    )
    for session in sessions:
        row(
            table,
            session.name,
            _state(session.state),
            _pair_counts(session.pairs),
            lag_text(session.form),
            lag_text(session.journal),
            lag_text(session.consistency),
            f"{format_size(session.bytes_per_s)}/s",
            "complete" if session.image_complete else "incomplete",
            session.blocked_on
            or session.suspended_reason
            or short_verdict(session.name, session.split)
            or NONE,
        )
    return table


def session_view(session: SessionReport) -> RenderableType:
    """One session in full: times, what holds it, its sources and pairs."""
    settings = session.settings
    lines: list[RenderableType] = [
        Text.assemble(
            "session ",
            (session.name, "bold"),
            " ",
            _state(session.state),
            f"  epoch {session.epoch}  {_pair_counts(session.pairs)}  {_image(session)}",
        ),
        *_session_times(session),
        Text(
            f"  {session.records_per_s:.0f} records/s  {format_size(session.bytes_per_s)}/s  "
            f"staged {format_size(session.staged_bytes)}  group every {settings.group_interval_ms:g} ms  "
            f"compression {settings.compression}  overflow {settings.overflow_policy}  "
            f"marks {settings.mark_policy}",
            style="dim",
        ),
    ]
    if session.history is not None:
        lines.append(Text(f"  {summary_line(session.history)}", style="dim"))
    if session.resync is not None:
        lines.append(Text(f"  {_resync(session.resync, settings)}", style=_BUSY))
    if session.retry.waiting_track_count:
        lines.append(Text(f"  {_waiting(session)}", style=_BUSY))
    if session.suspended_reason is not None:
        lines.append(
            Text(
                f"  suspended since {session.suspended_since or NONE}: {session.suspended_reason}\n"
                f"  the image stays as of {session.consistency.wall or 'no time yet'}; applications run, changes are marked",
                style=_BAD,
            )
        )
    if session.auto_resume is not None:
        lines.append(Text(f"  {session.auto_resume.text}", style=_BUSY))
    if session.blocked_on is not None:
        lines.append(Text(f"  blocked on {session.blocked_on}", style=_BAD))
    if session.split is not None:
        lines.append(split_view(session.split))
    if session.pending_command is not None:
        lines.append(Text(f"  pending command: {session.pending_command}", style=_BUSY))
    lines += [
        Text(f"  {source.name}: {line}", style=_BAD)
        for source in session.sources
        if source.backlog is not None
        for line in delay_lines(source.backlog)
    ]
    return Group(*lines, indented(sources_table(session.sources)), indented(pairs_table(session.pairs)))


def _resync(resync: ResyncReport, settings: SessionSettings) -> str:
    limit = (
        f" (at most {format_size(settings.copy_rate_bytes_max)}/s)" if settings.copy_rate_bytes_max else ""
    )
    left = "no estimate yet" if resync.estimate_s is None else f"{duration_text(resync.estimate_s)} left"
    return (
        f"copying: {format_size(resync.bytes_remaining)} to read at {format_size(resync.bytes_per_s)}/s{limit}, {left}; "
        f"beside writes at most {settings.copy_share_percent} % of the link"
    )


def sources_table(sources: Iterable[SourceReport]) -> Table:
    """One line a primary controller of a session."""
    table = table_of(
        ("FROM", "ADDRESS", "LINK", "FOR", "RECEIVED LAG>", "WINDOW>", "RECEIVED>", "LAST ERROR")
    )
    for source in sources:
        row(
            table,
            source.name,
            source.address,
            _state(source.link_state),
            duration_text(source.state_age_s),
            lag_text(source.received),
            format_size(source.window_bytes),
            format_size(source.received_bytes),
            source.last_error or NONE,
        )
    return table


def pairs_table(pairs: Iterable[PairReport]) -> Table:
    """One line a pair."""
    table = table_of(
        ("PRIMARY", "SECONDARY", "STATE", "SIZE>", "COPIED>", "TRACKS LEFT>", "ESTIMATE>", "REASON")
    )
    for pair in pairs:
        row(
            table,
            f"{pair.source}:{pair.primary_volume}",
            pair.secondary_volume,
            _pair_state(pair),
            NONE if pair.size_bytes is None else format_size(pair.size_bytes),
            NONE if pair.copied_percent is None else f"{pair.copied_percent:.1f} %",
            NONE if pair.tracks_remaining is None else str(pair.tracks_remaining),
            NONE if pair.estimate_s is None else duration_text(pair.estimate_s),
            "; ".join(part for part in (pair.reason, _image_of(pair), _compared(pair)) if part) or NONE,
        )
    return table


def _image_of(pair: PairReport) -> str:
    if pair.image is not None:
        return f"image of {pair.image.wall}"
    return f"will be suspended at {pair.suspend_at}" if pair.suspend_at else ""


def _compared(pair: PairReport) -> str:
    if not pair.compared_track_count:
        return ""
    return (
        f"{pair.compared_track_count} tracks compared, {pair.equal_track_count} equal: "
        f"{format_size(pair.compare_saved_bytes)} not sent"
    )


def captures_table(captures: Iterable[CaptureReport]) -> Table:
    """One line a session that this controller feeds."""
    table = table_of(
        (
            "SESSION",
            "STATE",
            "MOVER",
            "LINK",
            "SIDE FILE",
            "UNSENT>",
            "J LAG>",
            "MARKED>",
            "APPLICATION WRITES",
        )
    )
    for capture in captures:
        row(
            table,
            capture.name,
            _state(capture.state),
            capture.mover_name or NONE,
            _state(capture.link_state),
            _share(capture.side_file_bytes, capture.side_file_bytes_max),
            format_size(capture.unsent_bytes),
            lag_text(capture.hardened),
            str(sum(volume.marked_track_count for volume in capture.volumes)),
            writes_text(capture),
        )
    return table


def capture_view(capture: CaptureReport) -> RenderableType:
    """One session in full, as its primary sees it: above all, what the application's writes feel now."""
    lines: list[RenderableType] = [
        Text.assemble(
            "feeding session ",
            (capture.name, "bold"),
            " ",
            _state(capture.state),
            f"  epoch {capture.epoch}  mover {capture.mover_name or NONE}  link ",
            _state(capture.link_state),
            f" since {capture.link_since}",
        ),
        Text(
            f"  side file {_share(capture.side_file_bytes, capture.side_file_bytes_max)}  "
            f"unsent {format_size(capture.unsent_bytes)}  J lag {lag_text(capture.hardened)}  "
            f"C lag {lag_text(capture.consistency)}"
        ),
        *([Text(f"  spill {spill_text(capture.spill)}")] if capture.spill else []),
        *_cut_line(capture),
        Text(f"  application writes: {writes_text(capture)}", style=_BAD if capture.quiesced else ""),
    ]
    if capture.backlog is not None:
        lines += [Text(f"  {line}", style=_BAD) for line in delay_lines(capture.backlog)]
    lines.append(Text(f"  marks: {marks_text(capture)}"))
    if capture.suspended_reason is not None:
        lines.append(
            Text(
                f"  suspended since {capture.suspended_since or NONE}: {capture.suspended_reason}", style=_BAD
            )
        )
    if capture.split is not None:
        lines.append(split_view(capture.split))
    table = table_of(("VOLUME", "MARKED TRACKS>", "TRACKS TO COPY>"))
    for volume in capture.volumes:
        row(table, volume.name, str(volume.marked_track_count), str(volume.tracks_remaining))
    return Group(*lines, indented(table))


def spill_text(spill: SpillReport) -> str:
    """How much of the side file is on disk, and what is wrong with that."""
    text = f"{format_size(spill.spilled_bytes)} on disk, files take {_share(spill.reserved_bytes, spill.bytes_max)}"
    return f"{text}; it cannot be written: {spill.trouble}" if spill.trouble else text


def _cut_line(capture: CaptureReport) -> list[Text]:
    if capture.cut is None:
        return []
    return [Text(f"  stream cut at {capture.cut.wall} to suspend: later writes are only marked", style=_BUSY)]


def delay_lines(backlog: BacklogReport) -> list[str]:
    """Who is delayed, by how much and why: a line a volume; and when the side file will be full."""
    why = f"backlog {format_size(backlog.used_bytes)} of {format_size(backlog.capacity_bytes)}"
    lines = [
        f"{delay.volume} +{delay.delay_ms_p99:.1f} ms p99: {why}"
        for delay in backlog.volumes
        if delay.write_count
    ]
    if backlog.waiting_write_count:
        lines.append(f"{backlog.waiting_write_count} writes wait for room: {why}")
    if backlog.full_in_s is not None:
        lines.append(f"at this rate the side file is full in {duration_text(backlog.full_in_s)}: {why}")
    if backlog.spill_trouble is not None:
        lines.append(f"the spill cannot be written: {backlog.spill_trouble}")
    return lines


def writes_text(capture: CaptureReport) -> str:
    """What happens to application writes at this moment; never silent about one that is held."""
    pacing = capture.pacing
    if capture.state is SessionState.ENDED:
        return "refused: the session was recovered at the other site"
    if capture.quiesced:
        return "refused for a planned switchover"
    if pacing.delay_ms > 0 or pacing.held_write_count > 0:
        return (
            f"paced by {pacing.delay_ms:.1f} ms of at most {pacing.delay_ms_max:g} ms, "
            f"{pacing.held_write_count} held now"
        )
    if pacing.paced_write_count > 0:
        return f"not held ({pacing.paced_write_count} were paced, {duration_text(pacing.paced_s)} in sum)"
    return "not held"


def marks_text(capture: CaptureReport) -> str:
    """How many tracks are marked, and when marks were last discarded."""
    marks = capture.marks
    count = sum(volume.marked_track_count for volume in capture.volumes)
    parts = [
        f"{marks.policy}, {count} tracks",
        f"toggled {marks.toggled or NONE}",
        f"discarded {marks.discarded or NONE}",
    ]
    if marks.track_discard_count:
        parts.append(f"{marks.track_discard_count} singly, last {marks.track_discarded or NONE}")
    parts += [
        f"{volume.name}: {volume.suspected_region_count} of {volume.region_count} regions suspected at the start"
        for volume in capture.volumes
        if volume.suspected_region_count is not None
    ]
    return ", ".join(parts)


def lag_text(point: TimePoint) -> str:
    """The lag of a time, or `-` when there is none to tell."""
    return NONE if point.lag_ms is None else duration_text(point.lag_ms / 1000)


def _session_times(session: SessionReport) -> list[Text]:
    if session.recovered is not None and session.recovered.time_ns:
        return [Text(f"  {line}", style="bold") for line in recovered_lines(session)]
    consistency = session.consistency
    return [
        Text.assemble(
            f"  lag  F {lag_text(session.form)}  J {lag_text(session.journal)}  C ",
            (lag_text(consistency), "bold"),
            f"  committed image of {consistency.wall or 'no time yet'}",
        )
    ]


def _waiting(session: SessionReport) -> str:
    retry = session.retry
    return (
        f"{retry.waiting_track_count} tracks wait for the device, the oldest for {duration_text(retry.oldest_age_s or 0)}; "
        f"suspends past {session.settings.retry_tracks_max} tracks or {session.settings.retry_ms_max / 1000:g} s; "
        f"{retry.retry_count} tries"
    )


def _image(session: SessionReport) -> str:
    if session.image_complete:
        return "image complete"
    return f"image NOT complete: {session.image_incomplete_reason or 'no reason given'}"


def _pair_counts(pairs: Sequence[PairReport]) -> str:
    counts = {state: sum(pair.state is state for pair in pairs) for state in PairState}
    return "  ".join(f"{count} {state}" for state, count in counts.items() if count) or "no pairs"


def _pair_state(pair: PairReport) -> Text:
    text = _state(pair.state)
    if pair.waiting_track_count:
        text.append(f", {pair.waiting_track_count} waiting", style=_BUSY)
    return text


def _state(state: PairState | SessionState | PoolState | LinkState) -> Text:
    return Text(state.value, style=_STYLES.get(state, ""))


def _share(part_bytes: int, whole_bytes: int) -> str:
    percent = f" ({100 * part_bytes / whole_bytes:.0f} %)" if whole_bytes else ""
    return f"{format_size(part_bytes)} of {format_size(whole_bytes)}{percent}"


def _tracks(size_bytes: int, track_count: int) -> str:
    return f"{format_size(size_bytes)} ({track_count} tracks)"


def _age(age_s: float | None) -> str:
    return "never" if age_s is None else f"{duration_text(age_s)} ago"
