"""Follows the comparisons of one simulated primary: which tracks are settled by an answer, told from the history alone.

An answer "equal" settles a track to which nothing was written since the question left: from then on its updates may be sent,
and no image of it. After a write that put other content there the image is still to come, whatever the answer says. A write
that left the same content (a trim of what was empty, say) leaves both open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isochrone.link.messages import Compare, Compared
from isochrone.testing.history import ZERO_TOKEN, History


@dataclass(frozen=True, slots=True)
class _Question:
    volume: str
    pending: NDArray[np.bool_]
    open: NDArray[np.bool_]
    tracks: list[int]
    known: list[tuple[int, bytes]]


class Questions:
    """Questions on their way, by session and number. `equal_count`: tracks that answers have settled."""

    def __init__(self, history: History) -> None:
        self.equal_count = 0
        self._history = history
        self._asked: dict[tuple[str, int], _Question] = {}

    def asked(
        self,
        session_id: str,
        query: Compare,
        volume: str,
        pending: NDArray[np.bool_],
        open_: NDArray[np.bool_],
    ) -> None:
        """A question about `volume` leaves; `pending` and `open_` are what its answer may change."""
        tracks = [track for first, count in query.runs for track in range(first, first + count)]
        known = [self._known(volume, track) for track in tracks]
        self._asked[session_id, query.number] = _Question(volume, pending, open_, tracks, known)

    def answered(self, session_id: str, answer: Compared) -> None:
        """The primary takes an answer."""
        question = self._asked.pop((session_id, answer.number), None)
        if question is None or len(answer.differs) != len(question.tracks):
            return
        for track, (count, token), differs in zip(
            question.tracks, question.known, answer.differs, strict=True
        ):
            count_now, token_now = self._known(question.volume, track)
            if not differs and count_now == count:
                self.equal_count += bool(question.pending[track])
                question.pending[track] = False
            elif not differs and token_now == token:
                question.open[track] = True

    def forget(self) -> None:
        """The process is gone."""
        self._asked.clear()

    def _known(self, volume: str, track: int) -> tuple[int, bytes]:
        """Return how many writes to a track there were, and the content that the newest captured one left."""
        writes = self._history.by_place.get((volume, track), [])
        newest = max(
            (write for write in writes if write.time_ns), key=lambda write: write.order, default=None
        )
        return len(writes), newest.token_at((volume, track)) if newest else ZERO_TOKEN
