"""The HTTP API of a controller.

Versioned routes over `Operations`, each error in one shape, metrics and health.

The app decides nothing and keeps nothing; it runs in the controller's own event loop. No pages with scripts
from elsewhere are served; the description for programs is at /v1/openapi.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from isochrone import __version__
from isochrone.api.copy_routes import copy_routes, relation_routes
from isochrone.api.errors import ErrorBody, error_response, validation_error
from isochrone.api.history_routes import history_routes
from isochrone.api.limits import BodyLimits
from isochrone.api.operations import Operations
from isochrone.api.requests import (
    AddPairsRequest,
    ChangeSessionRequest,
    CreateVolumeRequest,
    RecoverRequest,
    RemovePairsRequest,
    ResizeVolumeRequest,
    ResumeRequest,
    ResyncRequest,
    SessionRequest,
    SuspendRequest,
)
from isochrone.model.errors import InternalError, IsochroneError, PoolReadOnlyError, RefusedError
from isochrone.model.names import NAME_LENGTH_MAX
from isochrone.model.volume_kind import VOLUME_NAME_LENGTH_MAX
from isochrone.report.metrics import exposition
from isochrone.report.models import CaptureReport, PoolReport, SessionReport, StatusReport, VolumeReport

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": ErrorBody, "description": "Refused; nothing was changed."},
    "5XX": {"model": ErrorBody, "description": "Not possible now, or failed."},
}

Name = Annotated[str, PathParameter(min_length=1, max_length=NAME_LENGTH_MAX)]
VolumeName = Annotated[str, PathParameter(min_length=1, max_length=VOLUME_NAME_LENGTH_MAX)]


def create_app(operations: Operations) -> FastAPI:
    """Return the ASGI app that serves `operations`."""
    app = FastAPI(
        title="Isochrone controller",
        version=__version__,
        summary="Volumes, sessions and state of one controller.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimits)
    app.add_exception_handler(IsochroneError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_bug)
    for router in (
        _state_routes(operations),
        _volume_routes(operations),
        _session_routes(operations),
        _pair_and_state_commands(operations),
        history_routes(operations.past),
        copy_routes(operations.copying),
        relation_routes(operations.copying),
    ):
        app.include_router(router, responses=_ERRORS)
    return app


def _state_routes(operations: Operations) -> APIRouter:
    router = APIRouter(tags=["state"])

    @router.get(
        "/healthz", summary="200 while the controller serves, 503 with the reason when it takes no writes"
    )
    async def health() -> dict[str, str]:
        pool = await operations.pool()
        if pool.read_only_reason is not None:
            raise PoolReadOnlyError(f"the pool takes no writes: {pool.read_only_reason}")
        return {"status": "serving"}

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        body, content_type = exposition(await operations.status(), request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    @router.get("/v1/status", summary="Everything, taken at one moment")
    async def status() -> StatusReport:
        return await operations.status()

    @router.get("/v1/pool", summary="The pool")
    async def pool() -> PoolReport:
        return await operations.pool()

    @router.get("/v1/captures", summary="Sessions this controller feeds as a primary")
    async def captures() -> list[CaptureReport]:
        return await operations.captures()

    @router.get("/v1/captures/{name}", summary="One session this controller feeds as a primary")
    async def capture(name: Name) -> CaptureReport:
        return await operations.capture(name)

    return router


def _volume_routes(operations: Operations) -> APIRouter:
    router = APIRouter(prefix="/v1/volumes", tags=["volumes"])

    @router.get("", summary="All volumes, but for snapshots")
    async def volumes() -> list[VolumeReport]:
        return await operations.volumes()

    @router.post("", status_code=201, summary="Create a thin volume")
    async def create_volume(request: CreateVolumeRequest) -> VolumeReport:
        return await operations.create_volume(request)

    @router.get("/{name}", summary="One volume")
    async def volume(name: VolumeName) -> VolumeReport:
        return await operations.volume(name)

    @router.patch("/{name}", summary="Change the size of a volume")
    async def resize_volume(name: VolumeName, request: ResizeVolumeRequest) -> VolumeReport:
        return await operations.resize_volume(name, request)

    @router.delete("/{name}", status_code=204, summary="Delete a volume and its data")
    async def delete_volume(name: VolumeName) -> None:
        await operations.delete_volume(name)

    return router


def _session_routes(operations: Operations) -> APIRouter:
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("", summary="Sessions whose mover runs here")
    async def sessions() -> list[SessionReport]:
        return await operations.sessions()

    @router.post("", status_code=201, summary="Start a session with its mover here")
    async def create_session(request: SessionRequest) -> SessionReport:
        return await operations.create_session(request)

    @router.get("/{name}", summary="One session whose mover runs here")
    async def session(name: Name) -> SessionReport:
        return await operations.session(name)

    @router.patch("/{name}", summary="Change settings of a session whose mover runs here")
    async def change_session(name: Name, request: ChangeSessionRequest) -> SessionReport:
        return await operations.change_session(name, request)

    @router.delete(
        "/{name}",
        status_code=204,
        summary="End and forget a session; at a primary, forget it for a mover that will not come back",
    )
    async def delete_session(name: Name) -> None:
        await operations.delete_session(name)

    return router


def _pair_and_state_commands(operations: Operations) -> APIRouter:
    router = APIRouter(prefix="/v1/sessions/{name}", tags=["sessions"])

    @router.post("/pairs", summary="Add pairs to a running session")
    async def add_pairs(name: Name, request: AddPairsRequest) -> SessionReport:
        return await operations.add_pairs(name, request)

    @router.post("/pairs/remove", summary="Take pairs out of a session; their volumes and data stay")
    async def remove_pairs(name: Name, request: RemovePairsRequest) -> SessionReport:
        return await operations.remove_pairs(name, request)

    @router.post("/suspend", summary="Stop copying and mark changes")
    async def suspend(name: Name, request: SuspendRequest) -> SessionReport:
        return await operations.suspend(name, request)

    @router.post("/resume", summary="Resynchronise a suspended session")
    async def resume(name: Name, request: ResumeRequest) -> SessionReport:
        return await operations.resume(name, request)

    @router.post("/recover", summary="End the session and serve its volumes read-write; may be repeated")
    async def recover(name: Name, request: RecoverRequest) -> SessionReport:
        return await operations.recover(name, request)

    @router.post("/resync", summary="After a recovery: give one side's writes up and copy the other's")
    async def resync(name: Name, request: ResyncRequest) -> SessionReport:
        return await operations.resync(name, request)

    return router


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IsochroneError)
    return error_response(error)


async def _answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(validation_error(error.errors()))


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = error_response(
        RefusedError(
            f"{request.method} {request.url.path} is no request of this API ({error.detail}): "
            "see /v1/openapi.json for those there are"
        )
    )
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    return response


async def _answer_bug(_: Request, error: Exception) -> JSONResponse:
    return error_response(
        InternalError(
            f"an error nobody expected: {type(error).__name__}; the controller's log has the details, "
            "please report them"
        )
    )
