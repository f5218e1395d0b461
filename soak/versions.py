"""Random 4 KiB writes in one order, and the proof that an image is exactly one instant of them.

Writes 1, 2, 3, ... go one after the other, each after the one before was acknowledged, to places that follow from a seed.
A block tells the number of its write and the place it was written to. An image whose newest block is of write k must hold
in every place the newest of writes 1 to k that went there, and zeros where none did: anything else is a write missing
before a present one, or a block from another place.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES: Final = 4096
PLACES_DRAWN_AHEAD: Final = 1 << 16
_WORDS: Final = BLOCK_BYTES // 8

Numbers = NDArray[np.int64]


class BlockWriter(Protocol):
    """What the workload needs of a volume."""

    def write(self, offset: int, data: bytes) -> None:
        """Return when the write is acknowledged."""


class Places:
    """Where write 1, 2, 3, ... goes: block numbers over all volumes, drawn from a seed."""

    def __init__(self, seed: int, block_count: int) -> None:
        self._random = np.random.default_rng(seed)
        self._block_count = block_count
        self._drawn: list[Numbers] = []

    def of(self, number: int) -> int:
        """Return the place of one write."""
        part, index = divmod(number - 1, PLACES_DRAWN_AHEAD)
        self._draw(part)
        return int(self._drawn[part][index])

    def through(self, newest: int) -> Numbers:
        """Return the places of writes 1 to `newest`."""
        self._draw(newest // PLACES_DRAWN_AHEAD)
        return np.concatenate(self._drawn)[:newest]

    def _draw(self, part: int) -> None:
        while len(self._drawn) <= part:
            self._drawn.append(self._random.integers(0, self._block_count, PLACES_DRAWN_AHEAD))


@dataclass(frozen=True, slots=True)
class VersionFinding:
    """What an image shows: its newest write, and how many places contradict the instant after that write."""

    newest: int
    fault_count: int
    faults: tuple[str, ...]


def make_block(number: int, place: int) -> bytes:
    """Return the block of a write."""
    return np.array([number, place], np.int64).tobytes() * (_WORDS // 2)


def check_versions(image: bytes, places: Places) -> VersionFinding:
    """Hold an image of all volumes, one after the other, against the writes."""
    words = np.frombuffer(image, np.int64).reshape(-1, _WORDS)
    numbers = words[:, 0]
    newest = int(numbers.max(initial=0))
    expected = np.zeros(len(words), np.int64)
    through = places.through(newest)
    np.maximum.at(expected, through, np.arange(1, newest + 1))
    where = np.where(numbers > 0, np.arange(len(words)), 0)
    whole = (words[:, 0::2] == numbers[:, None]).all(axis=1) & (words[:, 1::2] == where[:, None]).all(axis=1)
    wrong = np.flatnonzero((numbers != expected) | ~whole)
    faults = tuple(
        f"block {place}: write {expected[place]} belongs there, "
        + (f"write {numbers[place]} is" if whole[place] else "parts of several writes are")
        + f", and write {newest} is in the image"
        for place in wrong[:10].tolist()
    )
    return VersionFinding(newest, len(wrong), faults)


class VersionWriter(threading.Thread):
    """Writes until told to stop.

    Attributes:
        issued: the newest write that was sent.
        error: what ended it before it was told to; None when nothing did.
    """

    def __init__(
        self,
        volumes: Sequence[BlockWriter],
        volume_block_count: int,
        places: Places,
        now_ns: Callable[[], int],
        pause_s: float = 0.0,
    ) -> None:
        super().__init__(name="version writer", daemon=True)
        self.issued = 0
        self.error: BaseException | None = None
        self._volumes = volumes
        self._volume_block_count = volume_block_count
        self._places = places
        self._now_ns = now_ns
        self._pause_s = pause_s
        self._acknowledged_ns = array("q")
        self._stopping = threading.Event()

    @property
    def acknowledged(self) -> int:
        """The newest write that was acknowledged."""
        return len(self._acknowledged_ns)

    def acknowledged_through(self, time_ns: int) -> int:
        """Return the newest write that was known to be done at a host time."""
        return bisect_right(self._acknowledged_ns, time_ns)

    def run(self) -> None:
        """Write; the thread's main function."""
        try:
            while not self._stopping.is_set():
                number = self.issued + 1
                place = self._places.of(number)
                volume, block = divmod(place, self._volume_block_count)
                self.issued = number
                self._volumes[volume].write(block * BLOCK_BYTES, make_block(number, place))
                self._acknowledged_ns.append(self._now_ns())
                if self._pause_s:
                    time.sleep(self._pause_s)
        except Exception as error:
            self.error = error

    def continued(self, pause_s: float) -> VersionWriter:
        """Return a writer that goes on after the last write of this one, which has finished."""
        writer = VersionWriter(self._volumes, self._volume_block_count, self._places, self._now_ns, pause_s)
        writer.issued = self.issued
        writer._acknowledged_ns = self._acknowledged_ns
        return writer

    def finish(self) -> None:
        """Stop after an acknowledged write; raise what ended it before."""
        self._stopping.set()
        self.join()
        if self.error is not None:
            raise self.error
