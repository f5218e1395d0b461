"""The command line's side of the API: one request at a time, errors raised here as they were raised there."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from isochrone import __version__
from isochrone.model.addresses import UnixAddress, parse_peer_address
from isochrone.model.errors import (
    InternalError,
    IsochroneError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)
from isochrone.model.names import check_name
from isochrone.model.volume_kind import check_any_volume_name

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 120.0
"""`recover` waits at the controller before it answers; everything else answers within moments."""


class Client:
    """A controller to ask, at `http://HOST:PORT`, `tcp:HOST:PORT` or `unix:/PATH`."""

    def __init__(self, address: str) -> None:
        self.address = address
        base_url, transport = _route(address)
        self._http = httpx.Client(
            base_url=base_url,
            transport=transport,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            headers={"User-Agent": f"isochrone/{__version__}"},
            trust_env=False,  # a proxy for the web must not come between an operator and a loopback port
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """Return the JSON value at `path`.

        Raises the error that the controller tells, or UnavailableError.
        """
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, object]) -> Any:
        """Send `body` to `path`; return the answer. Errors as for get()."""
        return self._request("POST", path, body)

    def patch(self, path: str, body: dict[str, object]) -> Any:
        """Send a change to `path`; return the answer. Errors as for get()."""
        return self._request("PATCH", path, body)

    def delete(self, path: str) -> Any:
        """Delete what is at `path`; return the answer, None where there is none. Errors as for get()."""
        return self._request("DELETE", path, None)

    def _request(self, method: str, path: str, body: dict[str, object] | None) -> Any:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise UnavailableError(
                f"the controller at {self.address} did not answer in time; what was asked may still be done "
                "there: look with 'isochrone status'"
            ) from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no controller answers at {self.address} ({error}): start it with "
                "'isochrone controller run', or name another with --controller or ISOCHRONE_CONTROLLER"
            ) from error
        if response.status_code == 204:
            return None
        try:
            value = response.json()
        except ValueError as error:
            raise self._stranger(f"HTTP status {response.status_code}, no JSON") from error
        if response.is_success:
            return value
        raise self._told_error(value, response.status_code)

    def _told_error(self, value: Any, status_code: int) -> IsochroneError:
        match value:
            case {"code": str(code), "message": str(message), "fields": dict(fields)}:
                kind = _error_classes().get(code, InternalError)
                error = kind(message)
                error.fields = fields
                return error
        return self._stranger(f"HTTP status {status_code}, an error of another shape")

    def _stranger(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"what answers at {self.address} is no Isochrone controller ({what}): check --controller"
        )


def path_of(collection: str, name: str, *, what: str) -> str:
    """Return the API path of one thing, refusing a name that cannot be one."""
    return f"/v1/{collection}/{quote(check_name(name, what), safe='')}"


def volume_path(name: str) -> str:
    """Return the API path of a volume of any kind, also a snapshot, refusing a name that none can have."""
    return any_volume_path("volumes", name)


def any_volume_path(collection: str, name: str) -> str:
    """Return the API path of what is told apart by a volume's name in `collection`."""
    return f"/v1/{collection}/{quote(check_any_volume_name(name), safe='')}"


def _route(address: str) -> tuple[str, httpx.HTTPTransport | None]:
    text = address.removeprefix("http://").removesuffix("/") if address.startswith("http://") else address
    try:
        where = parse_peer_address(text)
    except RefusedError as error:
        raise RefusedError(
            f"{address[:80]!r} is no address of a controller: "
            "write http://HOST:PORT, tcp:HOST:PORT or unix:/PATH"
        ) from error
    if isinstance(where, UnixAddress):
        return "http://controller", httpx.HTTPTransport(uds=where.path)
    return f"http://{str(where).removeprefix('tcp:')}", None


def _error_classes() -> dict[str, type[IsochroneError]]:
    found: dict[str, type[IsochroneError]] = {}
    left: list[type[IsochroneError]] = [IsochroneError]
    while left:
        kind = left.pop()
        found[kind.code] = kind
        left += kind.__subclasses__()
    return found
