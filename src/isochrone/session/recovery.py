"""How a session ends in service: a planned switchover's drain, and recovery, which is a state and not a procedure.

::

    recover --drain -> Quiesce to every primary -> all quiesced and C past it -> RECOVERY
    recover ------------------------------------------------------------------> RECOVERY -> harden all -> commit -> ENDED
"""

from __future__ import annotations

from isochrone.link.messages import Quiesce, Unquiesce
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState
from isochrone.session import transitions
from isochrone.session.actions import Harden
from isochrone.session.contact import ContactState
from isochrone.session.core import SessionCore
from isochrone.session.gate import commit_limit_ns
from isochrone.session.split import Split


class Recovery:
    """Drain and recovery of one session."""

    def __init__(self, core: SessionCore, split: Split) -> None:
        self._core = core
        self._split = split
        self._drain_began_ns: int | None = None
        self._drain_allows_incomplete = False
        self._waits_for_harden = False

    def recover(self, *, drain: bool, allow_incomplete: bool) -> None:
        """End the session and put its volumes into service here.

        With `drain`, the primaries first refuse writes and everything acknowledged is committed; without, everything up
        to J is. Progress is in the document: RECOVERY, then ENDED with `recovered_ns`. Raises ConflictError.
        """
        if self._core.document.is_over:
            return
        now_ns = self._core.now_ns()
        transitions.recovering(self._core.document, 0, now_ns, allow_incomplete=allow_incomplete)
        if not drain:
            self._begin_recovery(allow_incomplete)
            return
        unreached = [
            self._core.document.sources[source].name
            for source in self._core.document.sources_in_use
            if self._core.contacts[source].state is not ContactState.STREAMING
            or self._core.contacts[source].suspended
        ]
        if self._core.document.suspend_at_ns:
            raise ConflictError(
                f"a suspension of session {self._core.document.name!r} is pending: cancel it before a planned switchover, "
                f"`isochrone session suspend {self._core.document.name} --cancel`"
            )
        if unreached or self._core.document.state is not SessionState.ACTIVE:
            raise ConflictError(
                f"a planned switchover needs every primary streaming; "
                f"missing: {', '.join(unreached) or 'session suspended'}. "
                "Recover without --drain if they are lost"
            )
        self._drain_began_ns = now_ns
        self._drain_allows_incomplete = allow_incomplete
        for source in self._core.document.sources_in_use:
            self.quiesce(source)

    def quiesce(self, source: int) -> None:
        """Ask `source` to refuse writes; only its answer to the newest Quiesce counts."""
        self._core.contacts[source].quiesces_unanswered += 1
        self._core.send(source, Quiesce())

    @property
    def is_draining(self) -> bool:
        """Whether a planned switchover waits for the last writes."""
        return self._drain_began_ns is not None

    def advance_drain(self, now_ns: int) -> None:
        """Begin the recovery once everything the primaries acknowledged is committed, or give the switchover up."""
        if self._drain_began_ns is None:
            return
        quiesced = [self._core.contacts[source].quiesced_ns for source in self._core.document.sources_in_use]
        times_ns = [time_ns for time_ns in quiesced if time_ns is not None]
        if len(times_ns) == len(quiesced) and self._core.mover.consistency_ns >= max(times_ns, default=0):
            self._drain_began_ns = None
            self._begin_recovery(self._drain_allows_incomplete)
        elif now_ns - self._drain_began_ns > self._core.settings.drain_ns_max:
            self.cancel_drain()

    def cancel_drain(self) -> None:
        """Give a planned switchover up: the primaries accept writes again."""
        self._drain_began_ns = None
        for source, contact in self._core.contacts.items():
            contact.quiesced_ns = None
            if contact.is_welcomed:
                self._core.send(source, Unquiesce())

    def _begin_recovery(self, allow_incomplete: bool) -> None:
        limit_ns = max(
            self._core.mover.consistency_ns,
            commit_limit_ns(
                self._core.mover.form_ns,
                self._core.document.hold_floor_ns,
                self._core.document.suspend_at_ns,
                self._core.mover.waiting_ns,
            ),
        )
        document = transitions.recovering(
            self._core.document, limit_ns, self._core.now_ns(), allow_incomplete=allow_incomplete
        )
        for source, contact in self._core.contacts.items():
            if contact.state is not ContactState.DOWN:
                self._core.close(source, "the session is being recovered")
        self._core.remember(document)
        self.continue_recovery()

    def continue_recovery(self) -> None:
        """Harden everything staged, then commit; also called when a controller restarts in RECOVERY."""
        if self._core.document.state is not SessionState.RECOVERY:
            return
        if self._core.mover.is_hardening:
            # A sync already under way does not cover what was staged since.
            self._waits_for_harden = True
            return
        self._waits_for_harden = False
        self._core.mover.harden_all()
        self._core.actions.append(Harden())

    def _finish(self) -> None:
        """Everything received is durable: link it up to the recovered time, drop the rest, and say so durably."""
        limit_ns = self._core.document.recovered_ns
        self._core.mover.forget_waiting()
        self._core.mover.journal_ns = max(self._core.mover.journal_ns, limit_ns)
        self._core.mover.commit(limit_ns)
        pool, number = self._core.pool, self._core.document.number
        pool.discard(number, limit_ns)
        if pool.staged_count(number):
            # Older than C: a primary that joined late has sent it, and no later commit will come.
            pool.commit(number, limit_ns)
        self._split.serve()
        self._core.remember(transitions.ended(self._core.document, self._core.now_ns()))
        self._core.actions.append(Harden())

    def hardened(self) -> bool:
        """A sync has ended well: go on, if the session is in RECOVERY. Returns whether it is."""
        if self._waits_for_harden:
            self.continue_recovery()
        elif self._core.document.state is SessionState.RECOVERY:
            self._finish()
        else:
            return False
        return True
