"""Options and help text that many commands share."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from isochrone.cli.exits import EXIT_CODE_MEANINGS

CONTROLLER_DEFAULT: Final = "http://127.0.0.1:7480"
CONTROLLER_VARIABLE: Final = "ISOCHRONE_CONTROLLER"

Controller = Annotated[
    str,
    typer.Option(
        "--controller",
        envvar=CONTROLLER_VARIABLE,
        metavar="ADDRESS",
        help="The controller to ask: http://HOST:PORT, tcp:HOST:PORT or unix:/PATH.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the API answers it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
TimeoutS = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0.0, help="Stop waiting after this time (exit code 5)."),
]


def examples(*lines: str) -> str:
    """Return the epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def exit_codes() -> str:
    """Return the table of exit codes for the program's help."""
    return "\b\nExit codes:\n" + "\n".join(
        f"  {code.value:>3}  {text}" for code, text in EXIT_CODE_MEANINGS.items()
    )
