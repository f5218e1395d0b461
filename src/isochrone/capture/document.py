"""What a primary controller remembers of a session over restarts: a named document in its pool."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from isochrone.link.messages import U32, U64, Identity, Name, Text
from isochrone.model.errors import DamagedError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SuspendCause

DOCUMENT_PREFIX: Final = "capture/"


class CaptureState(StrEnum):
    """A session as its primary sees it.

    ::

        MARKING --mover says Hello--> STREAMING --side file full, command--> SUSPENDED
           ^                              |                                     |
           +-- restart of the controller -+            Resume: STREAMING <------+
        any --Fence, Hello of a newer epoch--> ENDED --Appoint--> MARKING
        recovered here --> SERVING --Appoint--> MARKING

    Changes are marked in every state but ENDED, in which there are none.
    """

    MARKING = "MARKING"
    """No stream yet since the controller started; writes are marked only."""
    STREAMING = "STREAMING"
    """Writes are marked and captured."""
    SUSPENDED = "SUSPENDED"
    """Writes are marked only, until the session is resumed."""
    ENDED = "ENDED"
    """The session was recovered at the other site: the volumes refuse writes until the capture is deleted, or the
    controller is appointed the primary again. Marks are kept."""
    SERVING = "SERVING"
    """The session was recovered here: its secondaries are in service, and what is written to them is marked."""


class CaptureDocument(BaseModel):
    """The persistent part of one session at one primary.

    Attributes:
        volumes: numbers of the captured volumes.
        hardened_record_ns: time of a record that was hardened before any mark was cleared last; a mover that has
            received less has lost data, and everything is copied to it.
        mover_id, mover_name: who pulls the session; with `serving`, this controller itself.
        ended, serving: see CaptureState; never both.
        heirs: with `serving`, the controllers that were primaries: one of them may become the mover.
        partners: with `ended`, the volumes' secondaries by the names of the primaries here, as the fence told them.
        stamps_after_ns: no write is stamped earlier: the other site's image is of that time.
        suspended_volumes: number and time of volumes that are suspended by themselves.
        reason, cause: why it is suspended.
        quiesced: application writes are refused for a planned switchover.
        recovered_ns: with `ended` and `serving`, the time the session was recovered to: the last that both sites had in
            common. 0 until a fenced primary was told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    session_id: Identity
    session_name: Name
    epoch: U64
    mover_id: Identity
    mover_name: Name
    volumes: tuple[U32, ...] = ()
    suspended_volumes: tuple[tuple[U32, U64], ...] = ()
    suspended: bool = False
    ended: bool = False
    serving: bool = False
    heirs: tuple[Identity, ...] = ()
    partners: dict[Name, Name] = {}
    quiesced: bool = False
    reason: Text = ""
    cause: SuspendCause = SuspendCause.COMMAND
    since_ns: U64 = 0
    recovered_ns: U64 = 0
    hardened_record_ns: U64 = 0
    stamps_after_ns: U64 = 0
    policy: SessionPolicy = SessionPolicy()

    @property
    def key(self) -> str:
        """Name of the document in the pool."""
        return DOCUMENT_PREFIX + self.session_id

    @property
    def awaits_appointment(self) -> bool:
        """Whether the controller is no primary of the session now, but may become it."""
        return self.ended or self.serving

    def changed(self, **fields: object) -> CaptureDocument:
        """Return a copy with `fields` replaced."""
        return self.model_copy(update=fields)


def load_document(key: str, value: bytes) -> CaptureDocument:
    """Return the document stored under `key`. Raises DamagedError when it does not read."""
    try:
        return CaptureDocument.model_validate_json(value)
    except ValidationError as error:
        raise DamagedError(f"pool document {key!r} does not read: {error}", document=key) from error
