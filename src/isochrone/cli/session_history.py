"""`isochrone session mark`: a session's past, and names for instants of it."""

from __future__ import annotations

from typing import Annotated

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json
from isochrone.cli.session_output import Name
from isochrone.model.errors import UnavailableError


def mark(
    name: Name,
    text: Annotated[
        str, typer.Argument(help="What to call this moment: one line, 200 characters.", show_default=False)
    ],
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until the secondary has it durably.")
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.0,
            max=60.0,
            help="Stop waiting after this time (exit code 5).",
        ),
    ] = 30.0,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Name the present moment of a session.

    An image of exactly this moment can be had at the secondary for as long as its history goes back: it has what was
    acknowledged before the command, and nothing that was written after its end.

    Give it to the controller of a primary: writes are stamped there. It waits until the secondary has the moment, and every
    write before it, durably.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import show_json
    from isochrone.report.history_models import InstantReport
    from isochrone.report.history_text import instant_text

    path = path_of("sessions", name, what="session")
    with Client(controller) as client:
        answer = client.post(f"{path}/instants", {"text": text, "wait_s": 0.0 if no_wait else timeout_s})
    instant = InstantReport.model_validate(answer)
    if json:
        show_json(answer)
    else:
        typer.echo(instant_text(instant))
    if not instant.hardened and not no_wait:
        raise UnavailableError(
            f"the secondary does not have it durably after {timeout_s:g} s; it is told when it can be: look at "
            f"`isochrone session show {name}` for what is in the way"
        )
