"""`isochrone session resync`: after a split, one side's writes are given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, Yes
from isochrone.cli.session_output import Name, print_session
from isochrone.cli.session_pairs import parse_primary
from isochrone.model.split import Side

if TYPE_CHECKING:
    from isochrone.cli.client import Client
    from isochrone.report.split_models import SplitReport

Discard = Annotated[
    Side | None,
    typer.Option(
        "--discard",
        help="Whose writes since the last common time are given up: the old primary's, or the recovered secondary's.",
        show_default=False,
    ),
]
PrimaryAddress = Annotated[
    str | None,
    typer.Option(
        "--primary",
        metavar="NAME=ADDRESS",
        help="With --discard primary: the recovered controller and its link address.",
        show_default=False,
    ),
]


def resync(
    name: Name,
    discard: Discard = None,
    primary: PrimaryAddress = None,
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """After a recovery: bring both sites together again.

    Both may have written since the last common time. Without --discard it shows what, and does nothing.

    --discard secondary is given at the recovered site, --discard primary at the old primary, which becomes the secondary.
    Only tracks that either side wrote are copied. Until that is done the image in service stays as it is.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import confirm, show
    from isochrone.model.errors import RefusedError
    from isochrone.report.split_text import discard_question, split_view

    with Client(controller) as client:
        split = _split(client, name)
        if discard is None:
            if split is not None and not json:
                show(split_view(split))
            raise RefusedError(
                f"nothing is done before a side is named: --discard {Side.PRIMARY} or --discard {Side.SECONDARY}"
            )
        if split is not None:
            confirm(discard_question(name, split, discard), yes=yes)
        body: dict[str, Any] = {"discard": discard.value}
        if primary is not None:
            body["primary"] = parse_primary(primary)
        answer = client.post(f"{path_of('sessions', name, what='session')}/resync", body)
    print_session(answer, json)


def _split(client: Client, name: str) -> SplitReport | None:
    """Return both histories as the controller knows them, None when the session was not recovered."""
    from isochrone.cli.client import path_of
    from isochrone.model.errors import NotFoundError
    from isochrone.report.models import CaptureReport, SessionReport

    try:
        return SessionReport.model_validate(client.get(path_of("sessions", name, what="session"))).split
    except NotFoundError:
        return CaptureReport.model_validate(client.get(path_of("captures", name, what="session"))).split
