"""Errors on the wire: which HTTP status each class has, and the one shape of every error body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from isochrone.model.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    InternalError,
    IsochroneError,
    NotFoundError,
    PoolFullError,
    PoolReadOnlyError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)

STATUS_BY_ERROR: Final[Mapping[type[IsochroneError], int]] = {
    IsochroneError: 500,
    RefusedError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    ProtocolError: 502,
    UnavailableError: 503,
    PoolFullError: 507,
    PoolReadOnlyError: 503,
    BusyError: 503,
    DamagedError: 500,
    InternalError: 500,
}
"""Every error class has a line here: a class that is added without one fails the tests."""


class ErrorBody(BaseModel):
    """Body of every answer that is not a success.

    Attributes:
        code: stable word for programs, as in model.errors.
        message: what is wrong and what to do next.
        fields: the values the message speaks of.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    fields: dict[str, str | int | float | bool | None] = {}


def error_response(error: IsochroneError) -> JSONResponse:
    """Return the answer that tells `error`."""
    fields = {name: value if _is_plain(value) else str(value) for name, value in error.fields.items()}
    body = {"code": error.code, "message": error.message, "fields": fields}
    return JSONResponse(body, status_code=STATUS_BY_ERROR[_listed_class(error)])


def validation_error(faults: Sequence[Mapping[str, Any]]) -> RefusedError:
    """Return pydantic's faults as one refusal that names every field, in plain words."""
    lines = [f"{_place(fault['loc'])}: {_plain_words(str(fault['msg']))}" for fault in faults]
    return RefusedError("; ".join(lines), faults=len(lines), first_field=_place(faults[0]["loc"]))


def _place(location: Sequence[str | int]) -> str:
    parts = [str(part) for part in location if part != "body"]
    return ".".join(parts) or "request"


def _plain_words(message: str) -> str:
    return message.removeprefix("Value error, ")


def _listed_class(error: IsochroneError) -> type[IsochroneError]:
    return next(kind for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
