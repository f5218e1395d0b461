"""Answers to a primary's Compare: which of its tracks differ from what the secondary will hold.

What counts is the newest content received: the newest staged entry of a track, else what the volume's table holds. The
query comes in the order of the stream, so everything that the primary sent before it has been received; while some of that
waits for room in the pool, or for the device, so do the answers. Hashing is bounded: a few queries, and a few
milliseconds, at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from isochrone.link.messages import COMPARE_QUERIES_MAX, TRACK_HASH_BYTES, Compare, Compared
from isochrone.model.errors import ProtocolError
from isochrone.store.newest import NewestEntries
from isochrone.store.pool import Pool

ANSWER_NS_MAX: Final = 5_000_000
"""After this long no further query is begun before the next tick."""
INDEX_KEPT_NS: Final = 10_000_000_000
"""The index of staged entries is dropped when nothing was asked for this long."""


class Comparer:
    """Queries of one primary, answered in order."""

    def __init__(self, pool: Pool, session: int, source: int) -> None:
        self._pool = pool
        self._session = session
        self._source = source
        self._queries: deque[tuple[Compare, int]] = deque()
        self._newest: NewestEntries | None = None
        self._asked_ns = 0

    def ask(self, query: Compare, number: int) -> None:
        """Take a query about volume `number` of this pool. Raises ProtocolError when too many wait already."""
        if len(self._queries) >= COMPARE_QUERIES_MAX:
            raise ProtocolError(f"more than {COMPARE_QUERIES_MAX} comparisons wait for an answer; reconnect")
        self._queries.append((query, number))

    def answers(self, clock: Callable[[], int]) -> list[Compared]:
        """Answer what there is time for; everything received before the queries must have been staged."""
        began_ns = clock()
        if not self._queries:
            if began_ns - self._asked_ns > INDEX_KEPT_NS:
                self._newest = None
            return []
        self._asked_ns = began_ns
        answers: list[Compared] = []
        while self._queries and (not answers or clock() - began_ns < ANSWER_NS_MAX):
            answers.append(self._answer(*self._queries.popleft()))
        return answers

    def _answer(self, query: Compare, number: int) -> Compared:
        stager = self._pool.stager
        newest = self._newest
        if newest is None or not newest.is_valid or newest.through_ns < query.began_ns:
            newest = self._newest = stager.newest_entries(self._session, self._source)
        tracks = np.concatenate([np.arange(first, first + count) for first, count in query.runs])
        found = stager.hash_newest(newest, number, tracks, query.seed)
        if (
            found is None
        ):  # the volume is gone, or smaller: records of those tracks will be refused in their turn
            return Compared(query.number, (True,) * len(tracks))
        mine = np.frombuffer(found.hashes, np.uint8).reshape(-1, TRACK_HASH_BYTES)
        theirs = np.frombuffer(query.hashes, np.uint8).reshape(-1, TRACK_HASH_BYTES)
        differs = (mine != theirs).any(axis=1)
        differs[list(found.unreadable)] = True
        return Compared(query.number, tuple(differs.tolist()))
