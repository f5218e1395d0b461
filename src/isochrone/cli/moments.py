"""`--at TIME` of commands that look back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from isochrone.model.durations import parse_duration_s
from isochrone.model.errors import RefusedError

AtInstant = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="TIME",
        help="The instant: 2026-11-20T10:31:02.123456Z, -5m for five minutes ago, host time in ns, or the name of an "
        "instant given by `session mark`.",
    ),
]


def moment_of(text: str | None) -> dict[str, object]:
    """Return the fields of a request that `--at` stands for; {} when it was not given. Raises RefusedError."""
    if text is None:
        return {}
    if text.isdecimal():
        return {"at_ns": int(text)}
    if text.startswith("-"):
        return {"before_s": parse_duration_s(text[1:])}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return {"instant": text}
    if moment.tzinfo is None:
        raise RefusedError(f"--at {text!r} does not say its offset from UTC: write {text}Z or {text}+01:00")
    return {"at": text}
