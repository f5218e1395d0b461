"""Routes of the past of sessions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from isochrone.api.history_operations import HistoryOperations
from isochrone.api.history_requests import CreateImageRequest, NameInstantRequest
from isochrone.model.names import NAME_LENGTH_MAX
from isochrone.report.history_models import HistoryReport, ImageReport, InstantReport

Name = Annotated[str, PathParameter(min_length=1, max_length=NAME_LENGTH_MAX)]


def history_routes(operations: HistoryOperations) -> APIRouter:
    """Return the routes of named instants, histories and images."""
    router = APIRouter(prefix="/v1/sessions/{name}", tags=["history"])

    @router.post("/instants", status_code=201, summary="Name the present, at a primary of the session")
    async def name_instant(name: Name, request: NameInstantRequest) -> InstantReport:
        return await operations.name_instant(name, request)

    @router.get("/history", summary="Which instants can be reached, and what that takes")
    async def history(name: Name) -> HistoryReport:
        return await operations.history(name)

    @router.get("/images", summary="Test images of a session")
    async def images(name: Name) -> list[ImageReport]:
        return await operations.images(name)

    @router.post("/images", status_code=201, summary="Make an image of all secondaries at one instant")
    async def create_image(name: Name, request: CreateImageRequest) -> ImageReport:
        return await operations.create_image(name, request)

    @router.delete("/images/{image}", summary="Delete the volumes of an image")
    async def discard_image(name: Name, image: Name) -> ImageReport:
        return await operations.discard_image(name, image)

    return router
