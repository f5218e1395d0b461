"""`isochrone volume`: create, list, show, resize, delete."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, Yes, examples
from isochrone.model.errors import RefusedError
from isochrone.model.sizes import format_size, parse_size

app = typer.Typer(help="Volumes of a controller.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="Name of the volume.", show_default=False)]
Size = Annotated[
    str, typer.Argument(help="Size with a binary unit: 512MiB, 10GiB, 1.5TiB.", show_default=False)
]


@app.command(
    epilog=examples("isochrone volume create db 10GiB", "isochrone volume create db-wal 512MiB --json")
)
def create(name: Name, size: Size, controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """Create a thin volume and offer it over NBD.

    It reads as zeros and takes no space until it is written.
    """
    from isochrone.cli.client import Client

    body: dict[str, object] = {"name": name, "size_bytes": _size_bytes(size)}
    with Client(controller) as client:
        _print([client.post("/v1/volumes", body)], json, single=True)


@app.command("list", epilog=examples("isochrone volume list", "isochrone volume list --json"))
def list_(controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """List all volumes. Snapshots are in `isochrone copy list`."""
    from isochrone.cli.client import Client

    with Client(controller) as client:
        _print(client.get("/v1/volumes"), json, single=False)


@app.command(epilog=examples("isochrone volume show db"))
def show(name: Name, controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """Show one volume."""
    from isochrone.cli.client import Client, volume_path

    with Client(controller) as client:
        _print([client.get(volume_path(name))], json, single=True)


@app.command(epilog=examples("isochrone volume resize db 20GiB", "isochrone volume resize db 5GiB --shrink"))
def resize(
    name: Name,
    size: Size,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Allow a smaller size: data beyond it is lost.")
    ] = False,
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Change the size of a volume that is in no session.

    A smaller size needs --shrink and is asked about.
    """
    from isochrone.cli.client import Client, volume_path
    from isochrone.cli.output import confirm

    size_bytes = _size_bytes(size)
    path = volume_path(name)
    with Client(controller) as client:
        if shrink:
            old_bytes = client.get(path)["size_bytes"]
            if size_bytes < old_bytes:
                confirm(
                    f"Shrink volume {name} from {format_size(old_bytes)} to {format_size(size_bytes)}? "
                    "Data beyond is lost.",
                    yes=yes,
                )
        _print([client.patch(path, {"size_bytes": size_bytes, "shrink": shrink})], json, single=True)


@app.command(epilog=examples("isochrone volume delete scratch", "isochrone volume delete scratch --yes"))
def delete(name: Name, yes: Yes = False, controller: Controller = CONTROLLER_DEFAULT) -> None:
    """Delete a volume and its data. It must be in no session and not open."""
    from isochrone.cli.client import Client, volume_path
    from isochrone.cli.output import confirm

    path = volume_path(name)
    with Client(controller) as client:
        mapped_bytes = client.get(path)["mapped_bytes"]
        confirm(
            f"Delete volume {name} with {format_size(mapped_bytes)} of data? This cannot be undone.", yes=yes
        )
        client.delete(path)
    typer.echo(f"volume {name} is deleted")


def _size_bytes(text: str) -> int:
    size_bytes = parse_size(text)
    if size_bytes <= 0:
        raise RefusedError(f"a volume of {text} cannot be: give a size above zero, for example 10GiB")
    return size_bytes


def _print(answers: list[Any], as_json: bool, *, single: bool) -> None:
    from isochrone.cli.output import show, show_json
    from isochrone.report.models import VolumeReport
    from isochrone.report.text import volumes_table

    if as_json:
        show_json(answers[0] if single else answers)
    else:
        show(volumes_table([VolumeReport.model_validate(answer) for answer in answers]))
