"""Reports of copies with every field in use."""

from __future__ import annotations

from typing import Final

from isochrone.report.copy_models import (
    ChangedExtent,
    CopiesSummary,
    CopyReport,
    CopyVolumeReport,
    DiffReport,
    ExtentReport,
    RelationReport,
    ScheduleReport,
)

COPY: Final = CopyReport(
    name="monday",
    writable=False,
    taken="2027-01-15T07:00:00.000Z",
    taken_ns=960_000_000_000,
    expires="2027-01-22T07:00:00.000Z",
    schedule="daily",
    waits_because="copy 'monday' cannot be deleted: db@monday-again [was] made from db@monday",
    exclusive_bytes=3 << 20,
    shared_bytes=5 << 20,
    volumes=(
        CopyVolumeReport(
            source="db",
            volume="db@monday",
            size_bytes=1 << 30,
            mapped_bytes=8 << 20,
            exclusive_bytes=3 << 20,
            shared_bytes=5 << 20,
            connection_count=1,
            children=("db@monday@again",),
        ),
    ),
    hold_ms=0.25,
)
RELATION: Final = RelationReport(
    source="db",
    target="db-test",
    extents=(ExtentReport(source_offset=0, target_offset=4096, length=8192),),
    established="2027-01-15T07:00:00.000Z",
    refreshed="2027-01-15T07:30:00.000Z",
    differing_bytes=1 << 20,
    changed_bytes=2 << 20,
    hold_ms=1.5,
)
SCHEDULE: Final = ScheduleReport(
    name="daily",
    volumes=("db",),
    every_s=86_400.0,
    keep=7,
    copy_count=8,
    last_run="2027-01-15T00:00:00.000Z",
    last_run_age_s=28_800.0,
    next_run="2027-01-16T00:00:00.000Z",
    failure="no volume 'db' here [see list]",
    waits_because="copy 'monday' cannot be deleted",
)
DIFF: Final = DiffReport(
    base="db@monday",
    volume="db",
    size_bytes=1 << 30,
    end_offset=1 << 30,
    changed=(ChangedExtent(offset=4096, length=8192), ChangedExtent(offset=1 << 20, length=4096)),
)
SUMMARY: Final = CopiesSummary(
    copy_count=1, volume_count=1, relation_count=1, waiting_count=1, schedules=(SCHEDULE,)
)
