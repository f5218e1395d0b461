"""The command line, run inside the test."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.main import get_command

from isochrone.cli.exits import ExitCode
from isochrone.cli.main import app, main


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def done(result: Result) -> Result:
    """Return `result`, which must be that of a command that succeeded without a word on stderr."""
    assert (result.code, result.err) == (ExitCode.OK, "")
    return result


class CommandLine:
    """Runs `isochrone` with the arguments given, without a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["isochrone", *arguments])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO())
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0 if code is None else 1, printed.out, printed.err)


def every_command() -> list[tuple[str, ...]]:
    """The words of every command, for example ("volume", "create")."""
    return [words for words, _ in _leaves(get_command(app), ())]


def every_option() -> set[str]:
    """Every long option of every command, without those that Typer adds."""
    return {
        option
        for _, command in _leaves(get_command(app), ())
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name, child in children.items():
        yield from _leaves(child, (*words, name))
