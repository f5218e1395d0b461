"""Limits and intervals of one session's mover."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.model.choices import GROUP_BYTES_MAX_DEFAULT

MIB = 1 << 20
MILLISECOND_NS = 1_000_000
ROOM_KEPT_PART = 16
"""One part in ROOM_KEPT_PART of the pool is kept for the primary that F waits for,"""
ROOM_KEPT_BYTES_MAX = 64 * MIB
"""but not more than this: the largest record set, and some."""


@dataclass(frozen=True, slots=True)
class MoverSettings:
    """What an operator may choose for a session, and the limits that follow from it.

    Attributes:
        group_interval_ns: a consistency group is formed this often.
        group_bytes_max: and as soon as this much was staged since the last one.
        window_bytes: payload and headers that one primary may send ahead of what is staged; bounds receive memory.
        waiting_bytes_max: memory of tracks that wait because the device does not take them; past it the stream waits.
        idle_log_interval_ns: while no writes come, the sessions' times are made durable this often.
    """

    group_interval_ns: int = 10 * MILLISECOND_NS
    group_bytes_max: int = GROUP_BYTES_MAX_DEFAULT
    window_bytes: int = 16 * MIB
    waiting_bytes_max: int = 32 * MIB
    idle_log_interval_ns: int = 1000 * MILLISECOND_NS
