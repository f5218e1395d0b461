"""The history of one session: what of the past can be reached, what it was called, and when it is given up."""

from __future__ import annotations

from isochrone.link.messages import NamedInstant
from isochrone.session.core import SessionCore
from isochrone.session.history_document import (
    HISTORY_PREFIX,
    HistoryDocument,
    InstantDocument,
    load_history,
    with_gap_recorded,
    with_instant,
)
from isochrone.session.history_window import Gap


class History:
    """See the module. Its document is in the pool from the first named instant or gap on."""

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        name = core.document.name
        value = core.pool.documents.get(HISTORY_PREFIX + name)
        self.document = (
            HistoryDocument(name=name) if value is None else load_history(HISTORY_PREFIX + name, value)
        )

    def _remember(self, document: HistoryDocument) -> None:
        if document != self.document and not self._core.is_forgotten:
            self._core.pool.put_document(document.key, document.model_dump_json().encode())
            self.document = document
            self._core.pool.log_write()

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
        if self.document.key in self._core.pool.documents:
            self._core.pool.delete_document(self.document.key)
