"""The program: its command groups, and the one place where errors become a line of text and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Final, NoReturn

import typer

from isochrone import __version__
from isochrone.cli import controller, copy, pool, session, volume
from isochrone.cli.demo import demo
from isochrone.cli.exits import ExitCode, exit_code
from isochrone.cli.options import examples, exit_codes
from isochrone.cli.status import status
from isochrone.model.errors import IsochroneError

TRACEBACK_VARIABLE: Final = "ISOCHRONE_TRACEBACK"

app = typer.Typer(
    name="isochrone",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(controller.app, name="controller")
app.add_typer(volume.app, name="volume")
app.add_typer(copy.app, name="copy")
app.add_typer(session.app, name="session")
app.add_typer(pool.app, name="pool")
app.command(epilog=examples("isochrone status", "isochrone status --watch", "isochrone status --json"))(
    status
)
app.command(epilog=examples("isochrone demo"))(demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isochrone {__version__}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "isochrone controller run secondary.toml",
        "isochrone volume create db 10GiB --controller unix:/run/isochrone/api.sock",
        "isochrone session create bank --primary a=tcp:10.0.0.1:7481 --pair a:db --wait",
        "isochrone copy create db db-wal --expires 7d",
        "isochrone status --watch",
    )
    + "\n\n"
    + exit_codes()
)
def isochrone(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Asynchronous remote copy of block volumes: the second site is always one instant of all of them.

    Every command but 'controller', 'pool check' and 'demo' asks a running controller, the one that
    --controller or ISOCHRONE_CONTROLLER names.
    """


def main() -> NoReturn:
    """Run the program; it ends with one of the documented exit codes."""
    try:
        app(prog_name="isochrone")
    except IsochroneError as error:
        _fail(error.message, exit_code(error))
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != ExitCode.INTERRUPTED:  # Typer makes that of Ctrl-C
            raise
        _fail("interrupted; work that the controller has begun goes on", ExitCode.INTERRUPTED)
    except Exception as error:  # the last resort: a bug is told in one line, not in a traceback
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        _fail(
            f"an error nobody expected, please report it: {type(error).__name__}: {error} "
            f"({TRACEBACK_VARIABLE}=1 shows where)",
            ExitCode.FAILED,
        )
    sys.exit(ExitCode.OK)


def _fail(message: str, code: ExitCode) -> NoReturn:
    typer.echo(f"isochrone: {message}", err=True)
    sys.exit(code)
