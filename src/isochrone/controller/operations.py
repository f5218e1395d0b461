"""What the controller does on request: the API's Operations over the pool, the capture core and the sessions.

Everything that must not change between a check and what follows it stands between two awaits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

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
from isochrone.capture.stream import SessionStream
from isochrone.controller.capture_reports import Now, capture_report
from isochrone.controller.copying import Copying
from isochrone.controller.exports import PoolExports
from isochrone.controller.fed_sessions import FedSessions
from isochrone.controller.moments import instant_to_recover
from isochrone.controller.past import Past
from isochrone.controller.present import read_now
from isochrone.controller.primary_shell import PrimaryShell
from isochrone.controller.reports import pool_report, volume_report
from isochrone.controller.resyncing import Resyncing
from isochrone.controller.session_reports import primaries_now, session_report
from isochrone.controller.session_set import SessionSet, source_and_pairs, wait_while
from isochrone.controller.session_settings import chosen_pair_pace, chosen_settings
from isochrone.controller.session_shell import SessionShell
from isochrone.controller.split_reports import capture_split_report, session_split_report
from isochrone.controller.suspending import resume_session, suspend_session
from isochrone.copies.refusals import refuse_deletion_of_volume
from isochrone.model.errors import ConflictError, NotFoundError, UnavailableError
from isochrone.model.states import SessionState
from isochrone.report.models import (
    CaptureReport,
    ControllerReport,
    PoolReport,
    SessionReport,
    StatusReport,
    VolumeReport,
)
from isochrone.report.split_models import SplitReport
from isochrone.session import transitions
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume

RECOVER_WAIT_S_MAX: Final = 30.0
"""A recovery that takes longer goes on; the answer says how far it is."""
DELETE_WAIT_S_MAX: Final = 5.0
"""How long a deletion waits for primaries to forget the session."""

_log = structlog.get_logger(__name__)


class ControllerOperations:
    """See api.operations.Operations.

    Args:
        pool_path: for the report.
        controller: reports the process at a moment.
        controller_name: for the histories of a split.
        warning_percent: the level of use that the pool has reached.
        checkpoint_age_s: time since the last completed checkpoint, None when there was none.
        flush: makes the pool durable.
        clock: host time in nanoseconds.
    """

    def __init__(
        self,
        pool: Pool,
        pool_path: str,
        exports: PoolExports,
        primary: PrimaryShell,
        sessions: SessionSet,
        past: Past,
        copying: Copying,
        *,
        controller: Callable[[Now], ControllerReport],
        controller_name: str,
        checkpoint_age_s: Callable[[], float | None],
        warning_percent: Callable[[], int | None],
        flush: Callable[[], Awaitable[None]],
        clock: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._pool_path = pool_path
        self._exports = exports
        self._primary = primary
        self._sessions = sessions
        self.copying = copying
        self._controller = controller
        self._controller_name = controller_name
        self._resyncing = Resyncing(pool, exports, sessions)
        self.past = past
        self._fed = FedSessions(primary, sessions)
        self._checkpoint_age_s = checkpoint_age_s
        self._warning_percent = warning_percent
        self._flush = flush
        self._clock = clock

    def _now(self) -> Now:
        return read_now(self._clock)

    # State

    async def status(self) -> StatusReport:
        """Return everything."""
        now = self._now()
        return StatusReport(
            controller=self._controller(now),
            pool=self._pool_report(),
            volumes=tuple(self._volume_reports()),
            sessions=tuple(self._session_report(shell, now) for shell in self._sessions),
            captures=tuple(self._capture_report(stream, now) for stream in self._fed.all()),
            copies=self.copying.reporter.summary(),
        )

    async def pool(self) -> PoolReport:
        """Return the pool."""
        return self._pool_report()

    def _pool_report(self) -> PoolReport:
        return pool_report(
            self._pool,
            path=self._pool_path,
            checkpoint_age_s=self._checkpoint_age_s(),
            warning_percent=self._warning_percent(),
        )

    # Volumes

    async def volumes(self) -> list[VolumeReport]:
        """Return all volumes but snapshots, by name."""
        return self._volume_reports()

    def _volume_reports(self) -> list[VolumeReport]:
        volumes = [volume for volume in self._pool.volumes.values() if volume.kind.is_writable]
        return [self._volume_report(volume) for volume in sorted(volumes, key=lambda volume: volume.name)]

    async def volume(self, name: str) -> VolumeReport:
        """Return one volume."""
        return self._volume_report(self._volume(name))

    def _volume(self, name: str) -> Volume:
        volume = self._pool.volumes.get(name)
        if volume is None:
            raise NotFoundError(f"no volume {name!r} here; see `isochrone volume list`", name=name)
        return volume

    def _volume_report(self, volume: Volume) -> VolumeReport:
        return volume_report(
            self._exports.of(volume),
            self.copying.catalogue,
            mapped_bytes=volume.mapped_track_count * self._pool.track_size_bytes,
            captured_by=[s.document.session_name for s in self._fed.all() if volume.number in s.volumes],
            secondary_of=self._sessions.secondary_of(volume.name),
        )

    async def create_volume(self, request: CreateVolumeRequest) -> VolumeReport:
        """Create a volume."""
        volume = self._pool.create_volume(request.name, request.size_bytes)
        await self._flush()
        _log.info("volume created", volume=request.name, size_bytes=request.size_bytes)
        return self._volume_report(volume)

    async def resize_volume(self, name: str, request: ResizeVolumeRequest) -> VolumeReport:
        """Change a volume's size."""
        volume = self._volume(name)
        self.copying.uses.refuse(volume, "resized")
        if request.size_bytes < volume.size_bytes and not request.shrink:
            raise ConflictError(
                f"volume {name!r} has {volume.size_bytes} bytes; allow it to shrink if what is beyond "
                f"{request.size_bytes} may be lost",
                name=name,
            )
        self._pool.resize_volume(name, request.size_bytes)
        await self._flush()
        _log.info("volume resized", volume=name, size_bytes=request.size_bytes)
        return self._volume_report(volume)

    async def delete_volume(self, name: str) -> None:
        """Delete a volume and its data."""
        volume = self._volume(name)
        self.copying.uses.refuse(volume, "deleted")
        refuse_deletion_of_volume(self.copying.catalogue, name)
        self.past.catalogue.refuse_deletion_of_volume(name)
        self._pool.delete_volume(name)
        self._exports.forget(volume)
        await self._flush()
        _log.info("volume deleted", volume=name)

    # Sessions fed from here

    async def captures(self) -> list[CaptureReport]:
        """Return the sessions this controller feeds."""
        now = self._now()
        return [self._capture_report(stream, now) for stream in self._fed.all()]

    async def capture(self, name: str) -> CaptureReport:
        """Return one session this controller feeds."""
        return self._capture_report(self._fed.get(name), self._now())

    def _capture_report(self, stream: SessionStream, now: Now) -> CaptureReport:
        primary = self._primary.primary
        return capture_report(
            stream,
            self._primary.link_history(stream.document.session_id),
            primary.capture_report(stream),
            held_write_count=self._primary.held_write_count,
            side_file=primary.side_file,
            split=self._capture_split(stream, now),
            now=now,
        )

    # Sessions whose mover runs here

    async def sessions(self) -> list[SessionReport]:
        """Return the sessions whose mover runs here."""
        now = self._now()
        return [self._session_report(shell, now) for shell in self._sessions]

    async def session(self, name: str) -> SessionReport:
        """Return one session whose mover runs here."""
        return self._session_report(self._sessions.get(name), self._now())

    def _session_report(self, shell: SessionShell, now: Now) -> SessionReport:
        number = shell.session.document.number
        return session_report(
            shell,
            volumes=self._pool.volumes,
            read_only_reason=self._pool.read_only_reason,
            staged_track_count=self._pool.staged_count(number),
            staged_bytes=self._pool.staged_bytes(number),
            split=self._session_split(shell, now),
            now=now,
        )

    def _session_split(self, shell: SessionShell, now: Now) -> SplitReport | None:
        return session_split_report(shell.session, self._controller_name, self._pool.track_size_bytes, now)

    def _capture_split(self, stream: SessionStream, now: Now) -> SplitReport | None:
        return capture_split_report(stream, self._controller_name, self._pool.track_size_bytes, now)

    async def create_session(self, request: SessionRequest) -> SessionReport:
        """Begin a session."""
        self._refuse_as_secondaries([pair.secondary_volume for pair in request.pairs])
        shell = self._sessions.create(request)
        return await self._done(shell, "session created")

    async def change_session(self, name: str, request: ChangeSessionRequest) -> SessionReport:
        """Change settings."""
        shell = self._sessions.get(name)
        document = transitions.with_settings(shell.session.document, **chosen_settings(request))
        document = transitions.with_priorities(document, request.priorities or {})
        document = transitions.with_pair_pace(document, chosen_pair_pace(request))
        shell.command(lambda: shell.session.change_settings(document))
        return await self._done(shell, "session settings changed")

    async def add_pairs(self, name: str, request: AddPairsRequest) -> SessionReport:
        """Add pairs."""
        shell = self._sessions.get(name)
        self._refuse_as_secondaries([pair.secondary_volume for pair in request.pairs])
        sources, pairs = source_and_pairs(request)
        shell.command(lambda: shell.session.add_pairs(sources, pairs))
        return await self._done(shell, "pairs added")

    def _refuse_as_secondaries(self, names: list[str]) -> None:
        """Raise ConflictError unless every volume of `names` is free to be written by a mover, or not there yet."""
        for name in names:
            if session := self._sessions.secondary_of(name):
                raise ConflictError(
                    f"volume {name!r} is a secondary of session {session!r} already", name=name
                )
            volume = self._pool.volumes.get(name)
            if volume is not None:
                self.copying.uses.refuse(volume, "made a secondary")

    async def remove_pairs(self, name: str, request: RemovePairsRequest) -> SessionReport:
        """Take pairs out."""
        shell = self._sessions.get(name)
        shell.command(lambda: shell.session.remove_pairs(request.secondary_volumes))
        return await self._done(shell, "pairs are being removed")

    async def suspend(self, name: str, request: SuspendRequest) -> SessionReport:
        """Stop copying, now or at a time; all of a session or some pairs."""
        shell = self._sessions.get(name)
        now = primaries_now(shell, self._now())
        shell.command(lambda: suspend_session(shell.session, request, now))
        return await self._done(
            shell, "suspension was cancelled" if request.cancel else "suspension was commanded"
        )

    async def resume(self, name: str, request: ResumeRequest) -> SessionReport:
        """Resynchronise."""
        shell = self._sessions.get(name)
        shell.command(lambda: resume_session(shell.session, request))
        return await self._done(shell, "session resumed by command")

    async def recover(self, name: str, request: RecoverRequest) -> SessionReport:
        """End the session and bring its volumes into service."""
        shell = self._sessions.get(name)
        session = shell.session
        at_ns = instant_to_recover(session, request, primaries_now(shell, self._now()))
        shell.command(
            lambda: session.recover(drain=request.drain, allow_incomplete=request.incomplete, at_ns=at_ns)
        )
        await wait_while(
            lambda: session.is_draining or session.document.state is SessionState.RECOVERY, RECOVER_WAIT_S_MAX
        )
        if not (session.is_draining or session.document.is_over):
            raise UnavailableError(
                f"the planned switchover of session {name!r} was given up, because not every primary could be "
                "drained in time; its volumes accept writes again. Recover without drain if a primary is lost",
                name=name,
            )
        return await self._done(shell, "session recovered")

    async def resync(self, name: str, request: ResyncRequest) -> SessionReport:
        """Give one side's writes up after a split."""
        now = self._now()
        if name in self._sessions:
            shell = self._sessions.get(name)
            self._resyncing.at_secondary(shell, request, self._session_split(shell, now))
        else:
            stream = self._fed.get(name)
            shell = self._resyncing.at_primary(stream, request, self._capture_split(stream, now))
        return await self._done(
            shell, f"session resynchronises, the writes of the {request.discard} are given up"
        )

    async def delete_session(self, name: str) -> None:
        """Forget a session, at its mover or at a primary."""
        if name in self._sessions:
            self.past.catalogue.refuse_deletion_of_session(name)
            confirmed = await self._sessions.delete(self._sessions.get(name), wait_s=DELETE_WAIT_S_MAX)
            _log.info("session deleted", session=name, confirmed_by_primaries=confirmed)
        else:
            self._primary.forget(self._fed.get(name).document.session_id)
            _log.info("captured session deleted", session=name)
        await self._flush()

    async def _done(self, shell: SessionShell, event: str) -> SessionReport:
        """Return the report of a session once what a command did is durable."""
        await self._flush()
        document = shell.session.document
        _log.info(event, session=document.name, state=document.state.value)
        return self._session_report(shell, self._now())
