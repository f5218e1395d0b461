"""`isochrone pool`: the pool of a running controller, and a proof of one that is not running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isochrone.cli.exits import ExitCode
from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, examples

app = typer.Typer(help="Pools: space and metadata.", no_args_is_help=True, rich_markup_mode=None)


Folder = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="Folder of the pool, as pool.path names it.", show_default=False),
]


@app.command(epilog=examples("isochrone pool check /var/lib/isochrone/data"))
def check(path: Folder, json: Json = False) -> None:
    """Prove the metadata of a pool that no controller has open.

    Changes nothing. Every contradiction is named with its file and byte; exit code 6 when there is one.
    """
    from isochrone.cli.pool_check import check_folder, show_findings

    report = check_folder(path)
    show_findings(path, report, as_json=json)
    if not report.is_clean:
        raise typer.Exit(ExitCode.DAMAGED)


@app.command(epilog=examples("isochrone pool show", "isochrone pool show --json"))
def show(controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """Show the pool of a controller: space, pointer log, checkpoint."""
    from isochrone.cli.client import Client
    from isochrone.cli.output import show as show_view
    from isochrone.cli.output import show_json
    from isochrone.report.models import PoolReport
    from isochrone.report.text import pool_view

    with Client(controller) as client:
        answer = client.get("/v1/pool")
    if json:
        show_json(answer)
    else:
        show_view(pool_view(PoolReport.model_validate(answer)))
