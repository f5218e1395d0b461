"""One session at its secondary: contact with the primaries, states, and when the mover commits.

Events come in through SessionLinks, `hardened` and the commands; `tick` moves time; what is to be done comes out of
`take_actions`. There is one owner and no lock: every call runs to its end.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.link.messages import (
    Ack,
    Forget,
)
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState, SuspendCause
from isochrone.session import transitions
from isochrone.session.actions import Action, Dial, Harden
from isochrone.session.contact import ContactState
from isochrone.session.core import SessionCore, mover_settings
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument
from isochrone.session.gate import commit_limit_ns, copies_are_hardened
from isochrone.session.history import History
from isochrone.session.history_window import gap_of_a_resync
from isochrone.session.own_marks import OwnMarks
from isochrone.session.pair_suspension import PairSuspension
from isochrone.session.recovery import Recovery
from isochrone.session.retry_budget import over_budget_because
from isochrone.session.settings import SessionSettings
from isochrone.session.split import Split
from isochrone.session.suspension import Suspension
from isochrone.store.pool import Pool


class Session(SessionCore):
    """See the module's essay."""

    def __init__(
        self,
        pool: Pool,
        document: SessionDocument,
        clock: Callable[[], int],
        jitter: Callable[[], float],
        settings: SessionSettings,
        own_marks: OwnMarks,
    ) -> None:
        super().__init__(pool, document, clock, jitter, settings, own_marks)
        self.split = Split(self)
        self.recovery = Recovery(self, self.split)
        self.suspension = Suspension(self, self.recovery)
        self.pair_suspension = PairSuspension(self, self.recovery)
        self.history = History(self)
        self.acks_told: dict[int, Ack] = {}
        self.is_deleting = False
        self._lift_is_hardening = False

    def take_actions(self) -> list[Action]:
        """Return and forget what the shell is to do."""
        actions = self.actions[:]
        self.actions.clear()
        return actions

    # Time

    def tick(self) -> None:
        """Dial, stage what waited, form, commit, acknowledge. Called every few milliseconds."""
        if self.is_forgotten:
            return
        now_ns = self._clock()
        for source, contact in self.contacts.items():
            if contact.should_dial(now_ns) and self._wants_link(source):
                contact.enter(ContactState.DIALING, now_ns)
                self.actions.append(Dial(source, self.document.sources[source].address))
            elif contact.is_silent(now_ns):
                self.close(source, "the primary has gone silent")
        if self.split.is_superseded:
            self._forget()
        if self.document.state is SessionState.ENDED:
            self.history.look(now_ns)
            return
        if self.pool.read_only_reason is not None:
            # Nothing can be stored here before the controller is started anew: the primaries must not wait for that.
            if self.document.state is SessionState.ACTIVE:
                reason = f"the pool is read-only: {self.pool.read_only_reason}"
                self.suspension.suspend_all(reason, SuspendCause.ERROR)
            return
        self.split.tick(is_lift_durable=not self.is_lifting_hold)
        if self.mover.full_reason:
            if self.document.hold_floor_ns is not None and not self.document.suspend_at_ns:
                self.mover.compact(self.document.hold_floor_ns)
            self.mover.stage_waiting()
        if self.document.state is not SessionState.RECOVERY:
            self._retry(now_ns)
            if self.mover.form(now_ns):
                self._lift_is_hardening = self.lifted_floor_ns is not None
                self.actions.append(Harden())
            self._commit()
            self.suspension.advance(now_ns)
            self.suspension.suspend_after_link_timeout(now_ns)
            if not self.is_deleting:
                self.suspension.advance_auto_resume(now_ns)
                is_steady = self.document.state is SessionState.ACTIVE and not self.document.suspend_at_ns
                if is_steady and not self.is_draining:
                    self.retry_misfits(now_ns)
            self._drop_removed_pairs()
            for source, answer in self.mover.answers(self._clock):
                self.send(source, answer)
            self.history.look(now_ns)
        else:
            self.recovery.retry_rewind(now_ns)
        self._send_acks()
        self.recovery.advance_drain(now_ns)

    def _retry(self, now_ns: int) -> None:
        """Try again what the device did not take; suspend when the budget for that is used up."""
        self.mover.retry_waiting(now_ns)
        if self.document.state is SessionState.ACTIVE:
            reason = over_budget_because(self.document, self.mover, self.contacts, now_ns)
            if reason:
                self.suspension.suspend_all(reason, SuspendCause.RETRY)

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
            self._lift_is_hardening, self.lifted_floor_ns = False, None
        if not self.recovery.hardened() and not self.document.is_over:
            self._commit()
            self._send_acks()

    def harden_failed(self, reason: str) -> None:
        """The sync failed; the pool takes no more writes, and C stays where it is."""
        self.mover.harden_failed()
        self.mover.full_reason = reason

    def _commit(self) -> None:
        document = self.document
        lifting = self.lifted_floor_ns is not None
        floor_ns = self.lifted_floor_ns if lifting else document.hold_floor_ns
        limit_ns = commit_limit_ns(self.mover.journal_ns, None, document.suspend_at_ns, self.mover.waiting_ns)
        self.mover.commit(commit_limit_ns(limit_ns, floor_ns))
        if lifting:
            return
        waiting = [pair for pair in document.pairs if not pair.duplex and not pair.suspended]
        if document.state is not SessionState.ACTIVE or (not waiting and document.hold_floor_ns is None):
            return
        if document.hold_floor_ns is not None:
            resyncing = [self.copied_through_ns(pair) for pair in waiting if pair.complete]
            if not copies_are_hardened(limit_ns, resyncing):
                return
            # First the end of the hold is made durable, then C moves: were it the other way round, a power loss would bring
            # back the hold, and a recovery then would lose all that C was said to hold since.
            self.lifted_floor_ns = document.hold_floor_ns
            self.mover.want_harden()
            self.history.resync_ended(gap_of_a_resync(document, limit_ns))
            self.remember(transitions.with_hold_lifted(document))
            return
        reached = [
            pair.secondary_volume
            for pair in waiting
            if self.mover.has_interlocked(pair.source)
            and 0 < self.copied_through_ns(pair) <= self.mover.consistency_ns
        ]
        if reached:
            self.remember(transitions.with_duplex(document, reached))
            if any(pair.suspend_at_ns and pair.duplex for pair in self.document.pairs):
                self.reconfigure()  # now its primary is to end it exactly at that time

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
                self.mover.forget_volume(pair.secondary_number)
        leaving = {pair.secondary_volume for pair in gone}
        self.remember(
            self.document.changed(
                pairs=tuple(pair for pair in self.document.pairs if pair.secondary_volume not in leaving)
            )
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

    def suspend(self, reason: str) -> None:
        """Suspend at the earliest instant that all primaries can reach. Raises ConflictError."""
        self.suspension.suspend(reason)

    def resume(self) -> None:
        """Begin again: every primary copies what it marked. Raises ConflictError."""
        self.suspension.resume()

    def add_pairs(self, sources: list[SourceDocument], pairs: list[tuple[str, str, str]]) -> None:
        """Add pairs (primary name, primary volume, secondary volume) to the session. Raises RefusedError."""
        if self.is_draining:
            raise ConflictError(f"session {self.document.name!r} is switching over: add the pairs afterwards")
        self.remember(transitions.with_pairs_added(self.document, sources, pairs))
        self.reconfigure()

    def remove_pairs(self, secondary_volumes: list[str]) -> None:
        """Take pairs out of the session; their secondaries keep what was committed. Raises NotFoundError."""
        if self.is_draining:
            raise ConflictError(
                f"session {self.document.name!r} is switching over: remove the pairs afterwards"
            )
        self.remember(transitions.with_pairs_removing(self.document, secondary_volumes))
        self.reconfigure()

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
        self.mover.settings = mover_settings(document)
        if not links_reopen:
            self.reconfigure()
            return
        for source, contact in self.contacts.items():
            if contact.is_up:
                self.close(source, f"the session's compression is now {document.compression}")

    # Recovery

    def recover(self, *, drain: bool, allow_incomplete: bool, at_ns: int | None = None) -> None:
        """End the session and put its volumes into service here, see Recovery.recover. Raises ConflictError."""
        self.recovery.recover(drain=drain, allow_incomplete=allow_incomplete, at_ns=at_ns)

    def continue_recovery(self) -> None:
        """Go on with a recovery that was interrupted, see Recovery.continue_recovery."""
        self.recovery.continue_recovery()

    @property
    def is_draining(self) -> bool:
        """Whether a planned switchover waits for the last writes."""
        return self.recovery.is_draining

    def discard_secondary(self) -> None:
        """Begin again after a split and give up what was written here, see Split. Raises ConflictError."""
        if self.document.state is SessionState.ENDED:
            self.history.begins_again()
        self.split.discard_secondary()
        self.lifted_floor_ns, self._lift_is_hardening = None, False

    # Deletion

    def delete(self, *, force: bool) -> None:
        """Forget the session here and at its primaries; secondaries keep what was committed.

        Primaries of a session that has ENDED are fenced first and then keep refusing writes until the session is
        deleted there too: what they hold is no longer the truth. With `force`, primaries that cannot be reached are not
        waited for (they go on marking). `is_forgotten` tells when it is done.
        """
        self.is_deleting = True
        for source, contact in self.contacts.items():
            knows_us = contact.is_welcomed or contact.state is ContactState.APPOINTING
            if knows_us and self.document.state is not SessionState.ENDED:
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
        self.own_marks.drop(self.document.session_id, self.document.epoch)
        self.history.forget()
        self.pool.end_session(self.document.number)
        self.pool.delete_document(self.document.key)
        self.pool.log_write()
        self.is_forgotten = True
