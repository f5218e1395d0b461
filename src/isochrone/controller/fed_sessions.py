"""The sessions that are fed from a controller as a primary, by name."""

from __future__ import annotations

from isochrone.capture.stream import SessionStream
from isochrone.controller.primary_shell import PrimaryShell
from isochrone.controller.session_set import SessionSet
from isochrone.model.errors import NotFoundError


class FedSessions:
    """A view of the capture core, without the streams in which marks are kept for a mover of ours."""

    def __init__(self, primary: PrimaryShell, sessions: SessionSet) -> None:
        self._primary = primary
        self._sessions = sessions

    def all(self) -> list[SessionStream]:
        """Return them by name."""
        own = {shell.session.document.session_id for shell in self._sessions}
        streams = [
            stream
            for stream in self._primary.primary.streams.values()
            if not (stream.document.awaits_appointment and stream.document.session_id in own)
        ]
        return sorted(streams, key=lambda stream: stream.document.session_name)

    def get(self, name: str) -> SessionStream:
        """Return one of them. Raises NotFoundError."""
        for stream in self.all():
            if stream.document.session_name == name:
                return stream
        raise NotFoundError(f"no session {name!r} is fed from here; see `isochrone status`", name=name)
