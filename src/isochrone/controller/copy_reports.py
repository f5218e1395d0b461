"""What a controller says of its copies, relations and schedules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from isochrone.controller.copy_diff import differing_bytes
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.documents import CopyDocument, CopyMember, RelationDocument
from isochrone.copies.schedule import Schedule
from isochrone.report.copy_models import (
    CopiesReport,
    CopiesSummary,
    CopyReport,
    CopyVolumeReport,
    ExtentReport,
    RelationReport,
    ScheduleReport,
)
from isochrone.report.times import NS_PER_S, wall_text
from isochrone.store.pool import Pool
from isochrone.store.space import SpaceSteps, VolumeSpace


class CopyReporter:
    """Reports of everything in the catalogue.

    Args:
        schedules: those of the settings.
        connection_count: how many NBD connections use a volume.

    Attributes:
        waits: by copy, why it could not be deleted by itself.
        failures: by schedule, why its last try made no copy.
    """

    def __init__(
        self,
        pool: Pool,
        catalogue: Catalogue,
        schedules: Sequence[Schedule],
        connection_count: Callable[[str], int],
    ) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._schedules = schedules
        self._connection_count = connection_count
        self.waits: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    def forget_wait(self, copy: str) -> None:
        """`copy` is gone."""
        self.waits.pop(copy, None)

    async def all(self) -> CopiesReport:
        """Return everything; other work has its turn in between."""
        copies = [report async for report in self._copies_in_turn()]
        relations = [report async for report in self._relations_in_turn()]
        return CopiesReport(copies=tuple(copies), relations=tuple(relations), schedules=self.schedules())

    async def _copies_in_turn(self) -> AsyncIterator[CopyReport]:
        for copy in sorted(self._catalogue.copies.values(), key=lambda one: (one.taken_wall_ns, one.name)):
            if copy.name in self._catalogue.copies:  # it may be deleted while others have their turn
                yield await self.copy(copy, together=False)

    async def _relations_in_turn(self) -> AsyncIterator[RelationReport]:
        for target in sorted(self._catalogue.relations):
            relation = self._catalogue.relations.get(target)
            if relation is not None:
                yield await self.relation(relation)

    def summary(self) -> CopiesSummary:
        """Return what a status says of copies."""
        copies = self._catalogue.copies.values()
        return CopiesSummary(
            copy_count=len(copies),
            volume_count=sum(len(copy.members) for copy in copies),
            relation_count=len(self._catalogue.relations),
            waiting_count=len(self.waits),
            schedules=self.schedules(),
        )

    async def copy(
        self, copy: CopyDocument, *, together: bool = True, hold_ms: float | None = None
    ) -> CopyReport:
        """Return one copy that is there; other work has its turn in between.

        Args:
            together: its space is that of all its volumes together; else the sum of theirs, which is sooner added up.
        """
        steps = [self._pool.space_steps(member.volume) for member in copy.members]
        sizes_bytes = [self._pool.volumes[member.volume].size_bytes for member in copy.members]
        if together and len(copy.members) > 1:
            steps.append(self._pool.space_steps([member.volume for member in copy.members]))
        spaces = [await _space(each) for each in steps]
        totals = spaces[len(copy.members) :] or spaces
        return CopyReport(
            name=copy.name,
            writable=copy.writable,
            taken=wall_text(copy.taken_wall_ns),
            taken_ns=copy.taken_ns,
            expires=None if copy.expires_wall_ns is None else wall_text(copy.expires_wall_ns),
            schedule=copy.schedule,
            waits_because=self.waits.get(copy.name),
            exclusive_bytes=sum(space.exclusive_bytes for space in totals),
            shared_bytes=sum(space.shared_bytes for space in totals),
            volumes=tuple(
                self._member(member, size_bytes, space)
                for member, size_bytes, space in zip(copy.members, sizes_bytes, spaces, strict=False)
            ),
            hold_ms=hold_ms,
        )

    async def exclusive_bytes(self, copy: CopyDocument) -> int:
        """Return what deleting a copy that is there gives back; other work has its turn in between."""
        space = await _space(self._pool.space_steps([member.volume for member in copy.members]))
        return space.exclusive_bytes

    def _member(self, member: CopyMember, size_bytes: int, space: VolumeSpace) -> CopyVolumeReport:
        return CopyVolumeReport(
            source=member.source,
            volume=member.volume,
            incomplete=member.incomplete,
            size_bytes=size_bytes,
            mapped_bytes=space.mapped_bytes,
            exclusive_bytes=space.exclusive_bytes,
            shared_bytes=space.shared_bytes,
            connection_count=self._connection_count(member.volume)
            if member.volume in self._pool.volumes
            else 0,
            children=tuple(self._catalogue.children_of(member.volume)),
        )

    async def relation(
        self, relation: RelationDocument, *, changed_bytes: int | None = None, hold_ms: float | None = None
    ) -> RelationReport:
        """Return one relation."""
        return RelationReport(
            source=relation.source,
            target=relation.target,
            extents=None
            if relation.extents is None
            else tuple(ExtentReport(**extent.model_dump()) for extent in relation.extents),
            established=wall_text(relation.established_wall_ns),
            refreshed=wall_text(relation.refreshed_wall_ns),
            differing_bytes=await self.differing_bytes(relation),
            changed_bytes=changed_bytes,
            hold_ms=hold_ms,
        )

    async def differing_bytes(self, relation: RelationDocument) -> int | None:
        """Return what a refresh would change now, in whole tracks; None where ranges are at another place in the target."""
        source, target = relation.source, relation.target
        if relation.extents is None:
            return await differing_bytes(self._pool, base=source, volume=target)
        if any(extent.source_offset != extent.target_offset for extent in relation.extents):
            return None
        found = 0
        for extent in relation.extents:
            end_offset = extent.target_offset + extent.length
            found += await differing_bytes(
                self._pool, base=source, volume=target, offset=extent.target_offset, end_offset=end_offset
            )
        return found

    def schedules(self) -> tuple[ScheduleReport, ...]:
        """Return the schedules of the settings."""
        now_wall_ns = time.time_ns()
        return tuple(self._schedule(schedule, now_wall_ns) for schedule in self._schedules)

    def _schedule(self, schedule: Schedule, now_wall_ns: int) -> ScheduleReport:
        made = self._catalogue.scheduled(schedule.name)
        last = self._catalogue.last_runs.get(schedule.name)
        waits = [self.waits[copy.name] for copy in schedule.surplus(made) if copy.name in self.waits]
        return ScheduleReport(
            name=schedule.name,
            volumes=schedule.volumes,
            every_s=schedule.every_ns / NS_PER_S,
            keep=schedule.keep,
            copy_count=len(made),
            last_run=None if last is None else wall_text(last),
            last_run_age_s=None if last is None else (now_wall_ns - last) / NS_PER_S,
            next_run=wall_text(schedule.next_run_wall_ns(last, now_wall_ns)),
            failure=self.failures.get(schedule.name),
            waits_because=waits[0] if waits else None,
        )


async def _space(steps: SpaceSteps) -> VolumeSpace:
    """Return what `steps` come to; other work has its turn between them."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            space: VolumeSpace = ended.value
            return space
        await asyncio.sleep(0)
