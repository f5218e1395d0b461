"""A session's past for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isochrone.model.sizes import format_size
from isochrone.report.history_models import HistoryReport, HistorySummary, ImageReport, InstantReport
from isochrone.report.times import TimePoint, duration_text

_BAD: Final = "bold red"
_INDENT: Final = (0, 0, 0, 2)


def instant_text(instant: InstantReport) -> str:
    """Return what was named, and the exact time of it."""
    durable = (
        "durable at the secondary, with every write up to it"
        if instant.hardened
        else "not known to be durable at the secondary yet"
    )
    return f"session {instant.session}: {instant.text!r} is {_exact(instant.time)}, {durable}"


def _exact(time: TimePoint) -> str:
    return f"{time.wall} ({time.time_ns})"


def summary_line(summary: HistorySummary) -> str:
    """Return a session's history in one line."""
    line = (
        f"history of {duration_text(summary.window_s)}  {summary.record_count} writes  "
        f"{format_size(summary.held_bytes + summary.metadata_bytes)}"
    )
    if summary.given_up is not None:
        line += f"  given up through {summary.given_up.wall}: {summary.given_up_reason}"
    return f"{line}  {summary.trouble}" if summary.trouble else line


def history_view(history: HistoryReport) -> RenderableType:
    """Which instants can be reached, the gaps between them, and what was named."""
    if history.first is None or history.summary is None:
        off = history.summary.trouble if history.summary else f"`session set {history.session} --history 24h`"
        state = "is not there yet:" if history.window_s_max else "is off; begin one with"
        return Text(f"history of session {history.session} {state} {off}")
    summary = history.summary
    limit = f" of at most {format_size(history.bytes_max)}" if history.bytes_max else ""
    lines: list[RenderableType] = [
        Text(f"history of session {history.session}: any instant, but for gaps"),
        Text(f"  from     {_exact(history.first)}"),
        Text(f"  through  {_exact(history.through)}"),
        Text(
            f"  window   {duration_text(summary.window_s)} of {duration_text(history.window_s_max)}  "
            f"{summary.record_count} writes hold {format_size(summary.held_bytes)} and "
            f"{format_size(summary.metadata_bytes)} of metadata{limit}"
        ),
    ]
    if summary.given_up is not None:
        lines.append(
            Text(f"  given up through {summary.given_up.wall}: {summary.given_up_reason}", style=_BAD)
        )
    if summary.trouble is not None:
        lines.append(Text(f"  {summary.trouble}", style=_BAD))
    for gap in history.gaps:
        until = (
            "now: a resync is under way, or a pair is suspended" if gap.until is None else _exact(gap.until)
        )
        lines.append(Text(f"  gap      between {_exact(gap.since)} and {until}"))
    lines += [
        Text(
            f"  volume   {kept.volume} since {kept.since.wall}"
            + (f" until {kept.until.wall}" if kept.until else "")
        )
        for kept in history.volumes
    ]
    if history.instants:
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
        for title in ("INSTANT", "NAMED AT", "TIME", "NS", "IMAGE"):
            table.add_column(title, no_wrap=title != "INSTANT")
        for instant in history.instants:
            table.add_row(
                Text(instant.text),
                instant.source,
                instant.time.wall or "",
                str(instant.time.time_ns),
                "yes" if instant.reachable else "no",
            )
        lines.append(Padding(table, _INDENT))
    return Group(*lines)


def images_view(images: Iterable[ImageReport]) -> RenderableType:
    """A line a volume of each image."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    for title in ("IMAGE", "SHOWS", "NS", "MADE", "VOLUME", "OPEN BY"):
        table.add_column(title, no_wrap=True)
    for image in images:
        for volume in image.volumes:
            table.add_row(
                image.image,
                image.time.wall or "",
                str(image.time.time_ns),
                image.made,
                volume.volume,
                ", ".join(volume.clients) or "-",
            )
    return table


def image_text(image: ImageReport) -> str:
    """Return what was made, of when, and how to be rid of it."""
    took = "" if image.made_in_ms is None else f", made in {duration_text(image.made_in_ms / 1000)}"
    lines = [
        f"test image {image.image} of session {image.session} at {_exact(image.time)}{took}",
        *(f"  {volume.volume}" for volume in image.volumes),
    ]
    if image.left_out:
        lines.append(f"  left out, because there is no image of them then: {', '.join(image.left_out)}")
    lines.append(f"discard it with: isochrone session image {image.session} --as {image.image} --discard")
    return "\n".join(lines)
