"""A live status: drawn over and over, and honest about a controller that does not answer."""

from __future__ import annotations

import sys
import time

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from isochrone.cli.client import Client
from isochrone.cli.output import console, is_terminal, show
from isochrone.model.errors import UnavailableError
from isochrone.report.models import StatusReport
from isochrone.report.text import status_view
from isochrone.report.times import duration_text


def watch(client: Client, interval_s: float) -> None:
    """Show the status every `interval_s` until Ctrl-C; without a terminal, print it anew each time."""
    try:
        if is_terminal(sys.stdout):
            _draw_live(client, interval_s)
        else:
            _print_each(client, interval_s)
    except KeyboardInterrupt:
        return


def _draw_live(client: Client, interval_s: float) -> None:
    view = status_view(_status(client))  # the first look may fail: then there is nothing to watch
    answered_s = time.monotonic()
    with Live(view, console=console(), screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            time.sleep(interval_s)
            shown: RenderableType
            try:
                shown = view = status_view(_status(client))
                answered_s = time.monotonic()
            except UnavailableError as error:
                age = duration_text(time.monotonic() - answered_s)
                shown = Group(
                    Text(f"NO ANSWER for {age}, what follows is old: {error.message}", style="bold red"), view
                )
            live.update(shown, refresh=True)


def _print_each(client: Client, interval_s: float) -> None:
    while True:
        show(status_view(_status(client)))
        show("")
        time.sleep(interval_s)


def _status(client: Client) -> StatusReport:
    return StatusReport.model_validate(client.get("/v1/status"))
