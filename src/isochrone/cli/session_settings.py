"""`isochrone session set`, and the settings as options, which `session create` takes too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from isochrone.cli.options import CONTROLLER_DEFAULT, Controller, Json
from isochrone.cli.session_output import Name, print_session
from isochrone.model.durations import parse_duration_s
from isochrone.model.errors import RefusedError
from isochrone.model.sizes import parse_size

GroupIntervalMs = Annotated[
    float | None, typer.Option("--group-interval-ms", help="How often a group is formed. Default 10.")
]
GroupSizeMax = Annotated[
    str | None, typer.Option("--group-size-max", help="Form a group early at this size. Default 32MiB.")
]
RetryMsMax = Annotated[
    float | None,
    typer.Option(
        "--retry-ms-max",
        help="How long what the secondary's device does not take is tried again before the session suspends. Default 60000.",
    ),
]
RetryTracksMax = Annotated[
    int | None, typer.Option("--retry-tracks-max", help="How many tracks may wait for that. Default 1024.")
]
CompressionWord = Annotated[
    str | None, typer.Option("--compression", help="On the links: off (default), lz4 or zstd.")
]
Overflow = Annotated[
    str | None,
    typer.Option(
        "--overflow",
        help="When a side file nears its limit: pace (the default: delay writes up to "
        "--pace-delay-ms-max, then suspend), suspend (never delay) or hold (delay, then let writes "
        "wait for room up to --hold-ms-max, then suspend).",
    ),
]
PaceWord = Annotated[
    str | None,
    typer.Option(
        "--pace",
        help="How early and steeply writes are delayed as a side file fills: off, gentle, steady (the default) or firm.",
    ),
]
HoldMsMax = Annotated[
    float | None,
    typer.Option(
        "--hold-ms-max", help="With --overflow hold: longest wait of a write for room. Default 5000."
    ),
]
PairPaces = Annotated[
    list[str],
    typer.Option(
        "--pair-pace",
        metavar="PAIR=LEVEL",
        help="A pace level of a pair's own, or `session` for the session's. PAIR is the secondary volume or "
        "PRIMARY:VOLUME. May be repeated.",
        show_default=False,
    ),
]
PaceDelayMsMax = Annotated[
    float | None, typer.Option("--pace-delay-ms-max", help="Longest delay of one write. Default 100.")
]
CopyRateMax = Annotated[
    str | None,
    typer.Option(
        "--copy-rate-max",
        help="Copy at most this much a second from each primary: 100MiB. Default 0, no limit.",
    ),
]
CopyShare = Annotated[
    int | None,
    typer.Option(
        "--copy-share",
        metavar="PERCENT",
        help="Of each link, for copies while applications write. Default 50.",
    ),
]
CompareWord = Annotated[
    str | None,
    typer.Option(
        "--compare",
        help="Marked tracks to compare by hash before they are sent: suspected (default), always or never.",
    ),
]
LinkTimeoutS = Annotated[
    float | None,
    typer.Option(
        "--link-timeout",
        metavar="SECONDS",
        help="Suspend when a primary is without its link for so long. Default 0: when its side file is full.",
    ),
]
AutoResumeWord = Annotated[
    str | None,
    typer.Option(
        "--auto-resume",
        metavar="on|off",
        help="Whether a suspension that was not by command ends by itself. Default on.",
    ),
]
AutoResumeBudgetS = Annotated[
    float | None,
    typer.Option(
        "--auto-resume-budget",
        metavar="SECONDS",
        help="Not while writes were held by pacing for longer than this in the last hour. Default 60.",
    ),
]
Priorities = Annotated[
    list[str],
    typer.Option(
        "--priority",
        metavar="SECONDARY=N",
        help="Pairs of a higher priority are copied first (default 0, equals by size). May be repeated.",
        show_default=False,
    ),
]
Marks = Annotated[
    str | None,
    typer.Option(
        "--marks",
        help="What the primaries' marks of changed tracks survive: memory (the default: the death of a process) or durable "
        "(power loss too).",
    ),
]

HistoryMax = Annotated[
    str | None,
    typer.Option(
        "--history",
        metavar="TIME",
        help="How long what was committed is kept, for images of any instant: 90s, 30m, 24h, 7d. Default 0: not at all.",
    ),
]
HistorySizeMax = Annotated[
    str | None,
    typer.Option(
        "--history-size-max",
        help="Space that the history may take: 20GiB. What is older is given up. Default 0: as much as the pool has.",
    ),
]

_API_NAMES: Final = {
    "group_size_max": "group_bytes_max",
    "overflow": "overflow_policy",
    "pace": "pace_level",
    "copy_rate_max": "copy_rate_bytes_max",
    "copy_share": "copy_share_percent",
    "marks": "mark_policy",
    "history": "history_s_max",
    "history_size_max": "history_bytes_max",
    "priority": "priorities",
}
"""Of the options whose setting has another name in requests."""


def given_settings(**options: object) -> dict[str, object]:
    """Return the settings that were given (neither None nor empty), as requests have them. Raises RefusedError.

    Args:
        options: the values of the options above, by the names of the parameters that both commands have for them.
    """
    return {
        _API_NAMES.get(name, name): _PARSERS[name](value) if name in _PARSERS else value
        for name, value in options.items()
        if value is not None and value != []
    }


def _priorities(texts: list[str]) -> dict[str, int]:
    """Return the priorities of `SECONDARY=N`, by secondary volume."""
    priorities = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not (equals and name and number.isdecimal()):
            raise RefusedError(f"--priority {text!r} is not SECONDARY=N: write for example db-copy=5")
        priorities[name] = int(number)
    return priorities


def _pair_paces(texts: list[str]) -> dict[str, str]:
    """Return the pace levels of `PAIR=LEVEL`, by pair."""
    paces = {}
    for text in texts:
        name, equals, level = text.rpartition("=")
        if not (equals and name and level):
            raise RefusedError(f"--pair-pace {text!r} is not PAIR=LEVEL: write for example east:db=off")
        paces[name] = level
    return paces


def _on_or_off(word: str) -> bool:
    if word not in ("on", "off"):
        raise RefusedError(f"--auto-resume {word!r}: write on or off")
    return word == "on"


_PARSERS: Final[dict[str, Callable[[Any], object]]] = {
    "group_size_max": parse_size,
    "copy_rate_max": parse_size,
    "history": parse_duration_s,
    "history_size_max": parse_size,
    "auto_resume": _on_or_off,
    "pair_pace": _pair_paces,
    "priority": _priorities,
}


def set_session(
    name: Name,
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
    controller: Controller = CONTROLLER_DEFAULT,
    json: Json = False,
) -> None:
    """Change settings of a running session.

    Those that are not given stay. Another compression opens the links anew; nothing is copied again.

    Example: isochrone session set bank --copy-rate-max 50MiB --priority ledger=10
    """
    from isochrone.cli.client import Client, path_of

    body = given_settings(
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
    if not body:
        raise RefusedError("nothing is changed: give at least one setting, see --help")
    with Client(controller) as client:
        answer = client.patch(path_of("sessions", name, what="session"), body)
    print_session(answer, json)
