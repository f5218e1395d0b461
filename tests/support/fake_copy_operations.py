"""Copies of a controller of dictionaries."""

from __future__ import annotations

from isochrone.api.copy_requests import CreateCopyRequest, EstablishRequest, RestoreRequest
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.report.copy_models import (
    ChangedExtent,
    CopiesReport,
    CopyDeletedReport,
    CopyReport,
    DiffReport,
    ExtentReport,
    RelationReport,
    RestoredReport,
)
from support.copy_reports import COPY, DIFF, RELATION, SCHEDULE


class FakeCopyOperations:
    """Implements api.copy_operations.CopyOperations. `created`: requests that made a copy; a diff comes in two answers."""

    def __init__(self) -> None:
        self.created: list[CreateCopyRequest] = []
        self.restored: list[RestoreRequest] = []
        self._copies = {COPY.name: COPY}
        self._relations: dict[str, RelationReport] = {}

    async def copies(self) -> CopiesReport:
        return CopiesReport(
            copies=tuple(self._copies.values()),
            relations=tuple(self._relations.values()),
            schedules=(SCHEDULE,),
        )

    async def copy(self, name: str) -> CopyReport:
        if name not in self._copies:
            raise NotFoundError(f"no copy {name}: see isochrone copy list", name=name)
        return self._copies[name]

    async def create_copy(self, request: CreateCopyRequest) -> CopyReport:
        name = request.name or "20270115T080000Z"
        if name in self._copies:
            raise ConflictError(f"copy {name} exists: choose another name", name=name)
        self.created.append(request)
        self._copies[name] = COPY.model_copy(update={"name": name, "writable": request.writable})
        return self._copies[name]

    async def delete_copy(self, name: str) -> CopyDeletedReport:
        await self.copy(name)
        del self._copies[name]
        return CopyDeletedReport(name=name, volumes=("db@monday",), freed_bytes=3 << 20)

    async def restore_copy(self, name: str, request: RestoreRequest) -> RestoredReport:
        await self.copy(name)
        self.restored.append(request)
        return RestoredReport(name=name, volumes=("db",), changed_bytes=1 << 20, hold_ms=0.5)

    async def diff(self, volume: str, base: str, offset: int) -> DiffReport:
        whole = DIFF.model_copy(update={"base": base, "volume": volume})
        if offset:
            rest = (ChangedExtent(offset=8192, length=4096), whole.changed[1])
            return whole.model_copy(update={"changed": rest})
        return whole.model_copy(
            update={"changed": (ChangedExtent(offset=4096, length=4096),), "end_offset": 8192}
        )

    async def relation(self, target: str) -> RelationReport:
        if target not in self._relations:
            raise NotFoundError(f"nothing is copied onto {target}", name=target)
        return self._relations[target]

    async def establish(self, request: EstablishRequest) -> RelationReport:
        extents = None
        if request.extents is not None:
            extents = tuple(ExtentReport(**extent.model_dump()) for extent in request.extents)
        update = {"source": request.source, "target": request.target, "extents": extents}
        self._relations[request.target] = RELATION.model_copy(update=update)
        return self._relations[request.target]

    async def refresh(self, target: str) -> RelationReport:
        return await self.relation(target)

    async def withdraw(self, target: str) -> None:
        await self.relation(target)
        del self._relations[target]
