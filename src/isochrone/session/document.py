"""What a session is, and what its secondary remembers of it over restarts: a named document in the pool."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from isochrone.link.messages import (
    U32,
    U64,
    Identity,
    Name,
    OptionalIdentity,
    Text,
)
from isochrone.model.choices import (
    GROUP_BYTES_MAX_DEFAULT,
    GROUP_INTERVAL_NS_DEFAULT,
    RETRY_NS_MAX_DEFAULT,
    RETRY_TRACKS_MAX_DEFAULT,
    Compression,
    PaceLevel,
)
from isochrone.model.errors import DamagedError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState, SuspendCause

DOCUMENT_PREFIX: Final = "session/"


class HeldDocument(BaseModel):
    """What is kept of how long a primary held acknowledgements of applications, see auto_resume.HeldTime.

    Attributes:
        noted_ns, total_ns: when the primary said so last, and its holds since it started, as it said then.
        slices: (begin, held) of each slice that counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    noted_ns: U64
    total_ns: U64
    slices: tuple[tuple[U64, U64], ...] = ()


class SourceDocument(BaseModel):
    """One primary controller of a session. Its place in the session's list is its number in the pool's records.

    Attributes:
        controller_id: identity at first contact; another controller at the address is refused. "" before.
        incarnation: stream that staged records belong to, "" before the first.
        fenced: it has confirmed that the session ended, or forgotten it.
        last_write_ns: once fenced, when applications wrote last there, 0 when they never did; None while not known.
        resume_wanted: the session was resumed while it could not be told.
        held: None until it has held anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    address: Text
    controller_id: OptionalIdentity = ""
    incarnation: OptionalIdentity = ""
    fenced: bool = False
    last_write_ns: U64 | None = None
    resume_wanted: bool = False
    held: HeldDocument | None = None


class PairDocument(BaseModel):
    """One pair of volumes.

    Attributes:
        source: place of its primary in the session's sources.
        primary_number, secondary_number: volume numbers, None until the primary has confirmed the pair.
        complete: the pair has been DUPLEX: the committed image of the secondary is one that was true.
        duplex: every write up to the consistency time is in the committed image.
        removing: leaves the session once the primary has confirmed.
        priority: pairs of a higher one are copied first.
        pace: its own pace level, None for the session's.
        suspend_at_ns: the pair is to be suspended by itself from this time on; 0 when it is to run.
        suspended: its primary has done so. With suspend_at_ns 0 its resume is on the way.
        image_ns: the committed image of the secondary is of this time, where C is past it; 0 when it is of C: the pair was
            suspended, and its copy since is not complete.
        image_until_ns: with image_ns, once the copy is complete and the hold lifted: the image is of C when C is past this.
        suspend_reason, suspended_since_ns: for people.
        primary_marked_tracks: once its primary is fenced, tracks that may differ from the recovered image; None while not
            known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: U32
    primary_volume: Name
    secondary_volume: Name
    primary_number: U32 | None = None
    secondary_number: U32 | None = None
    complete: bool = False
    duplex: bool = False
    removing: bool = False
    priority: U32 = 0
    pace: PaceLevel | None = None
    suspend_at_ns: U64 = 0
    suspended: bool = False
    image_ns: U64 = 0
    image_until_ns: U64 = 0
    suspend_reason: Text = ""
    suspended_since_ns: U64 = 0
    primary_marked_tracks: U64 | None = None

    def image_time_ns(self, consistency_ns: int) -> int:
        """Return the time of the committed image of a complete pair, when C is `consistency_ns`."""
        if not self.image_ns or 0 < self.image_until_ns < consistency_ns:
            return consistency_ns
        return min(self.image_ns, consistency_ns)

    @property
    def is_set_aside(self) -> bool:
        """Whether it is suspended by itself and is to stay so."""
        return self.suspended and self.suspend_at_ns > 0

    @property
    def is_confirmed(self) -> bool:
        """Whether both volumes are known; records may have been staged since."""
        return self.secondary_number is not None


class SessionDocument(BaseModel):
    """The persistent part of one session.

    Attributes:
        number: the session's number in the pool's records.
        policy: what its primaries obey.
        retry_ns_max, retry_tracks_max: budget of S6: tracks that the device here does not take are tried again for so
            long, and so many of them; past it the session suspends.
        history_ns_max: how long what was committed is kept, for images of any instant; 0 for not at all.
        history_bytes_max: space that it may take; 0 for as much as the pool has.
        hold_floor_ns: while a resync runs, the time of the committed image, which stays as it is until the resync is
            complete; None when commits follow J.
        reason, cause: why it is SUSPENDED.
        suspend_at_ns: a suspension is pending: the image will stop exactly at this time. 0 when none is.
        suspend_reason: what will be its reason.
        suspended_at_ns: with SUSPENDED, the time that was asked for, if the image is exactly of it; else 0.
        auto_resume_attempts: automatic resumes since it was DUPLEX for long.
        recovered_ns: with RECOVERY and ENDED, the time that the volumes are recovered to.
        rewound_from_ns: with RECOVERY and ENDED, when that is a time of the history: the time of the image that was left for
            it; else 0. With ENDED, `reason` says why it was not left after all, if so.
        kept_copy: name of the snapshots of that image, "" for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_enum_values=False)

    session_id: Identity
    name: Name
    number: U32
    epoch: U64 = 1
    state: SessionState = SessionState.ACTIVE
    reason: Text = ""
    cause: SuspendCause = SuspendCause.COMMAND
    since_ns: U64 = 0
    suspend_at_ns: U64 = 0
    suspend_reason: Text = ""
    suspended_at_ns: U64 = 0
    group_interval_ns: U64 = GROUP_INTERVAL_NS_DEFAULT
    group_bytes_max: U64 = GROUP_BYTES_MAX_DEFAULT
    compression: Compression = Compression.OFF
    retry_ns_max: U64 = RETRY_NS_MAX_DEFAULT
    retry_tracks_max: U32 = RETRY_TRACKS_MAX_DEFAULT
    history_ns_max: U64 = 0
    history_bytes_max: U64 = 0
    policy: SessionPolicy = SessionPolicy()
    sources: tuple[SourceDocument, ...] = ()
    pairs: tuple[PairDocument, ...] = ()
    hold_floor_ns: U64 | None = None
    auto_resume_attempts: U32 = 0
    recovered_ns: U64 = 0
    rewound_from_ns: U64 = 0
    kept_copy: str = ""

    @property
    def key(self) -> str:
        """Name of the document in the pool."""
        return DOCUMENT_PREFIX + self.name

    def changed(self, **fields: object) -> SessionDocument:
        """Return a copy with `fields` replaced."""
        return self.model_copy(update=fields)

    def with_source(self, number: int, **fields: object) -> SessionDocument:
        """Return a copy with fields of source `number` replaced."""
        sources = list(self.sources)
        sources[number] = sources[number].model_copy(update=fields)
        return self.changed(sources=tuple(sources))

    def with_pairs(self, pairs: dict[str, PairDocument]) -> SessionDocument:
        """Return a copy with pairs replaced, keyed by secondary volume."""
        return self.changed(pairs=tuple(pairs.get(pair.secondary_volume, pair) for pair in self.pairs))

    @property
    def is_over(self) -> bool:
        """Whether the session has ended or is ending: nothing more is received."""
        return self.state in (SessionState.RECOVERY, SessionState.ENDED)

    @property
    def is_image_complete(self) -> bool:
        """Whether the committed image is one instant of every volume of the session."""
        return bool(self.pairs) and all(
            pair.complete and not pair.suspended and not pair.image_ns for pair in self.pairs
        )

    @property
    def sources_in_use(self) -> set[int]:
        """Numbers of the sources that have a pair."""
        return {pair.source for pair in self.pairs}


def load_document(key: str, value: bytes) -> SessionDocument:
    """Return the document stored under `key`. Raises DamagedError when it does not read."""
    try:
        return SessionDocument.model_validate_json(value)
    except ValidationError as error:
        raise DamagedError(f"pool document {key!r} does not read: {error}", document=key) from error
