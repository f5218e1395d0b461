"""Both histories of a recovered session for a terminal, and the question before one of them is given up."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isochrone.model.sizes import format_size
from isochrone.model.split import Divergence, Side
from isochrone.report.split_models import SideReport, SplitReport

_VERDICTS = {
    Divergence.NONE: "nobody wrote since",
    Divergence.PRIMARY: "only the old primary wrote since",
    Divergence.SECONDARY: "only the recovered site wrote since",
    Divergence.DIVERGED: "DIVERGED: both sides wrote since",
    Divergence.UNKNOWN: "not every side has said yet whether it wrote since",
}


def verdict_text(split: SplitReport) -> str:
    """Who wrote since the last common time, in one line."""
    return (
        f"last common time {split.last_common.wall or '-'} (host time {split.last_common.time_ns} ns); "
        + (_VERDICTS[split.divergence])
    )


def side_text(side: SideReport) -> str:
    """What one side wrote, in one line."""
    if side.wrote is None:
        return "not known yet: it has not been heard since, or its marks are gone"
    if not side.wrote:
        return "nothing written since"
    counts = [volume.track_count for volume in side.volumes]
    sizes = [volume.size_bytes or 0 for volume in side.volumes]
    tracks = f"{sum(count or 0 for count in counts)} tracks ({format_size(sum(sizes))})"
    return f"{tracks} written since, the last at {side.last_write.wall or '-'}"


def short_verdict(session: str, split: SplitReport | None) -> str:
    """Say in a table that a recovered session waits for a person, "" when it does not."""
    if split is None or split.divergence is not Divergence.DIVERGED:
        return ""
    return (
        f"{Divergence.DIVERGED}: both sides wrote since its recovery, see `isochrone session show {session}`"
    )


def split_view(split: SplitReport) -> RenderableType:
    """Both histories and the commands that would give one up."""
    bad = split.divergence in (Divergence.DIVERGED, Divergence.UNKNOWN)
    table = Table(
        box=None, pad_edge=False, header_style="bold dim", collapse_padding=True, padding=(0, 2, 0, 0)
    )
    for heading in ("SIDE", "CONTROLLER", "VOLUME", "TRACKS", "SIZE", "LAST WRITE"):
        table.add_column(heading, justify="right" if heading in ("TRACKS", "SIZE") else "left")
    for side in split.sides:
        last = "not heard" if side.wrote is None else side.last_write.wall or "never"
        for volume in side.volumes:
            table.add_row(
                Text(side.side.value),
                Text(side.name),
                Text(volume.name),
                Text("-" if volume.track_count is None else str(volume.track_count)),
                Text("-" if volume.size_bytes is None else format_size(volume.size_bytes)),
                Text(last if side.wrote is not False else f"{last}, nothing since"),
            )
    lines: list[RenderableType] = [Text(f"  {verdict_text(split)}", style="bold red" if bad else "bold")]
    lines.append(Padding(table, (0, 0, 0, 2), expand=False))
    lines += [Text(f"  {command}", style="dim") for command in split.commands]
    return Group(*lines)


def discard_question(name: str, split: SplitReport, discard: Side) -> str:
    """What giving a side's writes up means now, as a question."""
    lost = "; ".join(f"{side.name}: {side_text(side)}" for side in split.sides if side.side is discard)
    kept = "; ".join(f"{side.name}: {side_text(side)}" for side in split.sides if side.side is not discard)
    return (
        f"Give up what the {discard} side of session {name} wrote since {split.last_common.wall or '-'}? "
        f"Lost: {lost or 'not known here'}. Kept: {kept or 'see the other site'}."
    )
