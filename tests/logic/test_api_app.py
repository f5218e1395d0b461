from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import httpx
import pytest

from isochrone.api.app import create_app
from isochrone.api.errors import STATUS_BY_ERROR
from isochrone.api.history_operations import HistoryOperations
from isochrone.api.limits import REQUEST_BODY_BYTES_MAX
from isochrone.api.operations import Operations
from isochrone.model.errors import IsochroneError
from isochrone.report.models import SessionReport, StatusReport
from support.fake_operations import FakeOperations, every_error
from support.reports import POOL, SESSION

SESSION_BODY: dict[str, Any] = {
    "name": "bank",
    "primaries": [{"name": "a", "address": "10.0.0.1:7481"}],
    "pairs": [{"primary": "a", "primary_volume": "db", "secondary_volume": "db-copy"}],
}
EVERY_REQUEST: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/healthz", None),
    ("GET", "/metrics", None),
    ("GET", "/v1/status", None),
    ("GET", "/v1/pool", None),
    ("GET", "/v1/captures", None),
    ("GET", "/v1/captures/ledger", None),
    ("GET", "/v1/volumes", None),
    ("POST", "/v1/volumes", {"name": "db", "size_bytes": 1 << 20}),
    ("GET", "/v1/volumes/db", None),
    ("PATCH", "/v1/volumes/db", {"size_bytes": 2 << 20}),
    ("POST", "/v1/copies", {"volumes": ["db"], "name": "mon", "expires_after_s": 60}),
    ("GET", "/v1/copies", None),
    ("GET", "/v1/copies/mon", None),
    ("POST", "/v1/copies/mon/restore", {"volumes": ["db"]}),
    ("GET", "/v1/volumes/db/changes?since=mon&offset=4096", None),
    ("DELETE", "/v1/copies/mon", None),
    ("POST", "/v1/relations", {"source": "db", "target": "twin"}),
    ("GET", "/v1/relations/twin", None),
    ("POST", "/v1/relations/twin/refresh", {}),
    ("DELETE", "/v1/relations/twin", None),
    ("DELETE", "/v1/volumes/db", None),
    ("POST", "/v1/sessions", SESSION_BODY),
    ("GET", "/v1/sessions", None),
    ("GET", "/v1/sessions/bank", None),
    ("PATCH", "/v1/sessions/bank", {"compression": "lz4"}),
    ("POST", "/v1/sessions/bank/pairs", {"pairs": [{**SESSION_BODY["pairs"][0], "secondary_volume": "x"}]}),
    ("POST", "/v1/sessions/bank/pairs/remove", {"secondary_volumes": ["x"]}),
    ("POST", "/v1/sessions/bank/suspend", {"reason": "line work"}),
    ("POST", "/v1/sessions/bank/resume", {}),
    ("POST", "/v1/sessions/bank/recover", {"incomplete": True}),
    ("POST", "/v1/sessions/bank/resync", {"discard": "secondary"}),
    ("POST", "/v1/sessions/ledger/instants", {"text": "before the upgrade"}),
    ("GET", "/v1/sessions/bank/history", None),
    ("POST", "/v1/sessions/bank/images", {"image": "db", "before_s": 60}),
    ("GET", "/v1/sessions/bank/images", None),
    ("DELETE", "/v1/sessions/bank/images/db", None),
    ("DELETE", "/v1/sessions/bank", None),
]


def ask(operations: Operations, *requests: httpx.Request) -> list[httpx.Response]:
    async def send_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(operations), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.send(request) for request in requests]

    return asyncio.run(send_all())


def request(method: str, path: str, body: object = None, **headers: str) -> httpx.Request:
    return httpx.Request(method, f"http://controller{path}", json=body, headers=headers)


def answer(operations: Operations, method: str, path: str, body: object = None) -> httpx.Response:
    return ask(operations, request(method, path, body))[0]


def test_every_operation_is_reached_by_a_request_and_every_request_succeeds() -> None:
    operations = FakeOperations()
    answers = ask(operations, *(request(*each) for each in EVERY_REQUEST))
    assert [answer.text for answer in answers if not answer.is_success] == []
    assert set(operations.calls) == declared(Operations)
    assert set(operations.past.calls) == declared(HistoryOperations)


def declared(operations: type) -> set[str]:
    """The methods of a protocol."""
    return {name for name, _ in inspect.getmembers(operations, inspect.isfunction) if name[0] != "_"}


def test_the_description_lists_every_route_with_its_errors() -> None:
    description = answer(FakeOperations(), "GET", "/v1/openapi.json").json()
    described = {
        (method.upper(), path) for path, methods in description["paths"].items() for method in methods
    }
    names = (
        {"/images/db": "/images/{image}"}
        | dict.fromkeys(("/db", "/bank", "/ledger", "/mon"), "/{name}")
        | {"/twin": "/{target}"}
    )
    asked = set()
    for method, path, _ in EVERY_REQUEST:
        for name, template in names.items():
            path = path.replace(name, template)
        asked.add((method, path.partition("?")[0]))
    assert described == asked
    for methods in description["paths"].values():
        for route in methods.values():
            assert {"4XX", "5XX"} <= set(route["responses"])
            assert "422" not in route["responses"]
            assert route["summary"]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_every_error_class_has_a_status_and_is_told_whole(error: IsochroneError) -> None:
    operations = FakeOperations()
    operations.failure = error
    response = answer(operations, "GET", "/v1/status")
    assert response.status_code == STATUS_BY_ERROR[type(error)]
    assert response.json() == {
        "code": error.code,
        "message": error.message,
        "fields": {"volume": "db", "count": 3},
    }


def test_fields_that_are_no_plain_values_are_told_as_text() -> None:
    operations = FakeOperations()
    operations.failure = IsochroneError("no", path=object)
    assert answer(operations, "GET", "/v1/pool").json()["fields"] == {"path": "<class 'object'>"}


def test_a_bug_is_told_as_one_without_its_details() -> None:
    operations = FakeOperations()
    operations.failure = KeyError("secret of the inside")
    response = answer(operations, "GET", "/v1/status")
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "secret" not in response.text
    assert "report" in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/volumes", {"name": "db"}, ["size_bytes"]),
        ("/v1/volumes", {"name": "a/b", "size_bytes": 4096}, ["name", "letters, digits"]),
        ("/v1/volumes", {"name": "db", "size_bytes": "1GiB"}, ["size_bytes", "integer"]),
        ("/v1/sessions", {**SESSION_BODY, "pairs": [{"primary": "a"}]}, ["pairs.0.primary_volume"]),
        ("/v1/sessions", {**SESSION_BODY, "compresion": "lz4"}, ["compresion"]),
        ("/v1/sessions/bank/suspend", [], ["request"]),
    ],
)
def test_a_faulty_body_is_refused_with_its_fields_named(path: str, body: object, words: list[str]) -> None:
    operations = FakeOperations()
    response = answer(operations, "POST", path, body)
    assert response.status_code == 400
    assert response.json()["code"] == "refused"
    for word in words:
        assert word in response.json()["message"]
    assert operations.calls == []


def test_a_body_that_is_no_json_is_refused() -> None:
    broken = httpx.Request(
        "POST", "http://c/v1/volumes", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert ask(FakeOperations(), broken)[0].status_code == 400


@pytest.mark.parametrize(
    ("headers", "content", "words"),
    [
        ({"Content-Type": "text/plain"}, json.dumps({}).encode(), "Content-Type: application/json"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"drain=true", "Content-Type"),
        ({}, b"", "Content-Type"),
        ({"Content-Type": "application/json"}, b" " * (REQUEST_BODY_BYTES_MAX + 1), "fewer pairs"),
    ],
)
def test_bodies_that_are_foreign_or_too_long_are_refused_unread(
    headers: dict[str, str], content: bytes, words: str
) -> None:
    operations = FakeOperations()
    operations.put_session(SESSION)
    foreign = httpx.Request("POST", "http://c/v1/sessions/bank/resume", content=content, headers=headers)
    response = ask(operations, foreign)[0]
    assert response.status_code == 400
    assert words in response.json()["message"]
    assert operations.calls == []


def test_a_body_without_a_length_is_refused() -> None:
    async def body() -> Any:
        yield b"{}"

    endless = httpx.Request(
        "POST", "http://c/v1/volumes", content=body(), headers={"Content-Type": "application/json"}
    )
    assert "Content-Length" in ask(FakeOperations(), endless)[0].json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2/status", 404), ("DELETE", "/v1/pool", 405)]
)
def test_what_is_no_request_is_told_in_the_same_shape(method: str, path: str, status: int) -> None:
    response = answer(FakeOperations(), method, path)
    assert response.status_code == status
    assert "/v1/openapi.json" in response.json()["message"]


def test_health_is_bad_while_the_pool_takes_no_writes() -> None:
    operations = FakeOperations()
    assert answer(operations, "GET", "/healthz").json() == {"status": "serving"}
    operations.pool_report = POOL.model_copy(update={"read_only_reason": "fdatasync failed"})
    response = answer(operations, "GET", "/healthz")
    assert response.status_code == 503
    assert "fdatasync failed" in response.json()["message"]


def test_reports_come_through_whole() -> None:
    operations = FakeOperations()
    operations.put_session(SESSION)
    status = StatusReport.model_validate(answer(operations, "GET", "/v1/status").json())
    assert status == asyncio.run(operations.status())
    assert SessionReport.model_validate(answer(operations, "GET", "/v1/sessions").json()[0]) == SESSION


def test_metrics_follow_the_accept_header() -> None:
    plain, open_metrics = ask(
        FakeOperations(),
        request("GET", "/metrics"),
        request("GET", "/metrics", Accept="application/openmetrics-text;version=1.0.0"),
    )
    assert plain.headers["content-type"].startswith("text/plain")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert "isochrone_pool_free_bytes" in plain.text
