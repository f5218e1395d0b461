"""`isochrone copy establish|refresh|withdraw`: flash copies onto existing volumes."""

from __future__ import annotations

from typing import Annotated

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, Yes
from isochrone.model.errors import RefusedError
from isochrone.model.sizes import parse_size

Target = Annotated[str, typer.Argument(help="The volume that is copied onto.", show_default=False)]


def establish(
    source: Annotated[
        str, typer.Argument(help="What is copied: a volume, or a snapshot.", show_default=False)
    ],
    target: Target,
    extents: Annotated[
        list[str],
        typer.Option(
            "--extents",
            metavar="OFFSET:LENGTH[:TO]",
            help="Only this range, to the same place or to TO, in sizes. May be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  # Typer copies it
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Copy a volume, or ranges of it, onto another one.

    At one instant, by pointers, whatever the size.

    What TARGET holds there is lost. It must be in no session and not open; without --extents it has the size of SOURCE. The
    relation is remembered, so that `refresh` can copy again, until `withdraw`.
    """
    from isochrone.cli.client import Client
    from isochrone.cli.output import confirm

    body: dict[str, object] = {"source": source, "target": target}
    if extents:
        body["extents"] = [_extent(text) for text in extents]
    confirm(f"Copy {source} onto {target}? What {target} holds there is lost.", yes=yes)
    with Client(controller) as client:
        print_relation(client.post("/v1/relations", body), json)


def refresh(
    target: Target,
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Copy the source of a relation again.

    Only what changed is touched. What was written to the target since is lost.
    """
    from isochrone.cli.client import Client
    from isochrone.cli.output import confirm

    path = relation_path(target)
    with Client(controller) as client:
        source = client.get(path)["source"]
        confirm(f"Copy {source} onto {target} again? What was written to {target} since is lost.", yes=yes)
        print_relation(client.post(f"{path}/refresh", {}), json)


def withdraw(target: Target, controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """Take a relation away. Both volumes stay as they are."""
    from isochrone.cli.client import Client
    from isochrone.cli.output import show_json

    path = relation_path(target)
    with Client(controller) as client:
        relation = client.get(path)
        client.delete(path)
    if json:
        show_json(relation)
    else:
        typer.echo(f"{relation['source']} is no longer copied onto {target}; both stay as they are")


def relation_path(target: str) -> str:
    """Return the API path of the relation onto `target`."""
    from isochrone.cli.client import any_volume_path

    return any_volume_path("relations", target)


def print_relation(answer: object, as_json: bool) -> None:
    """Print one relation as the API answered it."""
    from isochrone.cli.output import show, show_json
    from isochrone.report.copy_models import RelationReport
    from isochrone.report.copy_text import relation_view

    if as_json:
        show_json(answer)
    else:
        show(relation_view(RelationReport.model_validate(answer)))


def _extent(text: str) -> dict[str, int]:
    """Return the range that `OFFSET:LENGTH[:TO]` means. Raises RefusedError."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise RefusedError(
            f"--extents {text!r} is no range: write OFFSET:LENGTH, or OFFSET:LENGTH:TO, as in 0:1GiB or 4GiB:512MiB:1GiB"
        )
    sizes = [parse_size(part) for part in parts]
    return {
        "source_offset": sizes[0],
        "target_offset": sizes[-1] if len(sizes) == 3 else sizes[0],
        "length": sizes[1],
    }
