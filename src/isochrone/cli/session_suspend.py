"""`isochrone session suspend|resume`: stop copying, at once or at a time, and begin again."""

from __future__ import annotations

from typing import Annotated

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, TimeoutS
from isochrone.cli.session_output import Name, print_session
from isochrone.model.durations import parse_duration_s
from isochrone.model.errors import RefusedError

At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="TIME",
        help="Suspend with the image of exactly this moment: 2026-11-20T10:31:02.5Z, or +30s, +5m, +1h from now.",
    ),
]

PairNames = Annotated[
    list[str],
    typer.Option(
        "--pair",
        metavar="SECONDARY",
        help="Only the pair with this secondary volume; the others go on. May be repeated.",
        show_default=False,
    ),
]


def suspend(
    name: Name,
    pair: PairNames = [],  # noqa: B006  # Typer copies it
    at: At = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="Suspend once everything acknowledged by now is committed.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Forget a pending suspension.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is SUSPENDED.")] = False,
    timeout_s: TimeoutS = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Shown in every status until it resumes.")
    ] = "by command",
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Stop copying. The primaries mark changes; the last committed image is kept.

    At once unless --at or --drain say when. Every volume then holds all writes up to that moment and none later.

    With --pair, single pairs stay behind with their image of that moment while the session goes on.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.wait import wait_for

    if sum((at is not None, drain, cancel)) > 1:
        raise RefusedError("--at, --drain and --cancel exclude each other: give one of them")
    if pair and wait:
        raise RefusedError("--wait waits for the whole session: give it without --pair")
    if cancel and wait:
        raise RefusedError("--wait waits for SUSPENDED, which --cancel prevents: give one of them")
    body: dict[str, object] = {"reason": reason, "secondary_volumes": pair}
    if at is not None:
        body |= {"after_s": _after_s(at)} if at.startswith("+") else {"at": at}
    if drain or cancel:
        body["drain" if drain else "cancel"] = True
    with Client(controller) as client:
        answer = client.post(f"{path_of('sessions', name, what='session')}/suspend", body)
        if wait:
            answer = wait_for(client, name, "suspended", timeout_s).model_dump(mode="json")
    print_session(answer, json)


def _after_s(text: str) -> float:
    """Return the seconds of `+30s`, `+5m`, `+1.5h`. Raises RefusedError."""
    try:
        return parse_duration_s(text[1:])
    except RefusedError:
        raise RefusedError(
            f"--at {text!r} is no time: write +30s, +5m or +1h from now, or a moment like 2026-11-20T10:31:02.5Z"
        ) from None


def resume(
    name: Name,
    pair: PairNames = [],  # noqa: B006  # Typer copies it
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Resynchronise a suspended session, or some of its pairs.

    With --pair, those that were suspended by themselves.
    """
    from isochrone.cli.client import Client, path_of

    with Client(controller) as client:
        path = f"{path_of('sessions', name, what='session')}/resume"
        answer = client.post(path, {"secondary_volumes": pair})
    print_session(answer, json)
