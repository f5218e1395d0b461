"""A controller of dictionaries: enough of one that the faces over it can be tested without a process."""

from __future__ import annotations

from isochrone.api.requests import (
    AddPairsRequest,
    ChangeSessionRequest,
    CreateVolumeRequest,
    Pair,
    RecoverRequest,
    RemovePairsRequest,
    ResizeVolumeRequest,
    ResumeRequest,
    ResyncRequest,
    SessionRequest,
    SuspendRequest,
)
from isochrone.model import errors
from isochrone.model.errors import ConflictError, IsochroneError, NotFoundError, RefusedError
from isochrone.model.states import PairState, SessionState
from isochrone.report.models import (
    CaptureReport,
    ExportState,
    PairReport,
    PoolReport,
    SessionReport,
    SessionSettings,
    StatusReport,
    VolumeReport,
    VolumeRole,
)
from support.fake_copy_operations import FakeCopyOperations
from support.fake_history_operations import FakeHistoryOperations
from support.reports import CAPTURE, CONTROLLER, POOL, SESSION, SOURCE, VOLUME, behind


class FakeOperations:
    """Implements api.operations.Operations.

    A pair loses `tracks_copied_per_look` of its 1000 tracks each time its session is looked at, and a
    recovery takes two looks, so that whoever waits sees progress. `failure` is raised by every operation
    while set. `calls` names what was called.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.calls: list[str] = []
        self.past = FakeHistoryOperations()
        self.pool_report = POOL
        self.tracks_copied_per_look = 400
        self.copying = FakeCopyOperations()
        self._volumes = {VOLUME.name: VOLUME}
        self._sessions: dict[str, SessionReport] = {}
        self._captures = {CAPTURE.name: CAPTURE}

    async def status(self) -> StatusReport:
        self._called("status")
        return StatusReport(
            controller=CONTROLLER,
            pool=self.pool_report,
            volumes=tuple(self._volumes.values()),
            sessions=tuple(self._sessions.values()),
            captures=tuple(self._captures.values()),
        )

    async def pool(self) -> PoolReport:
        self._called("pool")
        return self.pool_report

    async def volumes(self) -> list[VolumeReport]:
        self._called("volumes")
        return list(self._volumes.values())

    async def volume(self, name: str) -> VolumeReport:
        self._called("volume")
        return self._volume(name)

    async def create_volume(self, request: CreateVolumeRequest) -> VolumeReport:
        self._called("create_volume")
        if request.name in self._volumes:
            raise ConflictError(f"volume {request.name} exists: choose another name", volume=request.name)
        self._volumes[request.name] = VolumeReport(
            name=request.name,
            number=len(self._volumes) + 1,
            size_bytes=request.size_bytes,
            mapped_bytes=0,
            role=VolumeRole.SIMPLEX,
            export_state=ExportState.EXPORTED,
            read_only=False,
            connection_count=0,
            read_count=0,
            write_count=0,
            read_bytes=0,
            written_bytes=0,
        )
        return self._volumes[request.name]

    async def resize_volume(self, name: str, request: ResizeVolumeRequest) -> VolumeReport:
        self._called("resize_volume")
        old = self._volume(name)
        if request.size_bytes < old.size_bytes and not request.shrink:
            raise ConflictError(f"volume {name} would shrink: allow it with shrink")
        self._volumes[name] = old.model_copy(update={"size_bytes": request.size_bytes})
        return self._volumes[name]

    async def delete_volume(self, name: str) -> None:
        self._called("delete_volume")
        if self._volume(name).sessions:
            raise ConflictError(f"volume {name} is in a session: remove its pair first")
        del self._volumes[name]

    async def sessions(self) -> list[SessionReport]:
        self._called("sessions")
        return list(self._sessions.values())

    async def session(self, name: str) -> SessionReport:
        self._called("session")
        self._sessions[name] = self._one_look_later(self._session(name))
        return self._sessions[name]

    async def captures(self) -> list[CaptureReport]:
        self._called("captures")
        return list(self._captures.values())

    async def capture(self, name: str) -> CaptureReport:
        self._called("capture")
        if name not in self._captures:
            raise NotFoundError(f"no session {name} here: see isochrone session list")
        return self._captures[name]

    async def create_session(self, request: SessionRequest) -> SessionReport:
        self._called("create_session")
        if request.name in self._sessions:
            raise ConflictError(f"session {request.name} exists: choose another name")
        self._sessions[request.name] = SESSION.model_copy(
            update={
                "name": request.name,
                "settings": SESSION.settings.model_copy(
                    update={
                        name: value
                        for name, value in request.model_dump(exclude_none=True).items()
                        if name in SessionSettings.model_fields
                    }
                ),
                "sources": tuple(
                    SOURCE.model_copy(update={"name": primary.name, "address": primary.address})
                    for primary in request.primaries
                ),
                "pairs": tuple(_new_pair(pair) for pair in request.pairs),
            }
        )
        return self._sessions[request.name]

    async def change_session(self, name: str, request: ChangeSessionRequest) -> SessionReport:
        self._called("change_session")
        settings = self._session(name).settings.model_copy(update=request.model_dump(exclude_none=True))
        return self._change(name, settings=settings)

    async def add_pairs(self, name: str, request: AddPairsRequest) -> SessionReport:
        self._called("add_pairs")
        pairs = (*self._session(name).pairs, *(_new_pair(pair) for pair in request.pairs))
        return self._change(name, pairs=pairs)

    async def remove_pairs(self, name: str, request: RemovePairsRequest) -> SessionReport:
        self._called("remove_pairs")
        gone = set(request.secondary_volumes)
        pairs = tuple(pair for pair in self._session(name).pairs if pair.secondary_volume not in gone)
        return self._change(name, pairs=pairs)

    async def suspend(self, name: str, request: SuspendRequest) -> SessionReport:
        self._called("suspend")
        return self._change(name, state=SessionState.SUSPENDED, suspended_reason=request.reason)

    async def resume(self, name: str, request: ResumeRequest) -> SessionReport:  # noqa: ARG002
        self._called("resume")
        return self._change(name, state=SessionState.ACTIVE, suspended_reason=None)

    async def recover(self, name: str, request: RecoverRequest) -> SessionReport:
        self._called("recover")
        session = self._session(name)
        if session.state is SessionState.ENDED:
            return session
        if not session.image_complete and not request.incomplete:
            raise ConflictError(
                f"the image of session {name} is not complete: {session.image_incomplete_reason}"
            )
        return self._change(name, state=SessionState.RECOVERY, pending_command="recover")

    async def resync(self, name: str, request: ResyncRequest) -> SessionReport:
        self._called("resync")
        if request.discard is None:
            raise RefusedError("say whose writes are given up")
        return self._change(name, state=SessionState.ACTIVE, recovered=None)

    async def delete_session(self, name: str) -> None:
        self._called("delete_session")
        self._session(name)
        del self._sessions[name]

    def put_session(self, session: SessionReport) -> None:
        self._sessions[session.name] = session

    def _called(self, operation: str) -> None:
        self.calls.append(operation)
        if self.failure is not None:
            raise self.failure

    def _volume(self, name: str) -> VolumeReport:
        if name not in self._volumes:
            raise NotFoundError(f"no volume {name}: see isochrone volume list", volume=name)
        return self._volumes[name]

    def _session(self, name: str) -> SessionReport:
        if name not in self._sessions:
            raise NotFoundError(f"no session {name}: see isochrone session list", session=name)
        return self._sessions[name]

    def _change(self, name: str, **update: object) -> SessionReport:
        self._sessions[name] = self._session(name).model_copy(update=update)
        return self._sessions[name]

    def _one_look_later(self, session: SessionReport) -> SessionReport:
        if session.state is SessionState.RECOVERY:
            return session.model_copy(
                update={"state": SessionState.ENDED, "pending_command": None, "recovered": behind(14)}
            )
        if session.state is not SessionState.ACTIVE:
            return session
        pairs = tuple(_copied_further(pair, self.tracks_copied_per_look) for pair in session.pairs)
        complete = all(pair.state is PairState.DUPLEX for pair in pairs)
        reason = None if complete else "a pair is not DUPLEX"
        return session.model_copy(
            update={"pairs": pairs, "image_complete": complete, "image_incomplete_reason": reason}
        )


def _new_pair(pair: Pair) -> PairReport:
    return PairReport(
        source=pair.primary,
        primary_volume=pair.primary_volume,
        secondary_volume=pair.secondary_volume,
        state=PairState.PENDING,
        size_bytes=1000 * 4096,
        tracks_to_copy=1000,
        tracks_remaining=1000,
    )


def _copied_further(pair: PairReport, tracks: int) -> PairReport:
    left = max(0, (pair.tracks_remaining or 0) - tracks)
    state = PairState.COPY if left else PairState.DUPLEX
    return pair.model_copy(update={"tracks_remaining": left, "state": state})


def every_error() -> list[IsochroneError]:
    """One error of every class that crosses a room's door."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IsochroneError)
    ]
    return [kind(f"{kind.__name__} happened: do this", volume="db", count=3) for kind in kinds]
