"""Suspension: when the primaries of a session stop, and how they begin again.

::

    IMMEDIATE            every primary drops what it has not sent; the image comes to F, the newest instant all had reached
    ATTIME T, DRAIN      pending: Configure tells T to every primary, each cuts its stream exactly there (capture.cut), the
                         gate lets nothing past T be committed; once J is at T the image is all writes up to T: SUSPENDED
    CANCEL               of a pending one, before T

DRAIN is ATTIME with the present as T: everything that was acknowledged before the command is in the image. Records that
are later than T may have been sent already, also promised and hardened, before a primary heard of T. They stay staged:
the mover may have said that they are hardened, and marks may have been cleared on the strength of it, so throwing them away
could lose writes. The gate keeps them out of the image until a resync has brought the rest. For the same reason T must not
be before F when the command comes (S1, P1.3): what is up to F can no longer be left out by every primary.

A primary that cuts cannot be told to go on: its writes after T are only marked. So a CANCEL that crosses a cut comes too
late, and the session suspends all the same. What a primary that cannot be reached still has is waited for, but not for ever.
"""

from __future__ import annotations

from isochrone.link.messages import Resume, Suspend, cut_text
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState, SuspendCause
from isochrone.session import transitions
from isochrone.session.auto_resume import AutoResume, Outlook, budget
from isochrone.session.contact import Contact, ContactState
from isochrone.session.core import SessionCore
from isochrone.session.recovery import Recovery


class Suspension:
    """Suspend and resume of one session."""

    def __init__(self, core: SessionCore, recovery: Recovery) -> None:
        self._core = core
        self._recovery = recovery
        self.auto_resume = AutoResume(core.settings, core.document.auto_resume_attempts)

    # At once

    def suspend(self, reason: str) -> None:
        """Suspend at the earliest instant that all primaries can reach; one that is SUSPENDED will not resume by itself.

        Raises ConflictError.
        """
        transitions.suspended(self._core.document, reason, self._core.now_ns())
        self.suspend_all(reason, SuspendCause.COMMAND)

    def suspend_all(self, reason: str, cause: SuspendCause) -> None:
        """One primary, or this site, cannot go on: all stop, so that the image they leave is of one instant.

        On a pool that takes no writes it is said, not remembered: the primaries remember it, and tell it after a restart.
        """
        core = self._core
        form_ns = core.mover.form_ns
        document = transitions.suspended(core.document, reason, core.now_ns(), cause=cause, form_ns=form_ns)
        if core.pool.read_only_reason is None:
            core.remember(document)
        else:
            core.document = document
        self._tell_primaries()

    def _tell_primaries(self) -> None:
        if self._recovery.is_draining:
            self._recovery.cancel_drain()  # nothing more will come: applications need not wait for the time limit
        for source, contact in self._core.contacts.items():
            if contact.is_welcomed and not contact.suspended:
                self.suspend_source(source)

    def suspend_source(self, source: int) -> None:
        """Tell one primary that the session is suspended."""
        document = self._core.document
        reason = document.reason or "suspended at the secondary"
        self._core.send(source, Suspend(cut_text(reason), document.cause))

    # At a time

    def suspend_at(self, at_ns: int, reason: str) -> None:
        """Suspend when the image is exactly all writes up to `at_ns`, host time. Raises ConflictError.

        A pending suspension is replaced, unless its own time has come.
        """
        document = self._core.document
        if document.state is not SessionState.ACTIVE:
            raise ConflictError(
                f"session {document.name!r} is {document.state}: only an ACTIVE session can be suspended at a time",
                session=document.name,
            )
        if self._recovery.is_draining:
            raise ConflictError(f"session {document.name!r} is switching over: it ends with that")
        self._refuse_when_it_has_come("another time")
        if at_ns < self._core.mover.form_ns:
            raise ConflictError(
                f"time already passed: session {document.name!r} has received later writes; "
                "give a time that is still to come, or suspend with --drain",
                session=document.name,
            )
        self._set_time(at_ns, reason)

    def drain(self, reason: str, now_ns: int) -> None:
        """Suspend once everything acknowledged up to now is committed. Raises ConflictError.

        Args:
            now_ns: the present of the primaries' host time, as well as the caller knows it.
        """
        self.suspend_at(max(now_ns, self._core.now_ns(), self._core.mover.form_ns), reason)

    def cancel(self) -> None:
        """Forget a pending suspension. Raises ConflictError when none is, or when its time has come."""
        document = self._core.document
        if not document.suspend_at_ns:
            raise ConflictError(
                f"no suspension of session {document.name!r} is pending; a SUSPENDED session is resumed with "
                f"`isochrone session resume {document.name}`",
                session=document.name,
            )
        self._refuse_when_it_has_come("a cancel")
        self._set_time(0, "")

    def _refuse_when_it_has_come(self, what: str) -> None:
        document = self._core.document
        has_cut = any(contact.cut_ns for contact in self._core.contacts.values())
        if document.suspend_at_ns and (has_cut or self._core.now_ns() >= document.suspend_at_ns):
            raise ConflictError(
                f"too late for {what}: the time of the pending suspension of session {document.name!r} has come, and "
                f"primaries have cut their streams; resume it once it is SUSPENDED",
                session=document.name,
            )

    def _set_time(self, at_ns: int, reason: str) -> None:
        self._core.remember(transitions.suspending(self._core.document, at_ns, reason))
        self._core.reconfigure()

    def was_cut(self, source: int, contact: Contact, cut_ns: int) -> None:
        """Primary `source` has cut its stream: nothing later than `cut_ns` will come in this incarnation."""
        core = self._core
        if contact.resuming or core.document.state is not SessionState.ACTIVE:
            return
        contact.cut_ns = cut_ns
        if 0 < core.document.suspend_at_ns <= cut_ns:
            return
        name = core.document.sources[source].name
        reason = f"a suspension was cancelled too late: primary {name} had cut its stream already"
        if cut_ns < core.mover.form_ns:
            self.suspend_all(reason, SuspendCause.COMMAND)
        else:
            self._set_time(cut_ns, reason)

    def advance(self, now_ns: int) -> None:
        """Suspend when everything up to the pending time is committed, or can no longer be waited for."""
        core = self._core
        at_ns = core.document.suspend_at_ns
        if core.document.state is not SessionState.ACTIVE or not at_ns or core.is_lifting_hold:
            return
        reached = core.mover.journal_ns >= at_ns
        if not reached and now_ns - at_ns <= core.settings.suspend_wait_ns_max:
            return
        is_exact = reached and core.mover.consistency_ns == at_ns
        reason = core.document.suspend_reason + self._remark(reached, is_exact)
        form_ns = core.mover.form_ns
        core.remember(
            transitions.suspended_at(core.document, reason, now_ns, form_ns=form_ns, is_exact=is_exact)
        )
        self._tell_primaries()

    def _remark(self, reached: bool, is_exact: bool) -> str:
        if is_exact:
            return ""
        if reached:
            return " (a resync was not complete: the image stays the one from before it)"
        seconds = self._core.settings.suspend_wait_ns_max / 1e9
        names = ", ".join(self.behind(self._core.document.suspend_at_ns)) or "what was received"
        return f" (not reached within {seconds:.0f} s after its time: {names}; the image is of what had come from all)"

    def behind(self, at_ns: int) -> list[str]:
        """Return the names of primaries that have not sent everything up to `at_ns`, of those that count into F."""
        core = self._core
        return [
            f"primary {core.document.sources[number].name}"
            for number, state in sorted(core.mover.sources.items())
            if state.joined_ns is not None and state.through_ns < at_ns
        ]

    def suspend_after_link_timeout(self, now_ns: int) -> None:
        """Suspend when a primary that F waits for has been missing for longer than the session's time-out.

        The others need not fill their side files, nor the pool, for it any longer.
        """
        core = self._core
        timeout_ns = core.document.policy.link_timeout_ns
        if not timeout_ns or core.document.state is not SessionState.ACTIVE:
            return
        for number, state in sorted(core.mover.sources.items()):
            contact = core.contacts[number]
            missing = contact.state is not ContactState.STREAMING
            if missing and state.joined_ns is not None and now_ns - contact.streaming_until_ns > timeout_ns:
                name = core.document.sources[number].name
                text = f"primary {name} has not been streaming for {timeout_ns / 1e9:g} s: {contact.error}"
                self.suspend_all(text, SuspendCause.LINK)
                return

    # Beginning again

    def outlook(self, now_ns: int) -> Outlook | None:
        """Return what will become of the present suspension; None when there is none."""
        core = self._core
        document = core.document
        if document.state is not SessionState.SUSPENDED:
            return None
        if not document.policy.auto_resume:
            return Outlook(waits_for="a command: automatic resume is off")
        held = [contact.held for contact in core.contacts.values()]
        impact = budget(held, document.policy.auto_resume_budget_ns, now_ns)
        obstacles = [*self._missing_primaries(), *self._missing_room()]
        linked_ns = max((core.contacts[source].since_ns for source in document.sources_in_use), default=0)
        return self.auto_resume.outlook(
            document.cause,
            document.since_ns,
            obstacles,
            impact,
            now_ns,
            not_before_ns=linked_ns + core.settings.report_wait_ns,
        )

    def _missing_primaries(self) -> list[str]:
        """One that was never reached is in nobody's way (late joiner)."""
        core = self._core
        return [
            f"primary {core.document.sources[source].name}: {core.contacts[source].error or 'not connected'}"
            for source in sorted(core.document.sources_in_use)
            if core.contacts[source].state is not ContactState.STREAMING
            and core.document.sources[source].controller_id
        ]

    def _missing_room(self) -> list[str]:
        pool = self._core.pool
        if pool.read_only_reason is not None:
            return [f"the pool to take writes: {pool.read_only_reason}"]
        free = pool.available_track_count
        wanted = 2 * self._core.mover.tracks_kept
        if free < wanted:
            return [f"room in the pool: {free} tracks are free, {wanted} are needed"]
        return []

    def advance_auto_resume(self, now_ns: int) -> None:
        """Resume by itself when it is time."""
        core = self._core
        if core.document.state is SessionState.ACTIVE:
            is_duplex = bool(core.document.pairs) and all(pair.duplex for pair in core.document.pairs)
            self.auto_resume.running(now_ns, is_duplex=is_duplex)
            if self.auto_resume.attempts != core.document.auto_resume_attempts:
                core.remember(core.document.changed(auto_resume_attempts=self.auto_resume.attempts))
            return
        outlook = self.outlook(now_ns)
        if outlook is not None and outlook.due:
            self.auto_resume.resumed()
            self.resume()

    def keep_held(self, source: int, contact: Contact) -> None:
        """Keep what counts against the host-impact budget over restarts, when there is enough of it that is new."""
        core = self._core
        if (
            core.pool.read_only_reason is None
            and not core.document.is_over
            and (held := contact.held.to_keep())
        ):
            core.remember(core.document.with_source(source, held=held))

    def resume(self) -> None:
        """Begin again: every primary copies what it marked. Raises ConflictError."""
        document = transitions.resumed(self._core.document, self._core.now_ns())
        self._core.remember(document.changed(auto_resume_attempts=self.auto_resume.attempts))
        self._core.mover.restart_budget(self._core.now_ns())
        for contact in self._core.contacts.values():
            contact.accepted()
        for source, contact in self._core.contacts.items():
            contact.streaming_until_ns = self._core.now_ns()  # the time-out begins anew
            if contact.is_welcomed:
                self.resume_source(source, contact)

    def resume_source(self, source: int, contact: Contact) -> None:
        """Ask `source` to begin a new incarnation."""
        contact.resumes_unanswered += 1
        contact.cut_ns = 0
        contact.heard_ns = self._core.now_ns()  # a suspended primary may have had nothing to say for long
        self._core.send(source, Resume())
