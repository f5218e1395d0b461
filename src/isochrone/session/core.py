"""What every part of a session works on: its document, the contacts with its primaries, its mover, and what is to be done.

The document in the pool is written before anything is staged on its strength (a new incarnation, a confirmed pair), and
together with the commit that makes it true (DUPLEX), in the order of the pool's log; so after a crash at any step the
document never says more than the staged and committed records bear out.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.link.messages import Configure, Message, WantedVolume
from isochrone.mover.mover import Mover
from isochrone.mover.settings import MoverSettings
from isochrone.session.actions import Action, CloseLink, SendMessage
from isochrone.session.contact import Contact, ContactState
from isochrone.session.document import PairDocument, SessionDocument
from isochrone.session.own_marks import OwnMarks
from isochrone.session.settings import SessionSettings
from isochrone.store.pool import Pool


class SessionCore:
    """See the module's essay.

    Args:
        document: as restored from the pool, or new (then call `remember` first).
        clock: host time in nanoseconds.
        jitter: draws from [0, 1) to spread reconnects.
        own_marks: of what applications write here once the session has been recovered.

    Attributes:
        contacts: by source number.
        actions: what the shell is to do.
        is_forgotten: the session was deleted; nothing may bring it back.
        lifted_floor_ns: floor of a hold that the document no longer has, while that is not durable yet; else None.
    """

    def __init__(
        self,
        pool: Pool,
        document: SessionDocument,
        clock: Callable[[], int],
        jitter: Callable[[], float],
        settings: SessionSettings,
        own_marks: OwnMarks,
    ) -> None:
        self.document = document
        self.settings = settings
        self.pool = pool
        self.own_marks = own_marks
        self.mover = Mover(pool, document.number, mover_settings(document))
        self.contacts: dict[int, Contact] = {}
        self.actions: list[Action] = []
        self.is_forgotten = False
        self.lifted_floor_ns: int | None = None
        self._clock = clock
        self._jitter = jitter
        self.follow_document()

    def remember(self, document: SessionDocument) -> None:
        """Make `document` the session's, in the pool's log and in memory; when the pool refuses it, in neither.

        What comes after a session was forgotten must not bring it back.
        """
        if self.is_forgotten:
            return
        if document != self.document or document.key not in self.pool.documents:
            self.pool.put_document(document.key, document.model_dump_json().encode())
            self.document = document
            self.pool.log_write()
        self.follow_document()

    def follow_document(self) -> None:
        """Have a contact with every primary, and let F count those that have pairs."""
        now_ns = self._clock()
        for source, known in enumerate(self.document.sources):
            if source not in self.contacts:
                self.contacts[source] = Contact(self.settings, self._jitter, now_ns, known.held)
        in_use = self.document.sources_in_use
        confirmed = {pair.source for pair in self.document.pairs if pair.is_confirmed}
        complete = {pair.source for pair in self.document.pairs if pair.complete}
        for source in in_use:
            self.mover.add_source(source, is_new=source not in confirmed, is_complete=source in complete)
        for source in set(self.mover.sources) - in_use:
            self.mover.remove_source(source)

    def now_ns(self) -> int:
        """Return host time."""
        return self._clock()

    def send(self, source: int, message: Message) -> None:
        """Send `message` to `source`."""
        self.actions.append(SendMessage(source, message))

    def close(self, source: int, reason: str) -> None:
        """Close the link to `source` and try again later."""
        self.actions.append(CloseLink(source, reason))
        self.contacts[source].lost(reason, self._clock())

    @property
    def is_lifting_hold(self) -> bool:
        """Whether the end of a hold is on its way to be durable."""
        return self.lifted_floor_ns is not None

    def configure(self, source: int) -> None:
        """Tell `source` which of its volumes are in the session; pairs that do not fit are left out."""
        contact = self.contacts[source]
        contact.configures_sent += 1
        wanted = [
            WantedVolume(
                pair.primary_volume,
                pair.is_confirmed,
                pair.priority,
                pair.pace,
                pair.suspend_at_ns,
                pair.duplex,
            )
            for pair in self.document.pairs
            if pair.source == source and not pair.removing and not self.is_left_out(pair)
        ]
        message = Configure(
            contact.configures_sent, wanted, self.document.policy, self.document.suspend_at_ns
        )
        self.actions.append(SendMessage(source, message, durably=True))

    def reconfigure(self) -> None:
        """Tell every primary that is reached what is wanted now, also what did not fit before."""
        for source, contact in self.contacts.items():
            contact.misfits.clear()
            if contact.is_welcomed:
                self.configure(source)

    def is_left_out(self, pair: PairDocument) -> bool:
        """Whether a pair was found not to fit, and its primary is not asked for it."""
        return not pair.is_confirmed and pair.primary_volume in self.contacts[pair.source].misfits

    def retry_misfits(self, now_ns: int) -> None:
        """Ask again for pairs that were left out and may fit now."""
        for source, contact in self.contacts.items():
            if contact.state is not ContactState.STREAMING or not contact.misfits.reasons:
                continue
            pairs = (pair for pair in self.document.pairs if pair.source == source)
            if contact.misfits.is_retry_due(self.pool, pairs, now_ns):
                contact.misfits.clear()
                self.configure(source)


def mover_settings(document: SessionDocument) -> MoverSettings:
    """Return what the mover is to obey of the session's settings."""
    return MoverSettings(
        group_interval_ns=document.group_interval_ns, group_bytes_max=document.group_bytes_max
    )
