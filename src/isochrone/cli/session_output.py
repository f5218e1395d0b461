"""What the session commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(help="Name of the session.", show_default=False)]


def print_session(answer: object, as_json: bool) -> None:
    """Print one session as the API answered it."""
    from isochrone.cli.output import show, show_json
    from isochrone.report.models import SessionReport
    from isochrone.report.text import session_view

    if as_json:
        show_json(answer)
    else:
        show(session_view(SessionReport.model_validate(answer)))
