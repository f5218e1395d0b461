from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from isochrone import __version__
from isochrone.cli.exits import ExitCode
from support.cli import CommandLine, every_command

HELP_S_MAX = 0.3
"""Processor time: other tests on the machine do not count."""
HEAVY = {"asyncio", "fastapi", "httpx", "numpy", "pydantic", "rich", "uvicorn", "uvloop", "zstandard"}
PROGRAM = [sys.executable, "-m", "isochrone"]


@pytest.fixture
def isochrone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["session", "create", "--help"], {"pydantic"}),  # Typer itself converts arguments with it
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['isochrone', *{arguments!r}]\n"
        "from isochrone.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    imported = {name.partition(".")[0] for name in ran.stderr.split()}
    assert "typer" in imported
    assert imported & HEAVY <= allowed


@pytest.mark.parametrize(
    "program", [PROGRAM, [str(Path(sysconfig.get_path("scripts")) / "isochrone")]], ids=["module", "script"]
)
def test_the_installed_script_and_the_module_are_one_program(program: list[str]) -> None:
    ran = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == f"isochrone {__version__}\n"
    wrong = subprocess.run([*program, "volume", "fold"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == ExitCode.REFUSED


def test_help_answers_at_once() -> None:
    taken_s = []
    for _ in range(3):
        before = os.times()
        subprocess.run([*PROGRAM, "--help"], capture_output=True, check=True, timeout=60)
        after = os.times()
        taken_s.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(taken_s) < HELP_S_MAX


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    isochrone: CommandLine, command: tuple[str, ...]
) -> None:
    result = isochrone(*command, "--help")
    assert result.code == ExitCode.OK
    words, _, shown = result.out.partition("Examples:")
    assert f"isochrone {' '.join(command)}" in shown
    assert len(words.splitlines()[2].strip()) > 10


def test_every_summary_in_a_list_of_commands_is_whole(isochrone: CommandLine) -> None:
    for group in ([], ["controller"], ["volume"], ["session"], ["pool"]):
        assert "..." not in isochrone(*group, "--help").out.partition("Commands:")[2].partition("Examples")[0]


def test_the_help_lists_the_exit_codes(isochrone: CommandLine) -> None:
    table = isochrone("--help").out.partition("Exit codes:")[2]
    assert [int(line.split()[0]) for line in table.strip().splitlines()] == [code.value for code in ExitCode]


def test_the_version_is_told(isochrone: CommandLine) -> None:
    assert isochrone("--version").out == f"isochrone {__version__}\n"


@pytest.mark.parametrize("arguments", [["volumes"], ["volume", "create"], ["status", "--colour"], []])
def test_wrong_usage_is_refused_with_a_hint(isochrone: CommandLine, arguments: list[str]) -> None:
    result = isochrone(*arguments)
    assert result.code == ExitCode.REFUSED
    assert "--help" in result.out + result.err
