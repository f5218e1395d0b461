"""Which tracks of a session's volumes the history says were written behind an instant, read in bounded pieces.

Pieces may be in files, and there may be many: each is read and expanded by a call that may run in a thread, as those of an
image are (see `image_build`), while commits go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import IsochroneError
from isochrone.store.kept_entries import KeptEntries, Piece
from isochrone.store.runs import expand

Tracks = NDArray[np.int64]


class WrittenSince:
    """Tracks with an entry behind a time.

    Args:
        numbers: the volume of each base that is looked at.

    Attributes:
        found: by number of the volume, ascending tracks of one piece after the other; whole when `steps` has ended.
    """

    def __init__(self, entries: KeptEntries, at_ns: int, numbers: Mapping[int, int]) -> None:
        self._pieces = entries.pieces
        self._at_ns = at_ns
        self._numbers = numbers
        self.found: dict[int, list[Tracks]] = {number: [] for number in numbers.values()}
        self._error: Exception | None = None

    def steps(self, check: Callable[[], None]) -> Generator[Callable[[], None], None, None]:
        """Yield blocking calls, to be made one after the other in any thread. Raises DamagedError, OSError.

        Args:
            check: raises when the history was given up meanwhile, which is a better reason than that its file is gone.
        """
        index = 0
        while index < len(self._pieces):
            piece = self._pieces[index]
            end = piece.record_count
            yield partial(self._look, piece, 0, end)
            check()
            self._look(piece, end, piece.record_count)  # what was committed meanwhile
            if self._error is not None:
                raise self._error
            index += 1

    def _look(self, piece: Piece, start: int, end: int) -> None:
        try:
            if start < end and piece.newest_ns > self._at_ns:
                self._add(piece, start, end)
        except (OSError, IsochroneError) as error:
            self._error = error

    def _add(self, piece: Piece, start: int, end: int) -> None:
        records = piece.part(start, 0, end, 0).records
        records = records[records["time_ns"] > self._at_ns]
        for base in np.unique(records["volume"]).tolist():
            if base in self._numbers:
                mine = records[records["volume"] == base]
                tracks = np.unique(expand(mine["track"], mine["track_count"]))
                self.found[self._numbers[base]].append(tracks)
