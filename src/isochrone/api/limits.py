"""What the API refuses before it reads a body: bodies without a length, too long, or not JSON.

The JSON rule also keeps web pages out: a page in an operator's browser can send a form to a loopback port
unasked, but not `application/json`, for which the browser asks the server first and is not allowed.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from isochrone.api.errors import error_response
from isochrone.model.errors import RefusedError

REQUEST_BODY_BYTES_MAX: Final = 4 << 20
"""Holds PAIRS_PER_REQUEST_MAX pairs with names of the greatest length four times over."""

_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class BodyLimits:
    """ASGI middleware that checks the headers of requests with a body.

    The server holds a sender to the length it announced, so checking the announcement is enough.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with the refusal."""
        if scope["type"] == "http" and scope["method"] in _METHODS_WITH_BODY:
            fault = _fault(Headers(scope=scope))
            if fault is not None:
                await error_response(fault)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _fault(headers: Headers) -> RefusedError | None:
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        return RefusedError("the body must be JSON: send it with Content-Type: application/json")
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return RefusedError("the length of the body is not known: send it with Content-Length")
    if int(length) > REQUEST_BODY_BYTES_MAX:
        return RefusedError(
            f"the body has {length} bytes, more than {REQUEST_BODY_BYTES_MAX}: send fewer pairs at once",
            body_bytes_max=REQUEST_BODY_BYTES_MAX,
        )
    return None
