"""Times for people: a point of host time, when that was by the wall, and how far behind now it is.

Lag is measured against *now*, never against the newest write seen. Heartbeats move the times of an idle
session, so idle is not lag; a time that stops moving, for whatever reason, falls behind at one second per
second, so blocked is never zero. Where nothing has been measured there is no figure: None, not 0.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000


def wall_text(wall_ns: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC, to the millisecond: `2026-01-31T12:00:00.250Z`."""
    seconds, rest_ns = divmod(wall_ns, NS_PER_S)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration_text(seconds: float) -> str:
    """Return a length of time for people: `0.4 ms`, `3.2 s`, `4 min 05 s`, `2 h 10 min`, `3 d 04 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


class TimePoint(BaseModel):
    """One of the times F, J, C (or a promise received), with its distance from now.

    Attributes:
        time_ns: host time of the primaries, nanoseconds; 0 when nothing was measured yet.
        wall: the same moment by the wall clock (ISO 8601, UTC), as well as this host knows it; None when
            `time_ns` is 0.
        lag_ms: how far behind the primaries' present it is; None when nothing was measured or the session
            has ended.
    """

    model_config = ConfigDict(frozen=True)

    time_ns: int
    wall: str | None
    lag_ms: float | None

    @staticmethod
    def measure(time_ns: int, *, now_ns: int, wall_now_ns: int, moving: bool = True) -> TimePoint:
        """Return `time_ns` seen from `now_ns`.

        Args:
            time_ns: the time to report; 0 means none yet.
            now_ns: the present of the primaries' host time, as well as the caller knows it. It must go on
                while a link is down: last heard time plus what the own clock counted since.
            wall_now_ns: the wall clock at the same moment, nanoseconds since 1970.
            moving: False once the time will never move again (the session has ended): the lag is then None.
        """
        if time_ns == 0:
            return NOT_MEASURED
        behind_ns = now_ns - time_ns
        lag_ms = max(0, behind_ns) / NS_PER_MS if moving else None
        return TimePoint(time_ns=time_ns, wall=wall_text(wall_now_ns - behind_ns), lag_ms=lag_ms)


NOT_MEASURED: Final = TimePoint(time_ns=0, wall=None, lag_ms=None)
"""No such time yet."""
