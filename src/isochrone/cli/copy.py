"""`isochrone copy`: point-in-time copies of volumes, made, shown, put back and deleted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isochrone.cli.copy_relations import establish, refresh, withdraw
from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, Yes, examples
from isochrone.model.durations import parse_duration_s
from isochrone.model.errors import NotFoundError
from isochrone.model.sizes import format_size

app = typer.Typer(
    help="Point-in-time copies of volumes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Name of the copy.", show_default=False)]


@app.command(
    epilog=examples(
        "isochrone copy create db db-wal --name before-upgrade",
        "isochrone copy create db --expires 7d",
        "isochrone copy create db@before-upgrade --name trial --writable",
    )
)
def create(
    volumes: Annotated[
        list[str],
        typer.Argument(help="Volumes, or copies of them, all as of one instant.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the copy.", show_default="the time")
    ] = None,
    writable: Annotated[
        bool, typer.Option("--writable", help="Make volumes that can be written: VOLUME-NAME.")
    ] = False,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="TIME", help="Delete it by itself after so long: 90s, 12h, 7d, 4w."
        ),
    ] = None,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Copy volumes as they are at one instant.

    No write of any of them lands between two. The snapshots are read-only, named VOLUME@NAME, and exported over NBD. They
    take no space until what they share is written or trimmed.
    """
    from isochrone.cli.client import Client

    body: dict[str, object] = {"volumes": volumes, "name": name, "writable": writable}
    if expires is not None:
        body["expires_after_s"] = parse_duration_s(expires)
    with Client(controller) as client:
        _print_copy(client.post("/v1/copies", body), json)


@app.command("list", epilog=examples("isochrone copy list", "isochrone copy list --json"))
def list_(controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """List all copies, relations and schedules."""
    from isochrone.cli.client import Client
    from isochrone.cli.output import show, show_json
    from isochrone.report.copy_models import CopiesReport
    from isochrone.report.copy_text import copies_view

    with Client(controller) as client:
        answer = client.get("/v1/copies")
    if json:
        show_json(answer)
    else:
        show(copies_view(CopiesReport.model_validate(answer)))


@app.command(
    epilog=examples("isochrone copy show before-upgrade", "isochrone copy show before-upgrade --json")
)
def show(name: Name, controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """Show one copy with its volumes and their space.

    Or, given the target of a relation, what is copied onto it.

    EXCLUSIVE is what deleting it would give back; SHARED is held by others, too.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.copy_relations import print_relation, relation_path

    with Client(controller) as client:
        try:
            answer = client.get(path_of("copies", name, what="copy"))
        except NotFoundError as no_copy:
            try:
                answer = client.get(relation_path(name))
            except NotFoundError:
                raise no_copy from None
            print_relation(answer, json)
            return
    _print_copy(answer, json)


@app.command(
    epilog=examples("isochrone copy delete before-upgrade", "isochrone copy delete before-upgrade --yes")
)
def delete(
    name: Name, yes: Yes = False, controller: Controller = CONTROLLER_DEFAULT, json: Json = False
) -> None:
    """Delete a copy with all its volumes.

    Nothing may have been made from them, and no client may have them open.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import confirm, show_json

    path = path_of("copies", name, what="copy")
    with Client(controller) as client:
        copy = client.get(path)
        confirm(
            f"Delete copy {name} of {copy['taken']}, {len(copy['volumes'])} volumes that hold "
            f"{format_size(copy['exclusive_bytes'])} alone? This cannot be undone.",
            yes=yes,
        )
        answer = client.delete(path)
    if json:
        show_json(answer)
    else:
        typer.echo(f"copy {name} is deleted; {format_size(answer['freed_bytes'])} were given back")


@app.command(
    epilog=examples(
        "isochrone copy restore before-upgrade", "isochrone copy restore before-upgrade --volume db --yes"
    )
)
def restore(
    name: Name,
    volume: Annotated[
        list[str],
        typer.Option(
            "--volume",
            metavar="VOLUME",
            help="Only this one of the volumes that were copied. May be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  # Typer copies it
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Set volumes back to what a copy of them holds.

    All of them or none. What they hold now is lost, unless another copy has it. They must be in no session and not open.
    The copy stays.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import confirm, show_json

    path = path_of("copies", name, what="copy")
    with Client(controller) as client:
        copy = client.get(path)
        volumes = volume or [one["source"] for one in copy["volumes"]]
        confirm(f"Set {', '.join(volumes)} back to {copy['taken']}? What was written since is lost.", yes=yes)
        answer = client.post(f"{path}/restore", {"volumes": volume})
    if json:
        show_json(answer)
    else:
        typer.echo(
            f"{', '.join(answer['volumes'])} restored: {format_size(answer['changed_bytes'])} had changed since; "
            f"writes were held for {answer['hold_ms']:.2f} ms"
        )


@app.command(
    epilog=examples("isochrone copy diff monday db", "isochrone copy diff db@monday db@tuesday --json")
)
def diff(
    base: Annotated[
        str, typer.Argument(help="The earlier one: a copy's name, or a volume.", show_default=False)
    ],
    volume: Annotated[
        str, typer.Argument(help="The later one: a volume, or a snapshot.", show_default=False)
    ],
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """List where a volume may differ from a copy.

    What is not listed is equal. Pointers are compared, no data is read. Over NBD the metadata context
    isochrone:changed:NAME says the same.
    """
    from isochrone.cli.client import Client, volume_path
    from isochrone.cli.output import show, show_json
    from isochrone.report.copy_models import DiffReport
    from isochrone.report.copy_text import diff_view

    with Client(controller) as client:
        report = DiffReport.model_validate(_all_changes(client, volume_path(volume), base))
    if json:
        show_json(report.model_dump(mode="json"))
    else:
        show(diff_view(report))


def _all_changes(client: Any, path: str, base: str) -> dict[str, Any]:
    """Return the whole of what a controller answers in parts."""
    from urllib.parse import quote

    changed: list[dict[str, int]] = []
    offset = 0
    while True:
        part: dict[str, Any] = client.get(f"{path}/changes?since={quote(base, safe='')}&offset={offset}")
        for extent in part["changed"]:
            if changed and changed[-1]["offset"] + changed[-1]["length"] == extent["offset"]:
                changed[-1]["length"] += extent["length"]
            else:
                changed.append(extent)
        offset = part["end_offset"]
        if offset >= part["size_bytes"]:
            return {**part, "changed": changed}


def _print_copy(answer: object, as_json: bool) -> None:
    from isochrone.cli.output import show, show_json
    from isochrone.report.copy_models import CopyReport
    from isochrone.report.copy_text import copy_view

    if as_json:
        show_json(answer)
    else:
        show(copy_view(CopyReport.model_validate(answer)))


app.command(
    epilog=examples(
        "isochrone copy establish db db-test",
        "isochrone copy establish db archive --extents 0:1GiB --extents 4GiB:512MiB:1GiB",
    )
)(establish)
app.command(epilog=examples("isochrone copy refresh db-test"))(refresh)
app.command(epilog=examples("isochrone copy withdraw db-test"))(withdraw)
