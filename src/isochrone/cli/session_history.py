"""`isochrone session mark|history|image`: names for instants of a session, what can be reached, and images of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from isochrone.cli.moments import AtInstant, moment_of
from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, Yes
from isochrone.cli.session_output import Name
from isochrone.model.errors import RefusedError, UnavailableError
from isochrone.model.names import check_name

if TYPE_CHECKING:
    from isochrone.cli.client import Client


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


def history(name: Name, controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """Show which instants of a session can be reached.

    The window and the space it takes, the gaps that resyncs have left, and the instants that have names. Give it to the
    secondary controller.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import show, show_json
    from isochrone.report.history_models import HistoryReport
    from isochrone.report.history_text import history_view

    with Client(controller) as client:
        answer = client.get(f"{path_of('sessions', name, what='session')}/history")
    if json:
        show_json(answer)
    else:
        show(history_view(HistoryReport.model_validate(answer)))


def image(
    name: Name,
    image_name: Annotated[
        str | None, typer.Option("--as", metavar="IMAGE", help="Name of the image. Default is the time.")
    ] = None,
    at: AtInstant = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Delete the image, or all of the session without --as.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the images of the session.")] = False,
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Make writable copies of all secondaries: a test failover.

    They are of one instant. Replication goes on meanwhile, at full speed. The volumes are named SECONDARY~IMAGE and
    offered over NBD; what is written to them changes nothing else. Without --at they show the committed image, with
    it any instant of the
    session's history. Give it to the secondary controller.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import show, show_json
    from isochrone.report.history_models import ImageReport
    from isochrone.report.history_text import image_text, images_view

    if discard and list_:
        raise RefusedError("--discard and --list exclude each other: give one of them")
    if at is not None and (discard or list_):
        raise RefusedError("--at says of which instant an image is to be made: leave it out")
    path = f"{path_of('sessions', name, what='session')}/images"
    with Client(controller) as client:
        if discard:
            _discard(client, path, name, image_name, yes=yes, as_json=json)
            return
        if list_:
            answer = client.get(path)
            if json:
                show_json(answer)
            else:
                show(images_view([ImageReport.model_validate(each) for each in answer]))
            return
        body = moment_of(at)
        if image_name is not None:
            body["image"] = image_name
        answer = client.post(path, body)
    if json:
        show_json(answer)
    else:
        typer.echo(image_text(ImageReport.model_validate(answer)))


def _discard(
    client: Client, path: str, session: str, image_name: str | None, *, yes: bool, as_json: bool
) -> None:
    """Discard one image after asking, or all of them."""
    from isochrone.cli.output import confirm, show_json

    names = [image_name] if image_name is not None else [each["image"] for each in client.get(path)]
    if not names:
        raise RefusedError(f"session {session} has no image to be discarded")
    confirm(f"Discard {', '.join(names)} of session {session}, with all that was written there?", yes=yes)
    for each in names:
        answer = client.delete(f"{path}/{check_name(each, 'image')}")
        if as_json:
            show_json(answer)
        else:
            typer.echo(f"image {each} of session {session} is discarded")
