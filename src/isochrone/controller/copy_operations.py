"""Point-in-time copies on request (api.copy_operations.CopyOperations): checked, taken in one step, durable, reported.

What must be one instant stands between two awaits: no write of any volume is acted on meanwhile. Checks stand in the
same step as what they allow.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from isochrone.api.copy_requests import CreateCopyRequest, RestoreRequest
from isochrone.controller.copy_diff import differing_bytes, read_diff
from isochrone.controller.copy_reports import CopyReporter
from isochrone.controller.exports import PoolExports
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.documents import CopyDocument, CopyMember, ScheduleDocument
from isochrone.copies.naming import default_name, member_name
from isochrone.copies.refusals import Uses, few, refuse_deletion_of_copy, refuse_overwriting
from isochrone.model.errors import ConflictError, NotFoundError, RefusedError
from isochrone.model.volume_kind import VolumeKind
from isochrone.report.copy_models import (
    CopiesReport,
    CopyDeletedReport,
    CopyReport,
    DiffReport,
    RestoredReport,
)
from isochrone.report.times import NS_PER_MS, NS_PER_S
from isochrone.store.pool import Pool
from isochrone.store.volume_set import CopyItem

_log = structlog.get_logger(__name__)


class ControllerCopies:
    """See api.copy_operations.CopyOperations; relations are in controller.copy_relations.

    Args:
        clock: host time in nanoseconds.
        flush: makes the pool durable.
    """

    def __init__(
        self,
        pool: Pool,
        catalogue: Catalogue,
        exports: PoolExports,
        uses: Uses,
        reporter: CopyReporter,
        *,
        clock: Callable[[], int],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._exports = exports
        self._uses = uses
        self._reporter = reporter
        self._clock = clock
        self._flush = flush

    # Reports

    async def copies(self) -> CopiesReport:
        """Return all copies, relations and schedules."""
        return await self._reporter.all()

    async def copy(self, name: str) -> CopyReport:
        """Return one copy."""
        return await self._reporter.copy(self._copy(name))

    async def diff(self, volume: str, base: str, offset: int) -> DiffReport:
        """Return where `volume` may differ from `base`, from `offset` on."""
        if volume not in self._pool.volumes and (copy := self._catalogue.copies.get(volume)):
            raise NotFoundError(
                f"{volume} is a copy: as the later one name a volume of it: {few(m.volume for m in copy.members)}",
                name=volume,
            )
        other = self._catalogue.bases(volume).get(base, base)
        return await read_diff(self._pool, base=other, volume=volume, offset=offset)

    def _copy(self, name: str) -> CopyDocument:
        copy = self._catalogue.copies.get(name)
        if copy is None:
            raise NotFoundError(f"no copy {name!r} here; see `isochrone copy list`", name=name)
        return copy

    # Create

    async def create_copy(self, request: CreateCopyRequest) -> CopyReport:
        """Copy volumes at one instant."""
        wall_ns = time.time_ns()
        name = request.name or default_name(wall_ns, self._catalogue.copies)
        expires_wall_ns = None
        if request.expires_after_s is not None:
            expires_wall_ns = wall_ns + int(request.expires_after_s * NS_PER_S)
        copy = CopyDocument(
            name=name,
            writable=request.writable,
            members=self._members(request.volumes, name, writable=request.writable),
            taken_ns=self._clock(),
            taken_wall_ns=wall_ns,
            expires_wall_ns=expires_wall_ns,
        )
        hold_ms = self.take(copy)
        await self._flush()
        _log.info("copy created", copy=name, volumes=len(copy.members), hold_ms=hold_ms)
        return await self._reporter.copy(copy, together=False, hold_ms=hold_ms)

    async def run_schedule(self, name: str, volumes: tuple[str, ...], copy_name: str) -> None:
        """Make the copy of a schedule, and remember its run with it; durable when it returns. Raises IsochroneError."""
        wall_ns = time.time_ns()
        copy = CopyDocument(
            name=copy_name,
            writable=False,
            members=self._members(volumes, copy_name, writable=False),
            taken_ns=self._clock(),
            taken_wall_ns=wall_ns,
            schedule=name,
        )
        run = ScheduleDocument(name=name, last_run_wall_ns=wall_ns)
        hold_ms = self.take(copy, {run.key: run.dump()})
        self._catalogue.last_runs[name] = wall_ns
        await self._flush()
        _log.info("copy created", copy=copy_name, schedule=name, volumes=len(copy.members), hold_ms=hold_ms)

    def keep_image(self, name: str, volumes: Sequence[str], documents: Mapping[str, bytes]) -> None:
        """Make a copy of volumes now, with documents in the same record; not durable yet. Raises IsochroneError."""
        copy = CopyDocument(
            name=name,
            writable=False,
            members=self._members(volumes, name, writable=False),
            taken_ns=self._clock(),
            taken_wall_ns=time.time_ns(),
        )
        self.take(copy, documents)

    def _members(self, volumes: Sequence[str], name: str, *, writable: bool) -> tuple[CopyMember, ...]:
        """Return the volumes of a new copy. Raises ConflictError when a name is taken, RefusedError, NotFoundError."""
        if name in self._catalogue.copies:
            raise ConflictError(f"copy {name!r} exists already; choose another name, or delete it", name=name)
        twice = sorted({volume for volume in volumes if list(volumes).count(volume) > 1})
        if twice:
            raise RefusedError(f"{few(twice)} named twice; name each volume once")
        members = []
        taken: dict[str, str] = {}
        for source in volumes:
            self._check_exists(source)
            volume = member_name(source, name, writable=writable)
            other = taken.setdefault(volume, source)
            if volume in self._pool.volumes or other != source:
                what = f"that of {other}" if other != source else "a volume that exists"
                raise ConflictError(
                    f"the copy of {source} would be called {volume}, as is {what}; choose another name with --name",
                    name=volume,
                )
            parent = self._catalogue.member(source)
            incomplete = parent.incomplete if parent is not None else self._uses.is_incomplete(source)
            members.append(CopyMember(source=source, volume=volume, incomplete=incomplete))
        return tuple(members)

    def _check_exists(self, volume: str) -> None:
        if volume not in self._pool.volumes:
            raise NotFoundError(
                f"no volume {volume!r} here; see `isochrone volume list` and `isochrone copy list`",
                name=volume,
            )

    def take(self, copy: CopyDocument, documents: Mapping[str, bytes | None] | None = None) -> float:
        """Make the volumes of `copy` now, in this step; return how long that took, in ms. Not durable yet."""
        kind = VolumeKind.COPY if copy.writable else VolumeKind.SNAPSHOT
        items = [CopyItem(member.source, member.volume, kind) for member in copy.members]
        changes = {copy.key: copy.dump(), **(documents or {})}
        begun_ns = time.perf_counter_ns()
        self._pool.create_copies(items, changes)
        hold_ms = (time.perf_counter_ns() - begun_ns) / NS_PER_MS
        self._catalogue.add(copy)
        return hold_ms

    # Delete

    async def delete_copy(self, name: str) -> CopyDeletedReport:
        """Delete a copy with all its volumes."""
        copy = self._copy(name)
        refuse_deletion_of_copy(self._catalogue, self._uses, copy)
        exclusive_bytes = await self._reporter.exclusive_bytes(
            copy
        )  # much of it comes back bit by bit, later
        report = self.delete(self._copy(name))
        report = report.model_copy(update={"freed_bytes": max(report.freed_bytes, exclusive_bytes)})
        await self._flush()
        _log.info("copy deleted", copy=name, volumes=len(report.volumes), freed_bytes=report.freed_bytes)
        return report

    def delete(self, copy: CopyDocument) -> CopyDeletedReport:
        """Delete `copy` now, in this step; not durable yet. Raises ConflictError while something relies on it."""
        refuse_deletion_of_copy(self._catalogue, self._uses, copy)
        names = tuple(member.volume for member in copy.members)
        volumes = [self._pool.volumes[volume] for volume in names]
        used_before = self._pool.used_track_count
        self._pool.delete_volumes(names, {copy.key: None})
        self._catalogue.remove(copy.name)
        self._reporter.forget_wait(copy.name)
        for volume in volumes:
            self._exports.forget(volume)
        freed_bytes = (used_before - self._pool.used_track_count) * self._pool.track_size_bytes
        return CopyDeletedReport(name=copy.name, volumes=names, freed_bytes=freed_bytes)

    # Restore

    async def restore_copy(self, name: str, request: RestoreRequest) -> RestoredReport:
        """Set the sources of a copy back to it, all at one instant."""
        copy = self._copy(name)
        members = _chosen(copy, request.volumes)
        for member in members:
            refuse_overwriting(self._catalogue, self._uses, member.source, "restored")
        changed_bytes = 0
        for member in members:
            changed_bytes += await differing_bytes(self._pool, base=member.volume, volume=member.source)
        self._copy(name)  # it may have been deleted meanwhile
        for member in members:
            refuse_overwriting(self._catalogue, self._uses, member.source, "restored")
        begun_ns = time.perf_counter_ns()
        self._pool.restore([(member.volume, member.source) for member in members])
        hold_ms = (time.perf_counter_ns() - begun_ns) / NS_PER_MS
        await self._flush()
        volumes = tuple(member.source for member in members)
        _log.info(
            "copy restored", copy=name, volumes=list(volumes), changed_bytes=changed_bytes, hold_ms=hold_ms
        )
        return RestoredReport(name=name, volumes=volumes, changed_bytes=changed_bytes, hold_ms=hold_ms)


def _chosen(copy: CopyDocument, sources: list[str]) -> list[CopyMember]:
    """Return the members of `copy` that were made from `sources`; all for none."""
    strangers = sorted(set(sources) - {member.source for member in copy.members})
    if strangers:
        raise NotFoundError(
            f"copy {copy.name!r} was not made from {few(strangers)}; it has copies of "
            f"{few(member.source for member in copy.members)}",
            name=copy.name,
        )
    return [member for member in copy.members if not sources or member.source in sources]
