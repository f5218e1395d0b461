"""Copies, relations and schedules for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isochrone.model.sizes import format_size
from isochrone.report.copy_models import (
    CopiesReport,
    CopiesSummary,
    CopyReport,
    DiffReport,
    RelationReport,
    ScheduleReport,
)
from isochrone.report.tables import facts_table, indented, row, table_of
from isochrone.report.times import duration_text

_NONE: Final = "-"
_BAD: Final = "bold red"
_VOLUMES_SHOWN: Final = 4
"""Of one copy, in a list of copies."""


def copies_lines(summary: CopiesSummary) -> list[RenderableType]:
    """Copies in a line of the status, and a line for each schedule that is in trouble; nothing when there is nothing."""
    lines: list[RenderableType] = []
    if summary.copy_count or summary.relation_count or summary.schedules:
        text = Text(
            f"copies {summary.copy_count} with {summary.volume_count} volumes  relations {summary.relation_count}"
            f"  schedules {len(summary.schedules)}"
        )
        if summary.waiting_count:
            text.append(f"  {summary.waiting_count} wait to be deleted", style=_BAD)
        lines.append(text)
    for schedule in summary.schedules:
        lines += _troubles(schedule)
    return lines


def copies_view(report: CopiesReport) -> RenderableType:
    """All copies, relations and schedules; parts that are empty are left out."""
    parts: list[RenderableType] = []
    if report.copies or not (report.relations or report.schedules):
        parts.append(copies_table(report.copies))
    if report.relations:
        parts += [Text(), relations_table(report.relations)]
    if report.schedules:
        parts += [Text(), schedules_table(report.schedules)]
        for schedule in report.schedules:
            parts += _troubles(schedule)
    return Group(*parts)


def copies_table(copies: Sequence[CopyReport]) -> Table:
    """One line a copy."""
    table = table_of(("COPY", "TAKEN", "KIND", "VOLUMES", "EXCLUSIVE>", "SHARED>", "EXPIRES", "BY"))
    for copy in copies:
        sources = [volume.source for volume in copy.volumes]
        more = f" +{len(sources) - _VOLUMES_SHOWN}" if len(sources) > _VOLUMES_SHOWN else ""
        row(
            table,
            copy.name,
            copy.taken,
            "writable" if copy.writable else "snapshot",
            " ".join(sources[:_VOLUMES_SHOWN]) + more,
            format_size(copy.exclusive_bytes),
            format_size(copy.shared_bytes),
            copy.expires or _NONE,
            copy.schedule or _NONE,
        )
    return table


def copy_view(copy: CopyReport) -> RenderableType:
    """One copy with its volumes."""
    facts: list[tuple[str, str | Text]] = [
        ("copy", Text(copy.name, style="bold")),
        ("taken", f"{copy.taken} (host time {copy.taken_ns} ns)"),
        ("kind", "writable" if copy.writable else "snapshot, read-only"),
        ("expires", copy.expires or "never"),
        ("made by schedule", copy.schedule or _NONE),
        ("exclusive", format_size(copy.exclusive_bytes)),
        ("shared", format_size(copy.shared_bytes)),
    ]
    if copy.hold_ms is not None:
        facts.append(("writes were held for", f"{copy.hold_ms:.2f} ms"))
    if copy.waits_because is not None:
        facts.append(("waits to be deleted", Text(copy.waits_because, style=_BAD)))
    table = table_of(("VOLUME", "OF", "SIZE>", "MAPPED>", "EXCLUSIVE>", "SHARED>", "OPEN>", "COPIES OF IT"))
    for volume in copy.volumes:
        source = Text(volume.source)
        if volume.incomplete:
            source.append(" (no image: its first copy was running)", style=_BAD)
        row(
            table,
            volume.volume,
            source,
            format_size(volume.size_bytes),
            format_size(volume.mapped_bytes),
            format_size(volume.exclusive_bytes),
            format_size(volume.shared_bytes),
            str(volume.connection_count),
            " ".join(volume.children) or _NONE,
        )
    return Group(facts_table(facts), indented(table))


def relations_table(relations: Sequence[RelationReport]) -> Table:
    """One line a relation."""
    table = table_of(("SOURCE", "TARGET", "RANGES", "ESTABLISHED", "REFRESHED", "DIFFERS>"))
    for relation in relations:
        ranges = "all" if relation.extents is None else str(len(relation.extents))
        differs = relation.differing_bytes
        row(
            table,
            relation.source,
            relation.target,
            ranges,
            relation.established,
            relation.refreshed,
            _NONE if differs is None else format_size(differs),
        )
    return table


def relation_view(relation: RelationReport) -> RenderableType:
    """One relation, and what the command did."""
    parts: list[RenderableType] = [relations_table([relation])]
    if relation.hold_ms is not None:
        changed = relation.changed_bytes
        what = "" if changed is None else f"{format_size(changed)} changed; "
        parts.append(Text(f"{what}writes were held for {relation.hold_ms:.2f} ms"))
    return Group(*parts)


def schedules_table(schedules: Sequence[ScheduleReport]) -> Table:
    """One line a schedule."""
    table = table_of(("SCHEDULE", "VOLUMES", "EVERY", "KEEP>", "COPIES>", "LAST", "NEXT"))
    for schedule in schedules:
        row(
            table,
            schedule.name,
            " ".join(schedule.volumes),
            duration_text(schedule.every_s),
            str(schedule.keep),
            str(schedule.copy_count),
            schedule.last_run or _NONE,
            schedule.next_run,
        )
    return table


def diff_view(diff: DiffReport) -> RenderableType:
    """The ranges, and their sum."""
    table = table_of(("OFFSET>", "LENGTH>", ""))
    for extent in diff.changed:
        row(table, str(extent.offset), str(extent.length), format_size(extent.length))
    total = Text(
        f"{len(diff.changed)} ranges, {format_size(diff.changed_bytes)} of {format_size(diff.size_bytes)} of "
        f"{diff.volume} may differ from {diff.base}"
    )
    return Group(table, total) if diff.changed else total


def _troubles(schedule: ScheduleReport) -> list[RenderableType]:
    troubles: list[RenderableType] = []
    if schedule.failure is not None:
        troubles.append(Text(f"  schedule {schedule.name} failed: {schedule.failure}", style=_BAD))
    if schedule.waits_because is not None:
        troubles.append(Text(f"  schedule {schedule.name}: {schedule.waits_because}", style=_BAD))
    return troubles
