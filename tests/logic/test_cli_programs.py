from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from isochrone.cli.exits import ExitCode
from isochrone.model.errors import DamagedError
from support.cli import CommandLine

SETTINGS = '[controller]\nname = "site-b"\n[pool]\npath = "pool"\nsize = "64MiB"\n'


@pytest.fixture
def isochrone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "site-b.toml"
    path.write_text(SETTINGS)
    return path


def raising(error: BaseException) -> Callable[..., int]:
    def run(*_: object) -> int:
        raise error

    return run


def test_valid_settings_are_said_to_be_valid_and_start_nothing(isochrone: CommandLine, config: Path) -> None:
    result = isochrone("controller", "check", str(config))
    assert result.code == ExitCode.OK
    assert "site-b are valid" in result.out
    assert list(config.parent.iterdir()) == [config]


def test_an_address_that_others_can_reach_is_pointed_out(isochrone: CommandLine, config: Path) -> None:
    config.write_text(SETTINGS + '[api]\nlisten = "tcp:0.0.0.0:7480"\n')
    assert "api.listen = tcp:0.0.0.0:7480" in isochrone("controller", "check", str(config)).out


def test_every_fault_of_the_settings_is_named_with_its_file(isochrone: CommandLine, config: Path) -> None:
    config.write_text('[controller]\nname = "-"\n[pool]\npath = "pool"\nsise = "1GiB"\n')
    result = isochrone("controller", "check", str(config))
    assert result.code == ExitCode.REFUSED
    assert f"{config}: controller.name" in result.err
    assert f"{config}: pool.sise" in result.err


@pytest.mark.parametrize("code", [0, 1, 5])
def test_a_controller_ends_with_its_own_exit_code(
    isochrone: CommandLine, config: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    seen = []

    def run(path: Path) -> int:
        seen.append(path)
        return code

    monkeypatch.setattr("isochrone.controller.main.run", run)
    assert isochrone("controller", "run", str(config)).code == code
    assert seen == [config]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DamagedError("segment 3 of the log is torn: restore it"), ExitCode.DAMAGED, "segment 3"),
        (KeyError("inside"), ExitCode.FAILED, "please report it: KeyError"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "work that the controller has begun goes on"),
    ],
)
def test_no_error_becomes_a_traceback(
    isochrone: CommandLine,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: ExitCode,
    words: str,
) -> None:
    monkeypatch.setattr("isochrone.controller.main.run", raising(error))
    result = isochrone("controller", "run", str(config))
    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err


def test_the_place_of_a_bug_is_shown_to_those_who_ask(
    isochrone: CommandLine, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOCHRONE_TRACEBACK", "1")
    monkeypatch.setattr("isochrone.controller.main.run", raising(KeyError("inside")))
    assert "Traceback" in isochrone("controller", "run", str(config)).err


@pytest.mark.parametrize("code", [0, 1])
def test_the_demonstration_fails_when_its_proof_fails(
    isochrone: CommandLine, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("isochrone.demo.main.main", lambda: code)
    assert isochrone("demo").code == code
