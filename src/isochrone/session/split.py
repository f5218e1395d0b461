"""After a recovery: two sides that may both have taken writes, and the resync that gives one side's writes up.

Nothing here ever chooses. A recovered session stays ENDED; it knows the last common time, what was written here since
(OwnMarks) and what its primaries said when they were fenced. When an operator has named the side to discard:

- the secondary: this session begins again under a newer epoch (`discard_secondary`). Each primary is first told the
  tracks that were written here, in bounded pieces, each answered; then it is appointed the primary again. The link is
  opened anew after that and all goes on as in any resync: the image that was in service stays until every track that
  either side wrote has come, behind the commit gate, and a recovery meanwhile goes back to it.
- the primary: the old primary's controller begins a session in the other direction (transitions.turned_round), which
  tells and appoints this controller in the same way. This session has ended then for good, and forgets itself.

Marks of our own are kept until every pair is DUPLEX again. A primary that says it awaits an appointment when there are no
such marks any more (a power loss took it back behind its appointment) is told that everything may differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isochrone.link.messages import MARK_RUNS_MAX, Appoint, Marks
from isochrone.model.states import SessionState
from isochrone.session import transitions
from isochrone.session.contact import Contact, ContactState
from isochrone.session.core import SessionCore


class Split:
    """What one session does about a split."""

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._untold: dict[int, Iterator[Marks]] = {}

    # In service

    def serve(self) -> None:
        """The volumes come into service: mark from the first write on. Called before the document says ENDED."""
        document = self._core.document
        heirs = [source.controller_id for source in document.sources if source.controller_id]
        self._core.own_marks.serve(
            document.session_id,
            document.name,
            document.epoch,
            recovered_ns=document.recovered_ns,
            volumes=[pair.secondary_number for pair in document.pairs if pair.secondary_number is not None],
            heirs=heirs if len(document.sources_in_use) == 1 else (),
            policy=document.policy,
        )

    @property
    def is_superseded(self) -> bool:
        """Whether the direction has turned round: this controller is the primary now."""
        document = self._core.document
        return document.state is SessionState.ENDED and self._core.own_marks.is_superseded(
            document.session_id, document.epoch
        )

    # The primaries' writes win

    def discard_secondary(self) -> None:
        """Begin again under a newer epoch: what was written here since is given up. Raises ConflictError."""
        core = self._core
        core.remember(transitions.begun_again(core.document, core.now_ns()))
        core.own_marks.hold(core.document.session_id)
        for source, contact in core.contacts.items():
            if contact.state is not ContactState.DOWN:
                core.close(source, "the session begins again under a newer epoch")
        core.mover.restart()
        core.follow_document()

    def tick(self, *, is_lift_durable: bool) -> None:
        """Keep own marks as long as they may be needed, and no longer.

        Args:
            is_lift_durable: no power loss can bring back a hold that has ended.
        """
        document = self._core.document
        if document.is_over:
            return
        if document.hold_floor_ns is None and is_lift_durable and all(pair.duplex for pair in document.pairs):
            self._core.own_marks.drop(document.session_id, document.epoch)
        else:
            self._core.own_marks.hold(document.session_id)

    # Telling and appointing a primary

    def begin_to_tell(self, source: int, contact: Contact) -> None:
        """The primary awaits its appointment: first it must know what was written here."""
        contact.enter(ContactState.APPOINTING, self._core.now_ns())
        self._untold[source] = self._pieces(source)
        self.tell_next(source)

    def tell_next(self, source: int) -> None:
        """Send the next piece, or the appointment when all have been answered."""
        piece = next(self._untold[source], None)
        self._core.send(source, Appoint(self._core.document.epoch) if piece is None else piece)

    def appointed(self, source: int) -> None:
        """It is the primary under our epoch, durably: meet it anew as such."""
        self._untold.pop(source, None)
        self._core.close(source, f"appointed the primary under epoch {self._core.document.epoch}")

    def _pieces(self, source: int) -> Iterator[Marks]:
        marked = self._core.own_marks.marked(self._core.document.session_id)
        for pair in self._core.document.pairs:
            if pair.source != source or pair.secondary_number is None:
                continue
            tracks = (marked or {}).get(pair.secondary_number)
            if tracks is None:
                tracks = np.ones(
                    self._core.pool.volume_by_number(pair.secondary_number).track_count, np.bool_
                )
            for runs in runs_of(tracks):
                yield Marks(pair.primary_volume, runs)


def runs_of(tracks: NDArray[np.bool_]) -> Iterator[list[int]]:
    """Yield the true runs of `tracks` as first track and count, one pair after the other, MARK_RUNS_MAX runs at a time."""
    edges = np.flatnonzero(np.diff(tracks.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    runs = edges.reshape(-1, 2)
    for first in range(0, len(runs), MARK_RUNS_MAX):
        part = runs[first : first + MARK_RUNS_MAX].copy()
        part[:, 1] -= part[:, 0]
        yield [int(number) for number in part.ravel().tolist()]
