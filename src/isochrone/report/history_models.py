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
