"""Both histories of a recovered session, as reports."""

from __future__ import annotations

from isochrone.model.split import Divergence, Side
from isochrone.report.base import Report
from isochrone.report.times import TimePoint


class WrittenVolume(Report):
    """What one side wrote to one volume since the last common time.

    Attributes:
        track_count, size_bytes: tracks that may differ because of it, and their bytes; None while not known.
    """

    name: str
    track_count: int | None
    size_bytes: int | None


class SideReport(Report):
    """What one controller wrote since the last common time.

    Attributes:
        name: of the controller, as the session names it.
        wrote: whether applications wrote there since; None while it has not been heard.
        last_write: when they did last; `time_ns` 0 when never, or not known (then `wrote` is None).
    """

    side: Side
    name: str
    wrote: bool | None
    last_write: TimePoint
    volumes: tuple[WrittenVolume, ...]


class SplitReport(Report):
    """Both histories of a session after a recovery; at an old primary only its own.

    Attributes:
        last_common: the recovered time: the last instant that both sides have in common.
        commands: what would give one side's writes up, one line each; nothing is done before one of them is given.
    """

    divergence: Divergence
    last_common: TimePoint
    sides: tuple[SideReport, ...]
    commands: tuple[str, ...]
