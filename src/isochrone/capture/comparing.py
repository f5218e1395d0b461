"""Comparisons of one stream that are under way: which queries were sent on this link, and what their answers change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.capture.copier import Copier
from isochrone.link.messages import COMPARE_QUERIES_MAX, COMPARE_TRACKS_MAX, Compare, Compared
from isochrone.model.errors import ProtocolError

QUERY_BYTES_MAX: Final = 1 << 20
"""Content of the tracks of one query: read and hashed in one step, at each side."""
ASK_NS_PER_TICK_MAX: Final = 2_000_000
"""After this long no further query is begun before the next tick."""
_SEED_MAX: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Suspects:
    """One volume whose suspected tracks may be asked for: everything captured of them up to `began_ns` was sent."""

    copier: Copier
    volume: int
    began_ns: int


@dataclass(frozen=True, slots=True)
class _Query:
    """The tracks of a query, ascending, and the copier that they were taken from."""

    copier: Copier
    tracks: NDArray[np.int64]


class Comparing:
    """Queries without an answer, at most COMPARE_QUERIES_MAX; numbers are never used twice."""

    def __init__(self, track_size_bytes: int) -> None:
        self._tracks_max = max(1, min(COMPARE_TRACKS_MAX, QUERY_BYTES_MAX // track_size_bytes))
        self._queries: dict[int, _Query] = {}
        self._number = 0
        self._seed = 0

    def begin(self, incarnation: str) -> None:
        """Begin anew. Hashes take their seed from the incarnation: it is random, and those who write do not know it."""
        self.lost()
        self._seed = int(incarnation, 16) & _SEED_MAX

    def queries(
        self, suspects: Iterable[Suspects], clock: Callable[[], int], count_max: int, tracks_max: int
    ) -> Iterator[Compare]:
        """Yield the next queries, at most `count_max`, as far as the window and this tick's time allow.

        Each must be sent before another write is taken.
        """
        began_ns = clock()
        for one in suspects:
            while one.copier.has_suspects:
                now_ns = clock()
                if count_max == 0 or not self.has_room or now_ns - began_ns > ASK_NS_PER_TICK_MAX:
                    return
                count_max -= 1
                query = self.ask(one, now_ns, tracks_max)
                if query is not None:
                    yield query

    @property
    def has_room(self) -> bool:
        """Whether another query may be sent."""
        return len(self._queries) < COMPARE_QUERIES_MAX

    def ask(self, suspects: Suspects, now_ns: int, tracks_max: int) -> Compare | None:
        """Return the next query about `suspects`; None when the tracks that came next cannot be read."""
        asked = suspects.copier.ask(now_ns, min(tracks_max, self._tracks_max), self._seed)
        if asked is None:
            return None
        self._number += 1
        tracks = np.concatenate([np.arange(first, first + count) for first, count in asked.runs])
        self._queries[self._number] = _Query(suspects.copier, tracks)
        return Compare(
            self._number, suspects.volume, suspects.began_ns, self._seed, tuple(asked.runs), asked.hashes
        )

    def answered(self, answer: Compared) -> None:
        """Take an answer. One to a query whose copy was given up changes nothing. Raises ProtocolError."""
        query = self._queries.pop(answer.number, None)
        if query is None:
            if not 0 < answer.number <= self._number:
                raise ProtocolError(f"an answer came to a comparison {answer.number} that was not asked for")
            return
        if len(answer.differs) != len(query.tracks):
            query.copier.ask_again(query.tracks)
            raise ProtocolError(
                f"the answer to a comparison of {len(query.tracks)} tracks is about {len(answer.differs)}"
            )
        query.copier.answered(query.tracks, np.array(answer.differs, np.bool_))

    def lost(self) -> None:
        """The link is gone, and the answers with it: those tracks will be asked for again."""
        for query in self._queries.values():
            query.copier.ask_again(query.tracks)
        self._queries.clear()
