"""`isochrone controller`: run a controller, or check its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isochrone.cli.options import examples

app = typer.Typer(
    help="Run a controller, or check its settings.", no_args_is_help=True, rich_markup_mode=None
)

Config = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Settings file.", show_default=False)]


@app.command(epilog=examples("isochrone controller run /etc/isochrone/secondary.toml"))
def run(config: Config) -> None:
    """Run a controller in the foreground until SIGTERM or Ctrl-C."""
    from isochrone.controller.main import run as run_controller

    raise typer.Exit(run_controller(config))


@app.command(epilog=examples("isochrone controller check /etc/isochrone/secondary.toml"))
def check(config: Config) -> None:
    """Validate a settings file and start nothing. Every fault is named with its key and cure."""
    from isochrone.controller.settings import load_settings

    settings = load_settings(config)
    typer.echo(f"{config}: the settings of controller {settings.controller.name} are valid")
    for exposed in settings.exposed_addresses():
        typer.echo(f"{config}: note: {exposed} can be reached from other hosts, and there is no login")
