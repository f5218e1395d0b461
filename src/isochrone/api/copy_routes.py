"""Routes of point-in-time copies."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter

from isochrone.api.copy_operations import CopyOperations
from isochrone.api.copy_requests import CreateCopyRequest, EstablishRequest, RestoreRequest
from isochrone.model.names import NAME_LENGTH_MAX
from isochrone.model.volume_kind import VOLUME_NAME_LENGTH_MAX
from isochrone.report.copy_models import (
    CopiesReport,
    CopyDeletedReport,
    CopyReport,
    DiffReport,
    RelationReport,
    RestoredReport,
)

CopyName = Annotated[str, PathParameter(min_length=1, max_length=NAME_LENGTH_MAX)]
VolumeName = Annotated[str, PathParameter(min_length=1, max_length=VOLUME_NAME_LENGTH_MAX)]


def copy_routes(operations: CopyOperations) -> APIRouter:
    """Return the routes of copies."""
    router = APIRouter(prefix="/v1/copies", tags=["copies"])

    @router.get("", summary="All copies, relations and schedules")
    async def copies() -> CopiesReport:
        return await operations.copies()

    @router.post("", status_code=201, summary="Copy volumes at one instant")
    async def create_copy(request: CreateCopyRequest) -> CopyReport:
        return await operations.create_copy(request)

    @router.get("/{name}", summary="One copy")
    async def copy(name: CopyName) -> CopyReport:
        return await operations.copy(name)

    @router.delete("/{name}", summary="Delete a copy with all its volumes")
    async def delete_copy(name: CopyName) -> CopyDeletedReport:
        return await operations.delete_copy(name)

    @router.post(
        "/{name}/restore", summary="Set the volumes that were copied back to the copy, at one instant"
    )
    async def restore_copy(name: CopyName, request: RestoreRequest) -> RestoredReport:
        return await operations.restore_copy(name, request)

    return router


def relation_routes(operations: CopyOperations) -> APIRouter:
    """Return the routes of relations, and of what changed."""
    router = APIRouter(tags=["copies"])

    @router.post("/v1/relations", status_code=201, summary="Copy a volume onto an existing one")
    async def establish(request: EstablishRequest) -> RelationReport:
        return await operations.establish(request)

    @router.get("/v1/relations/{target}", summary="What is copied onto a volume")
    async def relation(target: VolumeName) -> RelationReport:
        return await operations.relation(target)

    @router.post("/v1/relations/{target}/refresh", summary="Copy the source again")
    async def refresh(target: VolumeName) -> RelationReport:
        return await operations.refresh(target)

    @router.delete(
        "/v1/relations/{target}",
        status_code=204,
        summary="Take a relation away; both volumes stay as they are",
    )
    async def withdraw(target: VolumeName) -> None:
        await operations.withdraw(target)

    @router.get(
        "/v1/volumes/{name}/changes", summary="Where a volume may differ from another, or from a copy"
    )
    async def changes(
        name: VolumeName,
        since: Annotated[str, Query(min_length=1, max_length=VOLUME_NAME_LENGTH_MAX)],
        offset: Annotated[int, Query(ge=0, lt=1 << 48)] = 0,
    ) -> DiffReport:
        return await operations.diff(name, since, offset)

    return router
