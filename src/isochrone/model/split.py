"""Words for a split: both sites may have taken writes since the last time they had in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """A side of a session, by the part that it had when the session was recovered."""

    PRIMARY = "primary"
    """The controllers that were the primaries."""
    SECONDARY = "secondary"
    """The controller that recovered the session."""


class Divergence(StrEnum):
    """Who took writes after the last common time."""

    NONE = "NONE"
    """Nobody: both sides hold the same."""
    PRIMARY = "PRIMARY"
    """Only old primaries did; or they had writes that never arrived."""
    SECONDARY = "SECONDARY"
    """Only the recovered site did."""
    DIVERGED = "DIVERGED"
    """Both did. Whatever is done next, one side's writes are lost: a person must choose."""
    UNKNOWN = "UNKNOWN"
    """Some old primary has not been heard since, and has not said what it wrote."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written at the recovered site since the session ended there.

    Attributes:
        last_write_ns: time of the last write by this host's time, 0 when there was none.
        tracks: marked tracks by volume number; a volume that is missing could not be marked: all of it may differ.
    """

    last_write_ns: int
    tracks: Mapping[int, int]
