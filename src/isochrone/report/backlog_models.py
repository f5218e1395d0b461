"""Pictures of a primary's side file, of its spill, and of the delays that they cost the application."""

from __future__ import annotations

from isochrone.report.base import Report


class VolumeDelayReport(Report):
    """How writes to one primary volume are delayed for a session.

    Attributes:
        delay_ms: what a write would be delayed by now.
        delay_ms_p50, delay_ms_p99: of the writes that were delayed in the last seconds; 0 when none was.
        write_count: how many these were.
    """

    volume: str
    delay_ms: float
    delay_ms_p50: float
    delay_ms_p99: float
    write_count: int


class BacklogReport(Report):
    """The side file of one primary controller, and what it costs the application there.

    Attributes:
        session_bytes: captured for the session and not hardened.
        used_bytes, capacity_bytes: memory and spill together, over all sessions of the controller.
        spilled_bytes: those of the used bytes that are on disk only.
        full_in_s: at the present rate it is full after so many seconds; None while it is not filling.
        waiting_write_count: writes that wait for room now.
        held_write_count, held_s: writes held for the session since the controller started, and for how long in sum.
        spill_trouble: why the spill cannot be written; None when it can.
        volumes: those whose writes are delayed, or were in the last seconds.
    """

    session_bytes: int
    used_bytes: int
    capacity_bytes: int
    spilled_bytes: int
    full_in_s: int | None
    waiting_write_count: int
    held_write_count: int
    held_s: float
    spill_trouble: str | None
    volumes: tuple[VolumeDelayReport, ...] = ()


class SpillReport(Report):
    """The part of the side file that is on disk, over all sessions of the controller.

    Attributes:
        spilled_bytes: captured bytes that are there and not in memory.
        reserved_bytes: space that its files take, at most `bytes_max`.
        trouble: why it could not be written last; None when it could.
    """

    spilled_bytes: int
    reserved_bytes: int
    bytes_max: int
    trouble: str | None = None
