"""The history of one session: what of the past can be reached, what it was called, and when it is given up.

The pool keeps the entries; here it is decided of which volumes, and for how long. A pair is kept from the commit on that
makes it DUPLEX, or from when the history was switched on, and never from the middle of a resync: no image was whole then.
What the pool cannot keep now (no room, say) is tried again, and the report says why: a history never stops replication.

The window is counted back from the committed image, so that a session that stands still (suspended, or without its
primaries) keeps what it has. Once it has ended the window is counted from the present, and the history goes by and by.
"""

from __future__ import annotations

from typing import Final

from isochrone.link.messages import NamedInstant
from isochrone.model.errors import UnavailableError
from isochrone.model.states import SessionState
from isochrone.session.core import SessionCore
from isochrone.session.document import SessionDocument
from isochrone.session.history_document import (
    HISTORY_PREFIX,
    HistoryDocument,
    InstantDocument,
    load_history,
    pruned,
    with_gap_recorded,
    with_instant,
)
from isochrone.session.history_window import (
    Gap,
    Reach,
    joined,
    open_gaps,
    release_for_space_ns,
    release_for_time_ns,
    uncovered,
)
from isochrone.store.history import HistoryStats

LOOK_INTERVAL_NS: Final = 1_000_000_000
"""How often it is looked whether the window of something has passed, or the space is used up."""
STEP_INTERVAL_NS: Final = 20_000_000
"""Between two steps of giving up what has to go."""
BEGIN_AGAIN_NS: Final = 30_000_000_000
"""How long a history that the pool needed all the space of is not begun anew."""


class History:
    """See the module. Its document is in the pool from the first named instant or gap on.

    Attributes:
        trouble: why something is not kept, or not given up, that should be; "" when all is as it should be.
    """

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        name = core.document.name
        value = core.pool.documents.get(HISTORY_PREFIX + name)
        self.document = (
            HistoryDocument(name=name) if value is None else load_history(HISTORY_PREFIX + name, value)
        )
        self.trouble = ""
        self._settled: SessionDocument | None = None
        self._parted: SessionDocument | None = None
        self._look_at_ns = 0
        self._save_at_ns = 0
        self._first_ns: int | None = None
        self._is_unsaved = False

    # What can be reached

    @property
    def stats(self) -> HistoryStats | None:
        """What the pool keeps; None when it keeps nothing."""
        return self._core.pool.history(self._core.document.number)

    def reach(self) -> Reach:
        """Return which instants an image can be made of now."""
        core, stats = self._core, self.stats
        through_ns = max(core.mover.consistency_ns, core.document.suspended_at_ns)
        if core.document.is_over:
            through_ns = core.document.recovered_ns
            if (
                stats is not None
            ):  # a session that went back has what it left, until something else is committed
                through_ns = max(through_ns, stats.through_ns, core.document.rewound_from_ns)
        opened = open_gaps(core.document, through_ns)
        if stats is None:
            return Reach(None, through_ns, joined(self.document.gaps, opened))
        opened += uncovered((stay.from_ns, stay.until_ns) for stay in stats.volumes)
        first_ns = max(stats.first_ns, min((stay.from_ns for stay in stats.volumes), default=stats.first_ns))
        return Reach(first_ns, through_ns, joined(self.document.gaps, opened))

    # Keeping and giving up

    def look(self, now_ns: int) -> None:
        """Keep what is to be kept, and give up what has to go; with every tick. What follows in the tick matters more."""
        try:
            self._look(now_ns)
        except UnavailableError as error:  # no room for a document, say: that passes
            self.trouble = error.message

    def _look(self, now_ns: int) -> None:
        document = self._core.document
        is_due = now_ns >= self._look_at_ns
        if document is not self._settled or (self.trouble and is_due):
            self._settle(document)
        if document.history_ns_max and is_due:
            self._look_at_ns = now_ns + LOOK_INTERVAL_NS
            stats = self.stats
            if stats is not None:
                self._give_up(document, stats, now_ns)
            elif self._first_ns is not None and not document.is_over:
                self._all_given_up(now_ns)

    def _settle(self, document: SessionDocument) -> None:
        """Keep the pairs that are DUPLEX, and none that have left."""
        core = self._core
        if document.history_ns_max and not document.is_over:
            if document is not self._parted:
                here = {pair.secondary_number for pair in document.pairs}
                self._part_with(self._kept() - here)
                self._parted = document
            if document.hold_floor_ns is not None or core.is_lifting_hold:
                return  # look again when the resync is over
            self._keep(document)
        elif not document.history_ns_max and self.stats is not None:
            core.pool.history_drop(document.number)
            self._first_ns, self.trouble = None, ""
            self._remember(self.document.changed(gaps=(), given_up_ns=0, given_up_reason=""))
        self._settled = document

    def _keep(self, document: SessionDocument) -> None:
        pool, kept = self._core.pool, self._kept()
        wanted = {
            pair.secondary_number
            for pair in document.pairs
            if pair.duplex and pair.secondary_number is not None
        }
        self.trouble = ""
        if wanted - kept:
            try:
                # An idle session's commits are not in the pool: without this the history would begin too early.
                pool.commit(document.number, self._core.mover.consistency_ns)
                pool.history_begin(document.number, sorted(wanted - kept))
                self._first_ns = self._first_ns or self._core.mover.consistency_ns
            except UnavailableError as error:
                self.trouble = f"a history cannot begin: {error.message}"

    def _kept(self) -> set[int]:
        """Return the volumes whose commits are kept now, by number."""
        stats = self.stats
        return {stay.number for stay in stats.volumes if stay.until_ns is None} if stats else set()

    def _part_with(self, numbers: set[int]) -> None:
        """What volumes were can be seen on; what others write to them from now on is in no history."""
        for number in sorted(numbers):
            self._core.pool.history_end(self._core.document.number, number)

    def begins_again(self) -> None:
        """The volumes were in service here, and are about to be secondaries again: what was written meanwhile is not kept.

        A resync does not bring all of it: what is found equal at both sites is not sent. So images of what comes must not
        rest on the bases of what was. Called before the session is said to have begun again.
        """
        stats, document = self.stats, self._core.document
        if stats is None:
            return
        if stats.rewound_ns is None:  # else the history goes further already
            self._core.pool.commit(document.number, document.recovered_ns)
        self._part_with(self._kept())

    def _give_up(self, document: SessionDocument, stats: HistoryStats, now_ns: int) -> None:
        """Give up a step's worth of what has to go."""
        first_ns, through_ns = stats.first_ns, stats.through_ns
        given_up_ns, reason = 0, ""
        if self._first_ns is not None and first_ns > self._first_ns:
            given_up_ns, reason = first_ns, "the pool needed the space"
        ended = document.state is SessionState.ENDED
        newest_ns = now_ns if ended else max(through_ns, self._core.mover.consistency_ns)
        to_ns = release_for_time_ns(first_ns, newest_ns, document.history_ns_max)
        if to_ns is None:
            held_bytes = stats.held_bytes + stats.metadata_bytes
            to_ns = release_for_space_ns(first_ns, through_ns, held_bytes, document.history_bytes_max)
            if to_ns is not None:
                given_up_ns, reason = to_ns, "it took more space than --history-size-max allows"
        elif ended and to_ns >= through_ns:
            self._core.pool.history_drop(document.number)
            self._first_ns = None
            return
        if to_ns is not None and to_ns > first_ns:
            first_ns = self._release(document, to_ns, now_ns, is_for_space=bool(given_up_ns))
        self._first_ns = first_ns
        self._note(first_ns, min(given_up_ns, first_ns), reason, now_ns)

    def _all_given_up(self, now_ns: int) -> None:
        """The pool had to have all that the history held: it is begun anew after a while, when there may be room."""
        through_ns = self._core.mover.consistency_ns
        self._first_ns = None
        self._look_at_ns = now_ns + BEGIN_AGAIN_NS
        self.trouble = (
            f"the pool needed all of its space: it begins anew after {BEGIN_AGAIN_NS // 1_000_000_000} s"
        )
        self._note(through_ns, through_ns, "the pool needed the space", now_ns)

    def _release(self, document: SessionDocument, to_ns: int, now_ns: int, *, is_for_space: bool) -> int:
        """Return where the history begins then."""
        try:
            released = self._core.pool.history_release(document.number, to_ns)
            self._core.pool.log_write()
        except UnavailableError as error:  # no room for the tables of what is to go: that passes
            self.trouble = f"old history cannot be given up: {error.message}"
            return self._first_ns or 0
        if released.record_count and (is_for_space or not released.is_done):
            self._look_at_ns = now_ns + STEP_INTERVAL_NS
        return released.first_ns

    def _note(self, first_ns: int, given_up_ns: int, reason: str, now_ns: int) -> None:
        """Remember what was given up, and forget what was said of it; written down now and then only."""
        document = self.document
        if given_up_ns:
            document = document.changed(given_up_ns=given_up_ns, given_up_reason=reason)
        document = pruned(document, first_ns)
        self._is_unsaved |= document != self.document
        self.document = document
        if self._is_unsaved and now_ns >= self._save_at_ns:
            self._save_at_ns = now_ns + LOOK_INTERVAL_NS
            self._save()

    # What is said of the past

    def _remember(self, document: HistoryDocument) -> None:
        if document != self.document and not self._core.is_forgotten:
            self.document = document
            self._save()

    def _save(self) -> None:
        self._core.pool.put_document(self.document.key, self.document.model_dump_json().encode())
        self._core.pool.log_write()
        self._is_unsaved = False

    def was_named(self, source: int, instant: NamedInstant) -> None:
        """Primary `source` names an instant that it has not promised yet: it is durable before J passes it."""
        known = InstantDocument(time_ns=instant.time_ns, text=instant.text, source=source)
        self._remember(with_instant(self.document, known))
        self._core.mover.want_harden()

    def resync_ended(self, gap: Gap) -> None:
        """A hold is about to be lifted: no image of the times in `gap` can be made. Called before that is written."""
        if self._core.document.history_ns_max and gap.to_ns is not None:
            self._remember(with_gap_recorded(self.document, gap.from_ns, gap.to_ns))

    def forget(self) -> None:
        """The session is deleted."""
        self._core.pool.history_drop(self._core.document.number)
        if self.document.key in self._core.pool.documents:
            self._core.pool.delete_document(self.document.key)
