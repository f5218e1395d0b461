"""`isochrone session create|add|remove`: which volumes of which controllers belong to a session."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json, TimeoutS
from isochrone.cli.session_output import Name, print_session
from isochrone.cli.session_settings import (
    AutoResumeBudgetS,
    AutoResumeWord,
    CompareWord,
    CompressionWord,
    CopyRateMax,
    CopyShare,
    GroupIntervalMs,
    GroupSizeMax,
    HistoryMax,
    HistorySizeMax,
    HoldMsMax,
    LinkTimeoutS,
    Marks,
    Overflow,
    PaceDelayMsMax,
    PaceWord,
    PairPaces,
    Priorities,
    RetryMsMax,
    RetryTracksMax,
    given_settings,
)
from isochrone.model.errors import RefusedError

Primaries = Annotated[
    list[str],
    typer.Option(
        "--primary",
        metavar="NAME=ADDRESS",
        help="A primary controller and its link address: tcp:HOST:PORT or unix:/PATH. May be repeated.",
        show_default=False,
    ),
]
Pairs = Annotated[
    list[str],
    typer.Option(
        "--pair",
        metavar="PRIMARY:VOLUME[=SECONDARY]",
        help="A volume at a primary, and the volume here that mirrors it (the same name unless given). "
        "May be repeated.",
        show_default=False,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every pair is DUPLEX, drawing progress.")]


def create(
    name: Name,
    primary: Primaries,
    pair: Pairs,
    group_interval_ms: GroupIntervalMs = None,
    group_size_max: GroupSizeMax = None,
    retry_ms_max: RetryMsMax = None,
    retry_tracks_max: RetryTracksMax = None,
    compression: CompressionWord = None,
    overflow: Overflow = None,
    pace: PaceWord = None,
    pace_delay_ms_max: PaceDelayMsMax = None,
    hold_ms_max: HoldMsMax = None,
    pair_pace: PairPaces = [],  # noqa: B006  # Typer copies it
    copy_rate_max: CopyRateMax = None,
    copy_share: CopyShare = None,
    compare: CompareWord = None,
    marks: Marks = None,
    link_timeout_s: LinkTimeoutS = None,
    auto_resume: AutoResumeWord = None,
    auto_resume_budget_s: AutoResumeBudgetS = None,
    history: HistoryMax = None,
    history_size_max: HistorySizeMax = None,
    priority: Priorities = [],  # noqa: B006  # Typer copies it
    wait: Wait = False,
    timeout_s: TimeoutS = None,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Start a session. Give it to the controller that holds the secondaries; its mover runs there.

    Pairs start PENDING, are copied in full, and become DUPLEX. Until all are, the image is not complete.
    """
    body: dict[str, object] = {
        "name": name,
        "primaries": [parse_primary(text) for text in primary],
        "pairs": [_pair(text) for text in pair],
    }
    body |= given_settings(
        group_interval_ms=group_interval_ms,
        group_size_max=group_size_max,
        retry_ms_max=retry_ms_max,
        retry_tracks_max=retry_tracks_max,
        compression=compression,
        overflow=overflow,
        pace=pace,
        pace_delay_ms_max=pace_delay_ms_max,
        hold_ms_max=hold_ms_max,
        pair_pace=pair_pace,
        copy_rate_max=copy_rate_max,
        copy_share=copy_share,
        compare=compare,
        marks=marks,
        link_timeout_s=link_timeout_s,
        auto_resume=auto_resume,
        auto_resume_budget_s=auto_resume_budget_s,
        history=history,
        history_size_max=history_size_max,
        priority=priority,
    )
    _send("/v1/sessions", body, name, wait, timeout_s, controller, json)


def add(
    name: Name,
    pair: Pairs,
    primary: Primaries = [],  # noqa: B006  # Typer copies it
    wait: Wait = False,
    timeout_s: TimeoutS = None,
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Add pairs to a running session.

    Name a primary only when the session does not know it yet.
    """
    body: dict[str, object] = {
        "primaries": [parse_primary(text) for text in primary],
        "pairs": [_pair(text) for text in pair],
    }
    _send(_path(name, "pairs"), body, name, wait, timeout_s, controller, json)


def remove(
    name: Name,
    volumes: Annotated[
        list[str],
        typer.Argument(metavar="SECONDARY", help="Secondary volumes of the pairs.", show_default=False),
    ],
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Take pairs out of a session. Their volumes and data stay."""
    _send(_path(name, "pairs/remove"), {"secondary_volumes": volumes}, name, False, None, controller, json)


def _send(
    path: str,
    body: dict[str, object],
    name: str,
    wait: bool,
    timeout_s: float | None,
    controller: str,
    as_json: bool,
) -> None:
    from isochrone.cli.client import Client
    from isochrone.cli.wait import wait_for

    with Client(controller) as client:
        answer: Any = client.post(path, body)
        if wait:
            answer = wait_for(client, name, "duplex", timeout_s).model_dump(mode="json")
    print_session(answer, as_json)


def _path(name: str, rest: str) -> str:
    from isochrone.cli.client import path_of

    return f"{path_of('sessions', name, what='session')}/{rest}"


def parse_primary(text: str) -> dict[str, str]:
    """Return NAME=ADDRESS as requests have it. Raises RefusedError."""
    name, equals, address = text.partition("=")
    if not (name and equals and address):
        raise RefusedError(f"--primary {text!r} is not NAME=ADDRESS: write for example a=tcp:10.0.0.1:7481")
    return {"name": name, "address": address}


def _pair(text: str) -> dict[str, str]:
    source, colon, volumes = text.partition(":")
    primary_volume, equals, secondary_volume = volumes.partition("=")
    if not (source and colon and primary_volume) or (equals and not secondary_volume):
        raise RefusedError(
            f"--pair {text!r} is not PRIMARY:VOLUME[=SECONDARY]: write for example a:db or a:db=db-copy"
        )
    return {
        "primary": source,
        "primary_volume": primary_volume,
        "secondary_volume": secondary_volume or primary_volume,
    }
