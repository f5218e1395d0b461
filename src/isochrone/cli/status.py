"""`isochrone status`: everything of one controller, once or live."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json
from isochrone.model.errors import RefusedError

INTERVAL_DEFAULT_S: Final = 1.0


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C.")] = False,
    interval_s: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", min=0.1, max=3600.0, help="Between two looks of --watch."
        ),
    ] = INTERVAL_DEFAULT_S,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Show everything of a controller, once or live.

    Pool, volumes, sessions with their lag and progress, side files, held or paced writes.

    F, J and C are shown as lag from now: received, durable, and committed at the secondary. "-" means that
    nothing was measured.
    """
    from isochrone.cli.client import Client
    from isochrone.cli.output import show, show_json
    from isochrone.cli.watch import watch as watch_status
    from isochrone.report.models import StatusReport
    from isochrone.report.text import status_view

    if watch and json:
        raise RefusedError("--watch and --json do not go together: leave one out")
    with Client(controller) as client:
        if watch:
            watch_status(client, interval_s)
            return
        answer = client.get("/v1/status")
    if json:
        show_json(answer)
    else:
        show(status_view(StatusReport.model_validate(answer)))
