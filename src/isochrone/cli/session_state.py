"""`isochrone session list|show|recover|delete`: how a session stands, and what it shall do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from isochrone.cli.moments import AtInstant, moment_of
from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, TimeoutS, Yes
from isochrone.cli.session_output import Name, print_session


class Goal(StrEnum):
    """What `session show --wait` waits for."""

    DUPLEX = "duplex"
    SUSPENDED = "suspended"
    ENDED = "ended"


def list_sessions(controller: Controller = CONTROLLER_DEFAULT, json: Json = False) -> None:
    """List the sessions of a controller.

    Those it moves as the secondary, and those it feeds as a primary.
    """
    from isochrone.cli.client import Client
    from isochrone.cli.output import show, show_json
    from isochrone.report.models import CaptureReport, SessionReport
    from isochrone.report.text import captures_table, sessions_table

    with Client(controller) as client:
        sessions, captures = client.get("/v1/sessions"), client.get("/v1/captures")
    if json:
        show_json({"sessions": sessions, "captures": captures})
        return
    if sessions or not captures:
        show(sessions_table([SessionReport.model_validate(session) for session in sessions]))
    if captures:
        show(captures_table([CaptureReport.model_validate(capture) for capture in captures]))


def show_session(
    name: Name,
    wait: Annotated[Goal | None, typer.Option("--wait", help="Wait until it has reached this state.")] = None,
    timeout_s: TimeoutS = None,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Show one session in full.

    At a primary controller: its side file, its marks, and what application writes feel.

    With --wait, progress is drawn until the state is reached. Exit code 4 when it never will be by itself.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import show, show_json
    from isochrone.cli.wait import wait_for
    from isochrone.model.errors import NotFoundError
    from isochrone.report.models import CaptureReport
    from isochrone.report.text import capture_view

    with Client(controller) as client:
        try:
            answer = client.get(path_of("sessions", name, what="session"))
        except NotFoundError:
            if wait is not None:
                raise
            capture = client.get(path_of("captures", name, what="session"))
            if json:
                show_json(capture)
            else:
                show(capture_view(CaptureReport.model_validate(capture)))
            return
        if wait is not None:
            answer = wait_for(client, name, wait.value, timeout_s).model_dump(mode="json")
    print_session(answer, json)


def recover(
    name: Name,
    drain: Annotated[
        bool, typer.Option("--drain", help="Refuse writes at the primaries first and take everything over.")
    ] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Recover although some pair never became DUPLEX.")
    ] = False,
    at: AtInstant = None,
    timeout_s: TimeoutS = None,
    yes: Yes = False,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """End a session here and serve its volumes.

    They are read-write, all of one instant: the newest, or with --at one of the session's history. What was there before
    is then kept as snapshots, which the answer names.

    Give it to the secondary controller. It needs no primary, may be repeated, and prints the recovered time.
    Afterwards a primary that comes back is refused.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import confirm, show_json
    from isochrone.cli.wait import wait_for_recovery
    from isochrone.model.states import SessionState
    from isochrone.report.models import SessionReport
    from isochrone.report.recovery_text import recover_question, recovered_text

    path = path_of("sessions", name, what="session")
    with Client(controller) as client:
        session = SessionReport.model_validate(client.get(path))
        if session.state is not SessionState.ENDED:
            confirm(recover_question(session, drain=drain, at=at), yes=yes)
        body = {"drain": drain, "incomplete": incomplete, **moment_of(at)}
        answer = client.post(f"{path}/recover", body)
        session = SessionReport.model_validate(answer)
        if session.state is not SessionState.ENDED:
            session = wait_for_recovery(client, name, timeout_s)
    if json:
        show_json(session.model_dump(mode="json"))
    else:
        typer.echo(recovered_text(session))


def delete_session(name: Name, yes: Yes = False, controller: Controller = CONTROLLER_DEFAULT) -> None:
    """End and forget a session; volumes and their data stay.

    At a primary controller it forgets the session there, for a secondary site that will not come back.
    """
    from isochrone.cli.client import Client, path_of
    from isochrone.cli.output import confirm

    path = path_of("sessions", name, what="session")
    confirm(f"Delete session {name}? Copying ends; starting again is a full copy.", yes=yes)
    with Client(controller) as client:
        client.delete(path)
    typer.echo(f"session {name} is deleted")
