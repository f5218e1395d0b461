"""Suspension: when all primaries stop, and how they begin again."""

from __future__ import annotations

from isochrone.link.messages import Resume, Suspend, cut_text
from isochrone.session import transitions
from isochrone.session.contact import Contact
from isochrone.session.core import SessionCore
from isochrone.session.recovery import Recovery


class Suspension:
    """Suspend and resume of one session."""

    def __init__(self, core: SessionCore, recovery: Recovery) -> None:
        self._core = core
        self._recovery = recovery

    def suspend_all(self, reason: str) -> None:
        """One primary cannot go on: all stop, so that the image they leave is of one instant."""
        self._core.remember(transitions.suspended(self._core.document, reason, self._core.now_ns()))
        if self._recovery.is_draining:
            self._recovery.cancel_drain()  # nothing more will come: applications need not wait for the time limit
        for source, contact in self._core.contacts.items():
            if contact.is_welcomed and not contact.suspended:
                self._core.send(source, Suspend(cut_text(reason)))

    def resume_source(self, source: int, contact: Contact) -> None:
        """Ask `source` to begin a new incarnation."""
        contact.resumes_unanswered += 1
        contact.heard_ns = self._core.now_ns()  # a suspended primary may have had nothing to say for long
        self._core.send(source, Resume())

    def suspend(self, reason: str) -> None:
        """Suspend at the earliest instant that all primaries can reach. Raises ConflictError."""
        transitions.suspended(self._core.document, reason, self._core.now_ns())
        self.suspend_all(reason)

    def resume(self) -> None:
        """Begin again: every primary copies what it marked. Raises ConflictError."""
        self._core.remember(transitions.resumed(self._core.document, self._core.now_ns()))
        for source, contact in self._core.contacts.items():
            if contact.is_welcomed:
                self.resume_source(source, contact)
