"""Who uses a volume now: sessions, and NBD clients. Asked before anything takes its content away (copies.refusals.Uses)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isochrone.controller.exports import PoolExports
from isochrone.controller.primary_shell import PrimaryShell
from isochrone.controller.session_set import SessionSet
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.refusals import few
from isochrone.model.errors import ConflictError
from isochrone.nbd.constants import META_CONTEXT_CHANGED_PREFIX
from isochrone.nbd.server import ConnectionReport
from isochrone.store.volume import Volume


class VolumeUses:
    """See copies.refusals.Uses.

    Args:
        connections: NBD clients that have chosen an export.
    """

    def __init__(
        self,
        exports: PoolExports,
        primary: PrimaryShell,
        sessions: SessionSet,
        catalogue: Catalogue,
        connections: Callable[[], Sequence[ConnectionReport]],
    ) -> None:
        self._exports = exports
        self._primary = primary
        self._sessions = sessions
        self._catalogue = catalogue
        self._connections = connections

    def session_of(self, volume: str) -> str:
        """Return as what a session has `volume`, and how to take it out; "" when none does."""
        session = self._sessions.owner_of(volume)
        if session:
            return (
                f"it is a secondary of session {session!r}; take the pair out first: `isochrone session remove {session} "
                f"{volume}`"
            )
        captured = self._primary.primary.sessions_of_volume(self._exports.number_of(volume))
        if captured:
            return (
                f"it is a primary of session {captured[0]!r}; take the pair out first, with `isochrone session remove` at "
                "the controller of its secondary; if that is lost, or the session has ended: `isochrone session delete "
                f"{captured[0]}` here"
            )
        return ""

    def is_incomplete(self, volume: str) -> bool:
        """Return whether `volume` is a secondary whose first copy is still running."""
        return any(
            pair.secondary_volume == volume and not pair.complete
            for shell in self._sessions
            if not shell.session.document.is_over
            for pair in shell.session.document.pairs
        )

    def clients_of(self, volume: str) -> list[str]:
        """Return the NBD clients that have `volume` open, or read what changed since it."""
        clients = []
        for one in self._connections():
            if one.export == volume:
                clients.append(one.peer)
            elif volume in self._compared(one):
                clients.append(f"{one.peer} (on {one.export}, for what changed since)")
        return clients

    def _compared(self, one: ConnectionReport) -> list[str]:
        """Return the snapshots that the metadata contexts of a connection compare with."""
        prefix = META_CONTEXT_CHANGED_PREFIX
        names = [name.removeprefix(prefix) for name in one.contexts if name.startswith(prefix)]
        if not names:
            return []
        bases = self._catalogue.bases(one.export)
        return [bases[name] for name in names if name in bases]

    def refuse(self, volume: Volume, done: str) -> None:
        """Raise ConflictError while a session or a client has `volume`, which is to be `done` to."""
        text = f"volume {volume.name!r} cannot be {done}"
        session = self.session_of(volume.name)
        if session:
            raise ConflictError(f"{text}: {session}", name=volume.name)
        count = self._exports.of(volume).connection_count
        if count:
            clients = self.clients_of(volume.name)
            who = f" by {few(clients)}" if clients else ""
            raise ConflictError(
                f"{text}: it is open over NBD ({count} connections){who}; disconnect its clients first",
                name=volume.name,
            )
