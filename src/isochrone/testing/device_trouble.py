"""What is wrong with a simulated device: spots that cannot be written, and no space, for a while or for ever."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from isochrone.testing.events import MILLISECOND_NS
from isochrone.testing.sim_disk import Operation

ANY_KIND: Final = ("tracks", "tracks", "half", "all", "space")
WIDE_KINDS: Final = ("half", "all", "space")
"""Kinds of trouble that are met soon."""


@dataclass(slots=True)
class BadSpots:
    """A `SimDisk.trouble`: writes that touch one of some byte ranges of a file fail.

    Attributes:
        ranges: (first byte, end) of each spot.
        error_number: EIO, or ENOSPC for a device without space.
        clock: virtual time.
        until_ns: when the trouble is over; None for never.
        count: writes that failed.
    """

    name: str
    ranges: tuple[tuple[int, int], ...]
    clock: Callable[[], int]
    error_number: int = errno.EIO
    until_ns: int | None = None
    count: int = 0

    def __call__(self, operation: Operation) -> None:
        """Fail `operation` if it touches a spot."""
        if (operation.kind, operation.name) != ("write", self.name):
            return
        if self.until_ns is not None and self.clock() >= self.until_ns:
            return
        end = operation.offset + operation.length
        if any(operation.offset < stop and start < end for start, stop in self.ranges):
            self.count += 1
            raise OSError(self.error_number, f"simulated: {os.strerror(self.error_number)}")


def draw_trouble(
    rng: Random,
    name: str,
    track_count: int,
    track_size_bytes: int,
    clock: Callable[[], int],
    kinds: tuple[str, ...] = ANY_KIND,
) -> BadSpots:
    """Return a trouble of the tracks file `name`: some bad tracks, a bad half, or everything for a while."""
    end = track_count * track_size_bytes
    kind = rng.choice(kinds)
    until_ns = clock() + rng.randrange(20, 500) * MILLISECOND_NS
    if kind == "tracks":
        starts = [rng.randrange(track_count) * track_size_bytes for _ in range(rng.choice((3, 30)))]
        spots = tuple((start, start + track_size_bytes) for start in starts)
        return BadSpots(name, spots, clock, until_ns=rng.choice((None, until_ns)))
    if kind == "half":
        return BadSpots(name, ((0, end // 2),), clock, until_ns=rng.choice((None, until_ns)))
    number = errno.ENOSPC if kind == "space" else errno.EIO
    return BadSpots(name, ((0, end),), clock, number, until_ns)
