"""The command line against an API that is played."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.api_server import SwitchedApp, served
from support.cli import CommandLine
from support.fake_operations import FakeOperations


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, SwitchedApp]]:
    app = SwitchedApp()
    with served(app, tmp_path_factory.mktemp("api") / "api.sock") as address:
        yield address, app


@pytest.fixture
def isochrone(
    server: tuple[str, SwitchedApp],
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CommandLine:
    address, app = server
    app.serve(operations)
    monkeypatch.setenv("ISOCHRONE_CONTROLLER", address)
    return CommandLine(monkeypatch, capsys)
