"""One session at its secondary: contact with the primaries, states, and when the mover commits.

Events come in through SessionLinks, `hardened` and the commands; `tick` moves time; what is to be done comes out of
`take_actions`. There is one owner and no lock: every call runs to its end.

The document in the pool is written before anything is staged on its strength (a new incarnation, a confirmed pair), and
together with the commit that makes it true (DUPLEX), in the order of the pool's log; so after a crash at any step the
document never says more than the staged and committed records bear out.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.link.messages import (
    Ack,
    Configure,
    Forget,
    Message,
    Quiesce,
    Resume,
    Suspend,
    Unquiesce,
    WantedVolume,
    cut_text,
)
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState
from isochrone.mover.mover import Mover
from isochrone.mover.settings import MoverSettings
from isochrone.session import transitions
from isochrone.session.actions import Action, CloseLink, Dial, Harden, SendMessage
from isochrone.session.contact import Contact, ContactState
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument
from isochrone.session.gate import commit_limit_ns, copies_are_hardened
from isochrone.session.settings import SessionSettings
from isochrone.store.pool import Pool


class Session:
    """See the module's essay.

    Args:
        document: as restored from the pool, or new (then call `remember` first).
        clock: host time in nanoseconds.
        jitter: draws from [0, 1) to spread reconnects.
    """

    def __init__(
        self,
        pool: Pool,
        document: SessionDocument,
        clock: Callable[[], int],
        jitter: Callable[[], float],
        settings: SessionSettings,
    ) -> None:
        self.document = document
        self.settings = settings
        self.mover = Mover(pool, document.number, _mover_settings(document))
        self.contacts: dict[int, Contact] = {}
        self.is_forgotten = False
        self._pool = pool
        self._clock = clock
        self._jitter = jitter
        self._actions: list[Action] = []
        self.acks_told: dict[int, Ack] = {}
        self._drain_began_ns: int | None = None
        self._drain_allows_incomplete = False
        self.is_deleting = False
        self._recovery_waits_for_harden = False
        self._lifted_floor_ns: int | None = None  # of a hold whose end is not durable yet
        self._lift_is_hardening = False
        self._follow_document()

    # Document

    def remember(self, document: SessionDocument) -> None:
        """Make `document` the session's, in the pool's log and in memory; when the pool refuses it, in neither.

        What comes after a session was forgotten must not bring it back.
        """
        if self.is_forgotten:
            return
        if document != self.document or document.key not in self._pool.documents:
            self._pool.put_document(document.key, document.model_dump_json().encode())
            self.document = document
            self._pool.log_write()
        self._follow_document()

    def _follow_document(self) -> None:
        now_ns = self._clock()
        for source in range(len(self.document.sources)):
            if source not in self.contacts:
                self.contacts[source] = Contact(self.settings, self._jitter, now_ns)
        in_use = self.document.sources_in_use
        known = {pair.source for pair in self.document.pairs if pair.is_confirmed}
        complete = {pair.source for pair in self.document.pairs if pair.complete}
        for source in in_use:
            self.mover.add_source(source, is_new=source not in known, is_complete=source in complete)
        for source in set(self.mover.sources) - in_use:
            self.mover.remove_source(source)

    def take_actions(self) -> list[Action]:
        """Return and forget what the shell is to do."""
        actions = self._actions[:]
        self._actions.clear()
        return actions

    def now_ns(self) -> int:
        """Return host time."""
        return self._clock()

    def send(self, source: int, message: Message) -> None:
        """Send `message` to `source`."""
        self._actions.append(SendMessage(source, message))

    def close(self, source: int, reason: str) -> None:
        """Close the link to `source` and try again later."""
        self._actions.append(CloseLink(source, reason))
        self.contacts[source].lost(reason, self._clock())

    # Time

    def tick(self) -> None:
        """Dial, stage what waited, form, commit, acknowledge. Called every few milliseconds."""
        if self.is_forgotten:
            return
        now_ns = self._clock()
        for source, contact in self.contacts.items():
            if contact.should_dial(now_ns) and self._wants_link(source):
                contact.enter(ContactState.DIALING, now_ns)
                self._actions.append(Dial(source, self.document.sources[source].address))
            elif contact.is_silent(now_ns):
                self.close(source, "the primary has gone silent")
        if self.document.state is SessionState.ENDED:
            return
        if self.mover.full_reason:
            if self.document.hold_floor_ns is not None:
                self.mover.compact(self.document.hold_floor_ns)
            self.mover.stage_waiting()
        if self.document.state is not SessionState.RECOVERY:
            if self.mover.form(now_ns):
                self._lift_is_hardening = self._lifted_floor_ns is not None
                self._actions.append(Harden())
            self._commit()
            self._drop_removed_pairs()
        self._send_acks()
        self._advance_drain(now_ns)

    def _wants_link(self, source: int) -> bool:
        if self.document.state is SessionState.ENDED or self.is_deleting:
            return not self.document.sources[source].fenced
        return self.document.state is not SessionState.RECOVERY and source in self.document.sources_in_use

    def hardened(self) -> None:
        """The pool's sync that a Harden asked for has succeeded."""
        if self.is_forgotten:
            return
        self.mover.hardened()
        if self._lift_is_hardening:
            self._lift_is_hardening, self._lifted_floor_ns = False, None
        if self._recovery_waits_for_harden:
            self.continue_recovery()
        elif self.document.state is SessionState.RECOVERY:
            self._advance_recovery()
        elif not self.document.is_over:
            self._commit()
            self._send_acks()

    def harden_failed(self, reason: str) -> None:
        """The sync failed; the pool takes no more writes, and C stays where it is."""
        self.mover.harden_failed()
        self.mover.full_reason = reason

    def _commit(self) -> None:
        document = self.document
        lifting = self._lifted_floor_ns is not None
        floor_ns = self._lifted_floor_ns if lifting else document.hold_floor_ns
        self.mover.commit(commit_limit_ns(self.mover.journal_ns, floor_ns))
        if lifting:
            return
        waiting = [pair for pair in document.pairs if not pair.duplex]
        if document.state is not SessionState.ACTIVE or (not waiting and document.hold_floor_ns is None):
            return
        if document.hold_floor_ns is not None:
            resyncing = [self.copied_through_ns(pair) for pair in waiting if pair.complete]
            if not copies_are_hardened(self.mover.journal_ns, resyncing):
                return
            # First the end of the hold is made durable, then C moves: were it the other way round, a power loss would bring
            # back the hold, and a recovery then would lose all that C was said to hold since.
            self._lifted_floor_ns = document.hold_floor_ns
            self.mover.want_harden()
            self.remember(document.changed(hold_floor_ns=None))
            return
        reached = [
            pair.secondary_volume
            for pair in waiting
            if self.mover.has_interlocked(pair.source)
            and 0 < self.copied_through_ns(pair) <= self.mover.consistency_ns
        ]
        if reached:
            self.remember(transitions.with_duplex(document, reached))

    def copied_through_ns(self, pair: PairDocument) -> int:
        """Return the time by which every image of the pair was captured, 0 while some is missing or unknown."""
        contact = self.contacts[pair.source]
        if pair.primary_number is None or contact.suspended or contact.resuming:
            return 0
        return contact.copied_through_ns.get(pair.primary_number, 0)

    def _drop_removed_pairs(self) -> None:
        """A pair that leaves while its primary cannot be reached goes at once: nothing of it can come any more."""
        gone = [
            pair
            for pair in self.document.pairs
            if pair.removing
            and not self.contacts[pair.source].is_up
            and not (pair.source in self.mover.sources and self.mover.sources[pair.source].waiting)
        ]
        if gone:
            self.drop_pairs(gone)

    def drop_pairs(self, gone: list[PairDocument]) -> None:
        """Pairs leave: their secondaries stay as committed, and what was staged for them is dropped.

        Else a later commit, perhaps that of a resync, would change volumes that somebody else may write by now.
        """
        for pair in gone:
            if pair.secondary_number is not None:
                self._pool.discard_volume(self.document.number, pair.secondary_number)
        self.remember(
            self.document.changed(pairs=tuple(pair for pair in self.document.pairs if pair not in gone))
        )

    def _send_acks(self) -> None:
        for source, contact in self.contacts.items():
            if contact.state is ContactState.STREAMING:
                self.send_ack(source)

    def send_ack(self, source: int) -> None:
        """Tell `source` what of it is hardened and how much it may send, if that is news."""
        if source not in self.mover.sources:
            return
        ack = Ack(self.mover.hardened_ns(source), self.mover.window_bytes(source), self.mover.consistency_ns)
        if ack != self.acks_told.get(source):
            self.acks_told[source] = ack
            self.send(source, ack)

    # Commands

    def configure(self, source: int) -> None:
        """Tell `source` which of its volumes are in the session."""
        contact = self.contacts[source]
        contact.configures_sent += 1
        wanted = [
            WantedVolume(pair.primary_volume, pair.is_confirmed, pair.priority)
            for pair in self.document.pairs
            if pair.source == source and not pair.removing
        ]
        message = Configure(contact.configures_sent, wanted, self.document.policy)
        self._actions.append(SendMessage(source, message, durably=True))

    def suspend_all(self, reason: str) -> None:
        """One primary cannot go on: all stop, so that the image they leave is of one instant."""
        self.remember(transitions.suspended(self.document, reason, self._clock()))
        if self.is_draining:
            self.cancel_drain()  # nothing more will come: applications need not wait for the time limit
        for source, contact in self.contacts.items():
            if contact.is_welcomed and not contact.suspended:
                self.send(source, Suspend(cut_text(reason)))

    def resume_source(self, source: int, contact: Contact) -> None:
        """Ask `source` to begin a new incarnation."""
        contact.resumes_unanswered += 1
        contact.heard_ns = self._clock()  # a suspended primary may have had nothing to say for long
        self.send(source, Resume())

    def suspend(self, reason: str) -> None:
        """Suspend at the earliest instant that all primaries can reach. Raises ConflictError."""
        transitions.suspended(self.document, reason, self._clock())
        self.suspend_all(reason)

    def resume(self) -> None:
        """Begin again: every primary copies what it marked. Raises ConflictError."""
        self.remember(transitions.resumed(self.document, self._clock()))
        for source, contact in self.contacts.items():
            if contact.is_welcomed:
                self.resume_source(source, contact)

    def add_pairs(self, sources: list[SourceDocument], pairs: list[tuple[str, str, str]]) -> None:
        """Add pairs (primary name, primary volume, secondary volume) to the session. Raises RefusedError."""
        if self.is_draining:
            raise ConflictError(f"session {self.document.name!r} is switching over: add the pairs afterwards")
        self.remember(transitions.with_pairs_added(self.document, sources, pairs))
        self._reconfigure()

    def remove_pairs(self, secondary_volumes: list[str]) -> None:
        """Take pairs out of the session; their secondaries keep what was committed. Raises NotFoundError."""
        if self.is_draining:
            raise ConflictError(
                f"session {self.document.name!r} is switching over: remove the pairs afterwards"
            )
        self.remember(transitions.with_pairs_removing(self.document, secondary_volumes))
        self._reconfigure()

    def _reconfigure(self) -> None:
        for source, contact in self.contacts.items():
            if contact.is_welcomed:
                self.configure(source)

    def change_settings(self, document: SessionDocument) -> None:
        """Run with the settings of `document`, see transitions.with_settings. Raises ConflictError.

        Compression is agreed on when a link opens: for another one the links are closed, and go on where they were.
        """
        if self.is_draining:
            raise ConflictError(
                f"session {self.document.name!r} is switching over: change its settings afterwards"
            )
        links_reopen = document.compression is not self.document.compression
        self.remember(document)
        self.mover.settings = _mover_settings(document)
        if not links_reopen:
            self._reconfigure()
            return
        for source, contact in self.contacts.items():
            if contact.is_up:
                self.close(source, f"the session's compression is now {document.compression}")

    # Recovery

    def recover(self, *, drain: bool, allow_incomplete: bool) -> None:
        """End the session and put its volumes into service here.

        With `drain`, the primaries first refuse writes and everything acknowledged is committed; without, everything up
        to J is. Progress is in the document: RECOVERY, then ENDED with `recovered_ns`. Raises ConflictError.
        """
        if self.document.is_over:
            return
        now_ns = self._clock()
        transitions.recovering(self.document, 0, now_ns, allow_incomplete=allow_incomplete)
        if not drain:
            self._begin_recovery(allow_incomplete)
            return
        unreached = [
            self.document.sources[source].name
            for source in self.document.sources_in_use
            if self.contacts[source].state is not ContactState.STREAMING or self.contacts[source].suspended
        ]
        if unreached or self.document.state is not SessionState.ACTIVE:
            raise ConflictError(
                f"a planned switchover needs every primary streaming; "
                f"missing: {', '.join(unreached) or 'session suspended'}. "
                "Recover without --drain if they are lost"
            )
        self._drain_began_ns = now_ns
        self._drain_allows_incomplete = allow_incomplete
        for source in self.document.sources_in_use:
            self.quiesce(source)

    def quiesce(self, source: int) -> None:
        """Ask `source` to refuse writes; only its answer to the newest Quiesce counts."""
        self.contacts[source].quiesces_unanswered += 1
        self.send(source, Quiesce())

    @property
    def is_draining(self) -> bool:
        """Whether a planned switchover waits for the last writes."""
        return self._drain_began_ns is not None

    def _advance_drain(self, now_ns: int) -> None:
        if self._drain_began_ns is None:
            return
        quiesced = [self.contacts[source].quiesced_ns for source in self.document.sources_in_use]
        times_ns = [time_ns for time_ns in quiesced if time_ns is not None]
        if len(times_ns) == len(quiesced) and self.mover.consistency_ns >= max(times_ns, default=0):
            self._drain_began_ns = None
            self._begin_recovery(self._drain_allows_incomplete)
        elif now_ns - self._drain_began_ns > self.settings.drain_ns_max:
            self.cancel_drain()

    def cancel_drain(self) -> None:
        """Give a planned switchover up: the primaries accept writes again."""
        self._drain_began_ns = None
        for source, contact in self.contacts.items():
            contact.quiesced_ns = None
            if contact.is_welcomed:
                self.send(source, Unquiesce())

    def _begin_recovery(self, allow_incomplete: bool) -> None:
        limit_ns = max(
            self.mover.consistency_ns, commit_limit_ns(self.mover.form_ns, self.document.hold_floor_ns)
        )
        document = transitions.recovering(
            self.document, limit_ns, self._clock(), allow_incomplete=allow_incomplete
        )
        for source, contact in self.contacts.items():
            if contact.state is not ContactState.DOWN:
                self.close(source, "the session is being recovered")
        self.remember(document)
        self.continue_recovery()

    def continue_recovery(self) -> None:
        """Harden everything staged, then commit; also called when a controller restarts in RECOVERY."""
        if self.document.state is not SessionState.RECOVERY:
            return
        if self.mover.is_hardening:
            # A sync already under way does not cover what was staged since.
            self._recovery_waits_for_harden = True
            return
        self._recovery_waits_for_harden = False
        self.mover.harden_all()
        self._actions.append(Harden())

    def _advance_recovery(self) -> None:
        """Everything received is durable: link it up to the recovered time, drop the rest, and say so durably."""
        limit_ns = self.document.recovered_ns
        self.mover.journal_ns = max(self.mover.journal_ns, limit_ns)
        self.mover.commit(limit_ns)
        self._pool.discard(self.document.number, limit_ns)
        self.remember(transitions.ended(self.document, self._clock()))
        self._actions.append(Harden())

    # Deletion

    def delete(self, *, force: bool) -> None:
        """Forget the session here and at its primaries; secondaries keep what was committed.

        Primaries of a session that has ENDED are fenced first and then keep refusing writes until the session is
        deleted there too: what they hold is no longer the truth. With `force`, primaries that cannot be reached are not
        waited for (they go on marking). `is_forgotten` tells when it is done.
        """
        self.is_deleting = True
        for source, contact in self.contacts.items():
            if contact.is_welcomed and self.document.state is not SessionState.ENDED:
                self.send(source, Forget())
        if force:
            self._forget()
        else:
            self.finish_delete_if_done()

    def finish_delete_if_done(self) -> None:
        """A primary that never answered has nothing to forget; one that is fenced keeps its refusal of writes."""
        if self.is_deleting and all(
            source.fenced or not source.controller_id for source in self.document.sources
        ):
            self._forget()

    def _forget(self) -> None:
        if self.is_forgotten:
            return
        for source, contact in self.contacts.items():
            if contact.state is not ContactState.DOWN:
                self.close(source, "the session was deleted")
        self._pool.end_session(self.document.number)
        self._pool.delete_document(self.document.key)
        self._pool.log_write()
        self.is_forgotten = True


def _mover_settings(document: SessionDocument) -> MoverSettings:
    return MoverSettings(
        group_interval_ns=document.group_interval_ns, group_bytes_max=document.group_bytes_max
    )
