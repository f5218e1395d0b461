"""Metrics of point-in-time copies and their schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from isochrone.report.copy_models import CopiesSummary, ScheduleReport
from isochrone.report.metric_family import Family, Sample
from isochrone.report.models import StatusReport


def _copies(name: str, text: str, value: Callable[[CopiesSummary], float]) -> Family:
    return Family(f"isochrone_{name}", text, (), lambda status: [((), value(status.copies))])


def _schedule(name: str, text: str, value: Callable[[ScheduleReport], float | None]) -> Family:
    def samples(status: StatusReport) -> Iterator[Sample]:
        return (((schedule.name,), value(schedule)) for schedule in status.copies.schedules)

    return Family(f"isochrone_schedule_{name}", text, ("schedule",), samples)


COPY_FAMILIES: Final[tuple[Family, ...]] = (
    _copies("copy_sets", "Point-in-time copies.", lambda c: c.copy_count),
    _copies("copy_volumes", "Volumes of all copies.", lambda c: c.volume_count),
    _copies(
        "copy_sets_waiting",
        "Copies that should have been deleted by themselves, and could not be.",
        lambda c: c.waiting_count,
    ),
    _copies("copy_relations", "Volumes onto which another one is copied.", lambda c: c.relation_count),
    _schedule("copies", "Copies that the schedule made and that are there.", lambda s: s.copy_count),
    _schedule("failing", "1 while its last try made no copy.", lambda s: float(s.failure is not None)),
    _schedule(
        "last_run_age_seconds",
        "Time since its last copy; absent before the first.",
        lambda s: s.last_run_age_s,
    ),
)
