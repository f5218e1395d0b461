"""A session's past as frozen values: named instants, history, images."""

from __future__ import annotations

from isochrone.report.base import Report
from isochrone.report.times import TimePoint


class InstantReport(Report):
    """An instant that was named at a primary, as the answer to that.

    Attributes:
        time: the exact instant: `session image --at` and `session recover --at` take its `time_ns`.
        hardened: the secondary has it durably, with every write up to it. Otherwise it will be told as soon as it can be.
    """

    session: str
    text: str
    time: TimePoint
    hardened: bool


class NamedInstantReport(Report):
    """A named instant as the secondary knows it.

    Attributes:
        source: the primary at which it was named.
        reachable: an image of it can be made.
    """

    text: str
    time: TimePoint
    source: str
    reachable: bool


class GapReport(Report):
    """Times without a consistent image of all volumes; both ends have one.

    Attributes:
        until: None while it is open.
    """

    since: TimePoint
    until: TimePoint | None


class KeptVolumeReport(Report):
    """A secondary whose history is kept.

    Attributes:
        since: images of it exist from then on. until: it left the session then; None while it is in it.
    """

    volume: str
    since: TimePoint
    until: TimePoint | None


class HistorySummary(Report):
    """A session's history in figures.

    Attributes:
        window_s: how long it goes back now.
        record_count: kept entries. held_bytes: their payload; metadata_bytes: what is remembered of them beside it.
        given_up: history up to then was given up before its time, because space ran out; None when none was.
        trouble: why something is not kept, or not given up, that should be; None when all is well.
    """

    window_s: float
    record_count: int
    held_bytes: int
    metadata_bytes: int
    given_up: TimePoint | None
    given_up_reason: str | None
    trouble: str | None


class HistoryReport(Report):
    """Which instants of a session can be reached.

    Attributes:
        window_s_max, bytes_max: the settings; `window_s_max` 0 is off, `bytes_max` 0 is no limit.
        first: the first instant that can be reached; None when no history is kept.
        through: the last one, that of the committed image.
        summary: None when no history is kept.
        instants, gaps: ascending.
    """

    session: str
    window_s_max: float
    bytes_max: int
    first: TimePoint | None
    through: TimePoint
    summary: HistorySummary | None
    gaps: tuple[GapReport, ...]
    instants: tuple[NamedInstantReport, ...]
    volumes: tuple[KeptVolumeReport, ...]


class ImageVolumeReport(Report):
    """One volume of an image.

    Attributes:
        volume: its name, also over NBD. clients: NBD clients that have it open.
    """

    secondary: str
    volume: str
    clients: tuple[str, ...]


class ImageReport(Report):
    """A test image of a session.

    Attributes:
        time: the instant it shows. made: when it was made (ISO 8601, UTC).
        left_out: secondaries of the session that there is no image of at that instant.
        made_in_ms: how long that took; None but in the answer to the command.
    """

    session: str
    image: str
    time: TimePoint
    made: str
    volumes: tuple[ImageVolumeReport, ...]
    left_out: tuple[str, ...]
    made_in_ms: float | None = None
