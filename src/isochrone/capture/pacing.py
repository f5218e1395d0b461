"""Write pacing: the delay of an acknowledgement as a function of how full the side file is.

Below a level's start the delay is zero; from there it grows with a power of the excess, up to the operator's maximum at the
level's end. The power keeps ordinary bursts free and leaves most of the braking to a backlog that does not drain. A level
chooses where that begins and how steep it is; the maximum is chosen beside it. Fill is measured against memory and spill
together (SideFile.fill).

    level    begins at   the maximum at   power
    off      never
    gentle   70 %        95 %             3
    steady   50 %        90 %             2      the default
    firm     25 %        80 %             1.5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isochrone.capture.delays import DelayMeter, DelayTotals
from isochrone.model.choices import PaceLevel


@dataclass(frozen=True, slots=True)
class PaceCurve:
    """One level: shares of the side file's capacity, `0 < start < full <= 1`, and the power of the excess."""

    start: float
    full: float
    power: float


CURVES: Final = {
    PaceLevel.GENTLE: PaceCurve(0.7, 0.95, 3.0),
    PaceLevel.STEADY: PaceCurve(0.5, 0.9, 2.0),
    PaceLevel.FIRM: PaceCurve(0.25, 0.8, 1.5),
}
"""Every level but OFF."""


def pace_delay_ns(fill: float, curve: PaceCurve, delay_ns_max: int) -> int:
    """Return how long an acknowledgement is held when the side file is as full as `fill` says (1.0 = to its limit).

    0 <= result <= delay_ns_max, and never shorter for a fuller side file.
    """
    if fill <= curve.start:
        return 0
    excess = min(1.0, (fill - curve.start) / (curve.full - curve.start))
    return int(delay_ns_max * excess**curve.power)


@dataclass(frozen=True, slots=True)
class VolumePacing:
    """How one session paces one volume.

    Attributes:
        delays: of this volume for this session.
        totals: of the session.
    """

    curve: PaceCurve
    delay_ns_max: int
    delays: DelayMeter
    totals: DelayTotals
