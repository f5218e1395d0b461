"""What commands print: tables for people, JSON for programs, questions before what cannot be undone."""

from __future__ import annotations

import json
import sys
from typing import Any, Final, TextIO

import typer
from rich.console import Console, RenderableType

from isochrone.model.errors import RefusedError

WIDTH_WITHOUT_TERMINAL: Final = 200
"""Columns when output goes to a file or pipe, so that a table is not folded there."""


def console() -> Console:
    """Return the console on standard output."""
    return Console(width=None if is_terminal(sys.stdout) else WIDTH_WITHOUT_TERMINAL, highlight=False)


def error_console() -> Console:
    """Return the console on standard error, for progress: standard output stays clean for results."""
    return Console(stderr=True, highlight=False)


def show(view: RenderableType) -> None:
    """Print a table or view."""
    console().print(view)


def show_json(value: Any) -> None:
    """Print an answer of the API as it came, indented."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person sits at the other end of `stream`."""
    return stream.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Return when the person agrees, or `yes` says so.

    RefusedError otherwise, also when nobody can be asked.
    """
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise RefusedError(
            f"{question} Not confirmed, nothing was done: add --yes to do it without being asked"
        )
    if not typer.confirm(question, err=True):
        raise RefusedError("not confirmed, nothing was done")
