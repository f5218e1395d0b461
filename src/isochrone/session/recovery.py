"""How a session ends in service: a planned switchover's drain, and recovery, which is a state and not a procedure.

::

    recover --drain -> Quiesce to every primary -> all quiesced and C past it -> RECOVERY
    recover ------------------------------------------------------------------> RECOVERY -> harden all -> commit -> ENDED
    recover --at T, T before C: snapshots of C and RECOVERY at once -> harden -> rewind -> mark -> ENDED    (see rewinding)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isochrone.link.messages import Quiesce, Unquiesce
from isochrone.model.errors import ConflictError, IsochroneError
from isochrone.model.states import SessionState
from isochrone.session import transitions
from isochrone.session.actions import Harden, Rewind
from isochrone.session.contact import ContactState
from isochrone.session.core import SessionCore
from isochrone.session.gate import commit_limit_ns
from isochrone.session.rewinding import (
    REWIND_RETRY_NS,
    KeepImage,
    is_final,
    keep_in,
    kept_name,
    refuse_unkept,
)
from isochrone.session.split import Split


class Recovery:
    """Drain and recovery of one session.

    Attributes:
        keep_image: makes the snapshots of an image that is left for an earlier one.
        trouble: why it has not gone back yet, "" when nothing is in the way.
    """

    def __init__(self, core: SessionCore, split: Split) -> None:
        self._core = core
        self._split = split
        self.keep_image: KeepImage = keep_in(core.pool)
        self.trouble = ""
        self._is_rewinding = False
        self._rewind_retry_at_ns: int | None = None
        self._drain_began_ns: int | None = None
        self._drain_allows_incomplete = False
        self._waits_for_harden = False

    def recover(self, *, drain: bool, allow_incomplete: bool, at_ns: int | None = None) -> None:
        """End the session and put its volumes into service here.

        With `drain`, the primaries first refuse writes and everything acknowledged is committed; without, everything up
        to J is, or to `at_ns`, which may lie before C where there is a history. Whether that instant can be reached is for
        the caller to know. Progress is in the document: RECOVERY, then ENDED with `recovered_ns`. Raises ConflictError, and
        what making snapshots of the image raises; then nothing was changed.
        """
        if self._core.document.is_over:
            return
        now_ns = self._core.now_ns()
        if at_ns is not None:
            self._recover_at(at_ns, allow_incomplete=allow_incomplete)
            return
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
        pending = [
            p.secondary_volume for p in self._core.document.pairs if p.suspend_at_ns and not p.suspended
        ]
        if pending:
            raise ConflictError(
                f"a suspension of {', '.join(pending)} is pending, whose later writes would be missing: cancel it before a "
                f"planned switchover, `isochrone session suspend {self._core.document.name} --cancel --pair {pending[0]}`"
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
            if not self._core.document.is_image_complete and not self._drain_allows_incomplete:
                self.cancel_drain()  # a pair was set aside meanwhile
                return
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

    @property
    def limit_ns(self) -> int:
        """The newest time that a recovery can reach now: everything up to it is stored, from every primary."""
        core = self._core
        return max(
            core.mover.consistency_ns,
            commit_limit_ns(
                core.mover.form_ns,
                core.document.hold_floor_ns,
                core.document.suspend_at_ns,
                core.mover.waiting_ns,
            ),
        )

    def _begin_recovery(self, allow_incomplete: bool, limit_ns: int | None = None) -> None:
        core = self._core
        document = transitions.recovering(
            core.document,
            self.limit_ns if limit_ns is None else limit_ns,
            core.now_ns(),
            allow_incomplete=allow_incomplete,
        )
        self._close_links()
        core.remember(document)
        self.continue_recovery()

    def _close_links(self) -> None:
        for source, contact in self._core.contacts.items():
            if contact.state is not ContactState.DOWN:
                self._core.close(source, "the session is being recovered")

    def _recover_at(self, at_ns: int, *, allow_incomplete: bool) -> None:
        core = self._core
        if at_ns > self.limit_ns:
            raise ConflictError(
                f"not everything up to {at_ns} is here: session {core.document.name!r} can be recovered to {self.limit_ns} "
                "at most; give an earlier time, or none",
                session=core.document.name,
            )
        if self.is_draining:
            raise ConflictError(
                f"session {core.document.name!r} is switching over: give the command afterwards"
            )
        if at_ns >= core.mover.consistency_ns:
            self._begin_recovery(allow_incomplete, at_ns)
            return
        refuse_unkept(core.document, core.pool.history(core.document.number), at_ns)
        kept = kept_name(core.document, core.pool.volumes)
        document = transitions.rewinding(core.document, at_ns, core.mover.consistency_ns, kept, core.now_ns())
        volumes = [pair.secondary_volume for pair in document.pairs]
        self.keep_image(kept, volumes, {document.key: document.model_dump_json().encode()})
        self._close_links()
        core.document = document
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
        elif self._core.document.state is not SessionState.RECOVERY:
            return False
        elif self._core.document.rewound_from_ns:
            self._begin_rewind()
        else:
            self._finish()
        return True

    # To an instant of the history

    def _begin_rewind(self) -> None:
        if self._is_rewinding:
            return
        core = self._core
        self._is_rewinding, self._rewind_retry_at_ns = True, None
        core.mover.forget_waiting()
        core.pool.discard(core.document.number, core.document.recovered_ns)
        core.pool.log_write()
        core.actions.append(Rewind(core.document.recovered_ns))

    def rewound(self, changed: Mapping[int, NDArray[np.int64]]) -> None:
        """The volumes are what they were: mark what changed since, and put them into service.

        Args:
            changed: by volume number, the tracks that changed since the time that was gone back to.
        """
        core = self._core
        self._is_rewinding, self.trouble = False, ""
        core.mover.went_back(core.document.recovered_ns)
        self._split.serve()
        core.own_marks.mark(core.document.session_id, changed)
        core.remember(transitions.ended(core.document, core.now_ns()))
        core.actions.append(Harden())

    def rewind_failed(self, error: IsochroneError | OSError) -> None:
        """It could not be done now: try again, unless the history that it needs is gone."""
        self._is_rewinding = False
        if is_final(error):
            reason = f"the history was given up before the volumes had gone back, so they stay as they were: {error}"
            self._core.remember(transitions.not_rewound(self._core.document, reason))
            self._finish()
        else:
            self.trouble = str(error)
            self._rewind_retry_at_ns = self._core.now_ns() + REWIND_RETRY_NS

    def retry_rewind(self, now_ns: int) -> None:
        """With every tick in RECOVERY: try again what could not be done."""
        if self._rewind_retry_at_ns is not None and now_ns >= self._rewind_retry_at_ns:
            self._begin_rewind()
