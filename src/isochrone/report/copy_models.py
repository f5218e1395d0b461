"""Reports of point-in-time copies, relations and schedules."""

from __future__ import annotations

from pydantic import computed_field

from isochrone.report.base import Report


class CopyVolumeReport(Report):
    """One volume of a copy.

    Attributes:
        source: what it was made from.
        incomplete: that was a secondary whose first copy was still running: this is the image of no instant.
        mapped_bytes: space that it shows as data.
        exclusive_bytes: what deleting it by itself would give back now.
        shared_bytes: the rest of what it maps: other volumes hold it too.
        connection_count: NBD connections that have it open, or read what changed since it.
        children: volumes that were made from it.
    """

    source: str
    volume: str
    incomplete: bool = False
    size_bytes: int
    mapped_bytes: int
    exclusive_bytes: int
    shared_bytes: int
    connection_count: int = 0
    children: tuple[str, ...] = ()


class CopyReport(Report):
    """A copy: all its volumes are of one instant.

    Attributes:
        taken: that instant by the wall clock (ISO 8601, UTC); `taken_ns`: the same in host time.
        expires: when it is deleted by itself; None for never.
        schedule: the schedule that made it, "" for none.
        exclusive_bytes: what deleting it would give back now. In a list: the sum over its volumes, each by itself, which is
            less where they share something among themselves only.
        shared_bytes: the rest of what it maps: others hold it too, or, in a list, another of its volumes.
        waits_because: it should have been deleted by itself, and why it could not be; None when nothing waits.
        hold_ms: how long writes were held while it was taken; only in the answer to the request that made it.
    """

    name: str
    writable: bool
    taken: str
    taken_ns: int
    expires: str | None = None
    schedule: str = ""
    waits_because: str | None = None
    exclusive_bytes: int
    shared_bytes: int
    volumes: tuple[CopyVolumeReport, ...]
    hold_ms: float | None = None


class CopyDeletedReport(Report):
    """What deleting a copy gave back."""

    name: str
    volumes: tuple[str, ...]
    freed_bytes: int


class RestoredReport(Report):
    """What was restored.

    Attributes:
        volumes: they show the copy's content now.
        changed_bytes: what had differed from it, in whole tracks.
        hold_ms: how long writes were held meanwhile.
    """

    name: str
    volumes: tuple[str, ...]
    changed_bytes: int
    hold_ms: float


class ExtentReport(Report):
    """A range of a relation, in bytes."""

    source_offset: int
    target_offset: int
    length: int


class RelationReport(Report):
    """A flash copy from one volume onto another.

    Attributes:
        extents: what is copied; None is all of it.
        established, refreshed: by the wall clock (ISO 8601, UTC).
        differing_bytes: what would change with a refresh now, in whole tracks; None where ranges are at another place in the
            target.
        changed_bytes, hold_ms: what was changed, and how long writes were held; only in the answer to a request.
    """

    source: str
    target: str
    extents: tuple[ExtentReport, ...] | None
    established: str
    refreshed: str
    differing_bytes: int | None
    changed_bytes: int | None = None
    hold_ms: float | None = None


class ScheduleReport(Report):
    """A schedule.

    Attributes:
        copy_count: copies it made that are there.
        last_run, next_run: by the wall clock (ISO 8601, UTC); `last_run` is None before the first.
        last_run_age_s: time since then.
        failure: why the last try made no copy; None when it did. It is tried again.
        waits_because: why copies beyond `keep` could not be deleted; None when there are none.
    """

    name: str
    volumes: tuple[str, ...]
    every_s: float
    keep: int
    copy_count: int
    last_run: str | None
    last_run_age_s: float | None
    next_run: str
    failure: str | None = None
    waits_because: str | None = None


class CopiesReport(Report):
    """All copies, by time; relations, by target; schedules."""

    copies: tuple[CopyReport, ...]
    relations: tuple[RelationReport, ...]
    schedules: tuple[ScheduleReport, ...]


class CopiesSummary(Report):
    """Copies in the picture of a whole controller.

    Attributes:
        volume_count: volumes of all copies.
        waiting_count: copies that should have been deleted by themselves, and could not be.
    """

    copy_count: int = 0
    volume_count: int = 0
    relation_count: int = 0
    waiting_count: int = 0
    schedules: tuple[ScheduleReport, ...] = ()


class ChangedExtent(Report):
    """A range, in bytes."""

    offset: int
    length: int


class DiffReport(Report):
    """Where a volume may differ from another, in whole tracks; what is not named is equal.

    Attributes:
        base: the other one.
        end_offset: where this answer ends; the next one begins there, unless it is `size_bytes`.
    """

    base: str
    volume: str
    size_bytes: int
    end_offset: int
    changed: tuple[ChangedExtent, ...]

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def changed_bytes(self) -> int:
        """Sum of the ranges."""
        return sum(extent.length for extent in self.changed)
