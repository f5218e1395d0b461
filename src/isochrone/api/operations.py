"""What a controller does on request, as the API sees it; the controller implements it, tests fake it.

Requests arrive validated by themselves (api.requests); whether they fit the present state is the
implementation's to check. Every method raises the errors of model.errors and changes nothing when it raises
RefusedError or a class of it. None waits for long work: each returns the state reached so far, to be
polled; only recover() waits, up to a bound the controller chooses, because whoever gives that command wants
to see its end.
"""

from __future__ import annotations

from typing import Protocol

from isochrone.api.copy_operations import CopyOperations
from isochrone.api.history_operations import HistoryOperations
from isochrone.api.requests import (
    AddPairsRequest,
    ChangeSessionRequest,
    CreateVolumeRequest,
    RecoverRequest,
    RemovePairsRequest,
    ResizeVolumeRequest,
    ResumeRequest,
    ResyncRequest,
    SessionRequest,
    SuspendRequest,
)
from isochrone.report.models import CaptureReport, PoolReport, SessionReport, StatusReport, VolumeReport


class Operations(Protocol):
    """One controller."""

    @property
    def past(self) -> HistoryOperations:
        """Named instants, histories and images of sessions."""

    @property
    def copying(self) -> CopyOperations:
        """Point-in-time copies."""

    async def status(self) -> StatusReport:
        """Return everything, taken at one moment."""

    async def pool(self) -> PoolReport:
        """Return the pool."""

    async def volumes(self) -> list[VolumeReport]:
        """Return all volumes but snapshots, by name."""

    async def volume(self, name: str) -> VolumeReport:
        """Return one volume of any kind. NotFoundError."""

    async def create_volume(self, request: CreateVolumeRequest) -> VolumeReport:
        """Create and export a volume; durable when it returns. ConflictError: the name is taken."""

    async def resize_volume(self, name: str, request: ResizeVolumeRequest) -> VolumeReport:
        """Change the size. ConflictError: in a session, in use, or smaller without `shrink`."""

    async def delete_volume(self, name: str) -> None:
        """Delete the volume and its data. ConflictError: in a session, open by a client, or it is or has a copy."""

    async def sessions(self) -> list[SessionReport]:
        """Return the sessions whose mover runs here, by name."""

    async def session(self, name: str) -> SessionReport:
        """Return one session whose mover runs here. NotFoundError."""

    async def captures(self) -> list[CaptureReport]:
        """Return the sessions that this controller feeds as a primary, by name."""

    async def capture(self, name: str) -> CaptureReport:
        """Return one session that this controller feeds as a primary. NotFoundError."""

    async def create_session(self, request: SessionRequest) -> SessionReport:
        """Start a session with its mover here.

        Its pairs start PENDING. ConflictError: name or volume in use.
        """

    async def change_session(self, name: str, request: ChangeSessionRequest) -> SessionReport:
        """Change settings of a session. ConflictError: it has ended or is switching over."""

    async def add_pairs(self, name: str, request: AddPairsRequest) -> SessionReport:
        """Add pairs to a running session; they start PENDING."""

    async def remove_pairs(self, name: str, request: RemovePairsRequest) -> SessionReport:
        """Take pairs out; their volumes become SIMPLEX and keep their data as committed."""

    async def suspend(self, name: str, request: SuspendRequest) -> SessionReport:
        """Stop copying; the primaries mark changes. A suspended session then no longer resumes by itself."""

    async def resume(self, name: str, request: ResumeRequest) -> SessionReport:
        """Resynchronise a suspended session. Resuming an active one changes nothing."""

    async def recover(self, name: str, request: RecoverRequest) -> SessionReport:
        """End the session, commit through J, serve its volumes read-write; waits up to a bound, then
        reports the state.

        May be repeated: after a crash in the middle it goes on, after the end it reports the same result.
            ConflictError:
        the image is not complete and `incomplete` was not given. UnavailableError: `drain`, and a primary
        is unreachable.
        """

    async def resync(self, name: str, request: ResyncRequest) -> SessionReport:
        """After a recovery: give one side's writes up and copy the other's.

        At the recovered site for "secondary", at the old primary for "primary". RefusedError: no side was named; the text
            shows both histories. ConflictError: it belongs to the other site, or a client has a volume open.
        """

    async def delete_session(self, name: str) -> None:
        """End and forget a session; volumes and their data stay.

        At its mover: the primaries are told to forget it too. At a controller that is only a primary of it:
            forgotten here,
        with its marks, for a mover that will not come back (one that does is refused).
        """
