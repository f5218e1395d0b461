"""What a controller remembers of its copies: documents in the pool, written in one record with what they speak of."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isochrone.model.errors import DamagedError
from isochrone.model.volume_kind import VOLUME_NAME_LENGTH_MAX

COPY_PREFIX: Final = "copy/"
RELATION_PREFIX: Final = "relation/"
SCHEDULE_PREFIX: Final = "copy-schedule/"

Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 64)]
Bytes = Annotated[int, Field(ge=0, lt=1 << 64)]
VolumeName = Annotated[str, Field(min_length=1, max_length=VOLUME_NAME_LENGTH_MAX)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def dump(self) -> bytes:
        """Return the document's bytes."""
        return self.model_dump_json().encode()


class CopyMember(_Document):
    """One volume of a copy set: `volume` was made from `source`.

    Attributes:
        incomplete: the source was a secondary whose first copy was still running: what it held is of no instant.
    """

    source: VolumeName
    volume: VolumeName
    incomplete: bool = False


class CopyDocument(_Document):
    """A copy set: volumes made from others at one instant.

    Attributes:
        writable: its volumes can be written; else they are snapshots.
        taken_ns: the instant, host time.
        taken_wall_ns, expires_wall_ns: nanoseconds since 1970; it is deleted by itself from `expires_wall_ns` on.
        schedule: name of the schedule that made it, "" for none.
    """

    name: str
    writable: bool
    members: tuple[CopyMember, ...]
    taken_ns: Nanoseconds
    taken_wall_ns: Nanoseconds
    expires_wall_ns: Nanoseconds | None = None
    schedule: str = ""

    @property
    def key(self) -> str:
        """The document's name in the pool."""
        return f"{COPY_PREFIX}{self.name}"

    def is_expired(self, now_wall_ns: int) -> bool:
        """Return whether its time has come."""
        return self.expires_wall_ns is not None and now_wall_ns >= self.expires_wall_ns


class RelationExtent(_Document):
    """A range of a relation, in bytes: whole tracks."""

    source_offset: Bytes
    target_offset: Bytes
    length: Bytes


class RelationDocument(_Document):
    """A flash copy from one volume onto another, which can be refreshed until it is withdrawn. One a target.

    Attributes:
        extents: what is copied; None is all of it.
        established_wall_ns, refreshed_wall_ns: nanoseconds since 1970; the target shows the source as of the later one.
    """

    source: VolumeName
    target: VolumeName
    extents: tuple[RelationExtent, ...] | None = None
    established_wall_ns: Nanoseconds
    refreshed_wall_ns: Nanoseconds

    @property
    def key(self) -> str:
        """The document's name in the pool."""
        return f"{RELATION_PREFIX}{self.target}"


class ScheduleDocument(_Document):
    """When a schedule ran last, nanoseconds since 1970: so that a missed run is made up for, once."""

    name: str
    last_run_wall_ns: Nanoseconds

    @property
    def key(self) -> str:
        """The document's name in the pool."""
        return f"{SCHEDULE_PREFIX}{self.name}"


Document = TypeVar("Document", bound=_Document)


def load(kind: type[Document], key: str, value: bytes) -> Document:
    """Return a document from its bytes. Raises DamagedError."""
    try:
        return kind.model_validate_json(value)
    except ValidationError as error:
        raise DamagedError(
            f"document {key!r} of the pool cannot be read: {error.error_count()} faults; restore the pool from a backup",
            key=key,
        ) from error
