"""What a mover and a primary controller say to each other.

::

    mover                                   primary
      | -- Hello ---------------------------> |   who, which session, which epoch, where I stand
      | <------------- Welcome or Refused --- |   continues or has a gap
      | -- Configure -----------------------> |   which volumes, which policy
      | <----------------------- Configured - |   their numbers and sizes, how much is to be copied
      | <------------------------ RecordSet - |   records and a promise; empty ones are heartbeats
      | <-------------------------- Compare - |   hashes of tracks that may differ, before they are sent
      | -- Compared ------------------------> |   which of them do
      | -- Ack -----------------------------> |   what is hardened (J), how much more may be sent
      | <--------CopyProgress, CaptureReport--|
      | <-------------------- NamedInstant -- |   an instant that somebody named, ahead of the promise that covers it
      | -- Suspend / Resume / Quiesce ------> |
      | <-- StreamCut / Suspended / Quiesced- |
      | -- Fence / Forget ------------------> |   the session was recovered here / deleted
      | -- Marks, Appoint ------------------> |   after a split: what changed at the mover's side; be the primary
      | <----------------- Marked, Appointed- |

The mover dials and pulls: a primary never sends more payload than the window its peer has opened. Times are host time
in nanoseconds. RecordSet, Compare and Compared are packed; all others are small and rare, and travel as JSON. All are
validated once, by the codec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from isochrone.model.choices import Compression, PaceLevel
from isochrone.model.instants import INSTANT_TEXT_LENGTH_MAX
from isochrone.model.names import NAME_PATTERN
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SuspendCause

PROTOCOL_VERSION: Final = 1
"""Version 1: first release."""

VOLUMES_PER_SESSION_MAX: Final = 4096

MARK_RUNS_MAX: Final = 8192
"""Runs of tracks in one Marks message: at most 180 KB of JSON."""
PROGRESS_VOLUMES_MAX: Final = 256
UNREADABLE_RUNS_MAX: Final = 16
"""Runs of unreadable tracks that are named, a volume; the count says how many tracks there are in all."""
COMPARE_TRACKS_MAX: Final = 4096
"""Tracks of one Compare: with a run and a hash for each it has 96 KiB."""
TRACK_HASH_BYTES: Final = 16
COMPARE_QUERIES_MAX: Final = 16
"""Compares that may wait for their answer on one connection."""

TEXT_BYTES_MAX: Final = 1024
REFUSAL_TEXT_BYTES_MAX: Final = 160
"""VOLUMES_PER_SESSION_MAX refusals with names of the greatest length fit one control message of 1 MiB."""

Text = Annotated[str, Field(max_length=TEXT_BYTES_MAX)]
InstantText = Annotated[str, Field(min_length=1, max_length=INSTANT_TEXT_LENGTH_MAX)]
RefusalText = Annotated[str, Field(max_length=REFUSAL_TEXT_BYTES_MAX)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Identity = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""A UUID as 32 lower-case hexadecimal digits."""
OptionalIdentity = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]
U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
U64 = Annotated[int, Field(ge=0, lt=1 << 64)]


def cut_text(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Return `text` as a message can carry it: at most `bytes_max` bytes as they stand in its JSON.

    A reason may quote what an operator wrote or a device said, of any length; what does not fit is left out at the end.
    """
    text = text.encode("utf-8", "replace").decode()
    if _json_bytes(text) <= bytes_max:
        return text
    room_bytes = bytes_max - len("...")
    while (size_bytes := _json_bytes(text)) > room_bytes:
        text = text[: len(text) * room_bytes // size_bytes]
    return text + "..."


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - len('""')


class RefusalCode(StrEnum):
    """Why a primary refuses a mover."""

    VERSION = "version"
    TRACK_SIZE = "track-size"
    STALE_EPOCH = "stale-epoch"
    SESSION_IN_USE = "session-in-use"
    """Another mover (other identity) owns the session of this name or id here."""
    ENDED = "ended"
    BUSY = "busy"
    BAD_REQUEST = "bad-request"
    WRONG_CONTROLLER = "wrong-controller"
    """The mover began the session with another controller."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Mover to primary, first on every connection.

    Attributes:
        controller_id: the controller that the mover expects here; "" at first contact. Any other refuses.
        incarnation: the primary's incarnation the mover last heard, "" when none.
        received_through_ns: promise the mover has staged up to within that incarnation.
    """

    protocol_version: U32
    session_id: Identity
    session_name: Name
    epoch: U64
    mover_id: Identity
    mover_name: Name
    controller_id: OptionalIdentity
    track_size_bytes: U32
    compression: Compression
    incarnation: OptionalIdentity
    received_through_ns: U64


@dataclass(frozen=True, slots=True)
class Welcome:
    """Primary to mover: accepted.

    Attributes:
        incarnation: names one unbroken stream of the session at this primary; a new one begins whenever captured
            records were lost (restart, suspend), so records of two incarnations are never joined without a resync.
        continues: the stream goes on right after `received_through_ns`; otherwise marked tracks are copied first.
        suspended: the session is suspended here; `reason` and `cause` say why. Nothing flows until Resume.
        awaits_appointment: it is no primary now (it was fenced, or its volumes are in service after a recovery): nothing
            flows until Appoint.
    """

    controller_id: Identity
    controller_name: Name
    incarnation: Identity
    epoch: U64
    now_ns: U64
    continues: bool
    suspended: bool
    reason: Text = ""
    cause: SuspendCause = SuspendCause.COMMAND
    awaits_appointment: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Primary to mover: the connection closes; `epoch` is the newest epoch the primary knows of the session."""

    code: RefusalCode
    text: Text
    epoch: U64 = 0


@dataclass(frozen=True, slots=True)
class WantedVolume:
    """One primary volume of the session, as the mover wants it captured.

    Attributes:
        not_empty: its secondary may hold data. If capture of such a volume begins with this message, every track is
            copied, unmapped ones as zeros. The secondary of any other is empty: its mapped tracks are copied, also when
            the volume is captured already.
        priority: volumes of a higher one are copied first; among equals the one with least to copy.
        pace: the volume's own pace level, None for the session's.
        suspend_at_ns: the volume is to be suspended from this time on: its writes up to it are sent, later ones only marked.
            0 when it is not; if it was, its marked tracks are copied.
        is_duplex: its pair is DUPLEX: when it is suspended, its writes up to that time are wanted. Otherwise a suspension
            breaks its copy off, and nothing more of it is.
    """

    name: Name
    not_empty: bool = False
    priority: U32 = 0
    pace: PaceLevel | None = None
    suspend_at_ns: U64 = 0
    is_duplex: bool = False


@dataclass(frozen=True, slots=True)
class Configure:
    """Mover to primary: the whole wanted set of volumes; may be sent again at any time.

    Attributes:
        number: 1, 2, ... within one connection; Configured repeats it.
        volumes: the volumes of this session at this controller.
        policy: what the primary is to obey.
        suspend_at_ns: the stream is to end exactly at this time, 0 for never: what was written up to it is sent and held
            until it is hardened, what comes later is only marked. A time before the incarnation's beginning is of a
            suspension that is over, and ends nothing.
    """

    number: U32
    volumes: Annotated[list[WantedVolume], Field(max_length=VOLUMES_PER_SESSION_MAX)]
    policy: SessionPolicy
    suspend_at_ns: U64 = 0


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """One primary volume as its controller knows it; `suspended_ns` as in VolumeCopy."""

    name: Name
    number: U32
    size_bytes: U64
    tracks_to_copy: U64
    suspended_ns: U64 = 0


@dataclass(frozen=True, slots=True)
class VolumeRefusal:
    """Why one wanted volume is not captured."""

    name: Name
    text: RefusalText


@dataclass(frozen=True, slots=True)
class Configured:
    """Primary to mover: the answer to the Configure of this number.

    An answer to an older one than the last that was sent says nothing of the pairs that are wanted now.
    """

    number: U32
    volumes: Annotated[list[VolumeInfo], Field(max_length=VOLUMES_PER_SESSION_MAX)]
    refused: Annotated[list[VolumeRefusal], Field(max_length=VOLUMES_PER_SESSION_MAX)] = field(
        default_factory=list
    )


@dataclass(frozen=True, slots=True)
class RecordSet:
    """Primary to mover: captured records in time order, and a promise.

    Attributes:
        sequence: 1, 2, ... within one connection.
        through_ns: every record of this session at this controller with time <= through_ns is in this set or an
            earlier one. All records of the set have time <= through_ns.
        headers: packed records (model.records.RECORD_DTYPE), `len(headers) // 24` of them; volume numbers are the primary's.
        payload: track images of the DATA records, back to back, uncompressed.
    """

    sequence: int
    through_ns: int
    headers: bytes | bytearray | memoryview
    payload: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Compare:
    """Primary to mover, in the order of the stream: do these tracks differ from what you hold?

    What the mover holds is what its secondary will hold once everything staged until now is committed.

    Attributes:
        number: of the query; greater than that of any earlier one.
        volume: the primary's number.
        began_ns: the tracks have not been in any record of a later time. Everything up to it was sent before.
        seed: of the hashes; nobody who writes to the volumes can foresee it.
        runs: (first track, count), ascending and apart; COMPARE_TRACKS_MAX tracks at most in all.
        hashes: xxh3-128 of each track in order, TRACK_HASH_BYTES each; an unmapped track has that of zeros.
    """

    number: int
    volume: int
    began_ns: int
    seed: int
    runs: tuple[tuple[int, int], ...]
    hashes: bytes

    @property
    def track_count(self) -> int:
        """Tracks that are asked for."""
        return len(self.hashes) // TRACK_HASH_BYTES


@dataclass(frozen=True, slots=True)
class Compared:
    """Mover to primary: the answer to the Compare of the same number; one truth value a track, in its order.

    A track that the mover cannot read, or has not stored yet, is said to differ.
    """

    number: int
    differs: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """Mover to primary.

    Attributes:
        hardened_ns: J: everything of the session up to it is durable at the secondary. The primary may forget it.
        window_bytes: total payload+header bytes the primary may have sent on this connection since it opened.
        consistency_ns: C, for display at the primary.
    """

    hardened_ns: U64
    window_bytes: U64
    consistency_ns: U64


@dataclass(frozen=True, slots=True)
class TrackRun:
    """Tracks in a row."""

    track: U32
    count: U32


@dataclass(frozen=True, slots=True)
class VolumeCopy:
    """Copy progress of one volume.

    Attributes:
        tracks_remaining: tracks whose image is still to be read.
        copied_through_ns: 0 while tracks remain; then the time of the last image: the pair is DUPLEX once C has passed it.
        unreadable_count: tracks among the remaining ones that the primary's device cannot read.
        unreadable: the first runs of them.
        compared_count: tracks compared since the copy began; kept until another copy compares.
        equal_count: those of them that were equal, and so not sent.
        suspended_ns: the volume is suspended: nothing of it that is later will come. 0 when it is not. With
            copied_through_ns 0 its copy was broken off, and nothing more of it comes at all.
    """

    number: U32
    tracks_remaining: U64
    copied_through_ns: U64
    unreadable_count: U64 = 0
    unreadable: Annotated[list[TrackRun], Field(max_length=UNREADABLE_RUNS_MAX)] = field(default_factory=list)
    compared_count: U64 = 0
    equal_count: U64 = 0
    suspended_ns: U64 = 0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """Primary to mover: volumes whose progress has changed, ordered with the record sets."""

    volumes: Annotated[list[VolumeCopy], Field(max_length=PROGRESS_VOLUMES_MAX)]


@dataclass(frozen=True, slots=True)
class StreamCut:
    """Primary to mover: the incarnation's stream ends at `through_ns`; it is promised, and nothing later will be.

    Said at the moment of the cut, ahead of the last records, and again after every Configured from then on.
    """

    through_ns: U64


@dataclass(frozen=True, slots=True)
class NamedInstant:
    """Primary to mover, ahead of the first promise that covers its time: an instant that somebody named there.

    The mover has it durably before its J passes the time; until the primary has heard of such a J it says it again on every
    new link. The same time is said again only with the same text.

    Attributes:
        time_ns: later than every write that was acknowledged before it was named, earlier than every one that came after.
    """

    time_ns: U64
    text: InstantText


@dataclass(frozen=True, slots=True)
class VolumeDelay:
    """How writes to one volume are delayed for a session.

    Attributes:
        volume: name at the primary.
        delay_ns: what a write would be delayed by now.
        p50_ns, p99_ns: of the writes that were delayed in the last seconds; 0 when none was.
        write_count: how many these were.
    """

    volume: Name
    delay_ns: U64
    p50_ns: U64
    p99_ns: U64
    write_count: U64


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """Primary to mover, about once a second while it changes, and when a delay begins or ends: what capture costs.

    Attributes:
        side_file_bytes: captured for the session and not hardened.
        used_bytes, capacity_bytes: of the side file, memory and spill together, over all sessions of the primary.
        spilled_bytes: those of the used bytes that are on disk only.
        full_in_s: at the present rate the side file is full after so many seconds; None when it is not filling.
        waiting_write_count: writes that wait for room.
        held_write_count, held_ns: writes that were held for the session since the primary started, and for how long in sum.
        spill_trouble: why the spill cannot be written, "" when it can.
        volumes: those that are delayed now or were in the last seconds.
    """

    side_file_bytes: U64
    used_bytes: U64
    capacity_bytes: U64
    spilled_bytes: U64
    full_in_s: U32 | None
    waiting_write_count: U64
    held_write_count: U64
    held_ns: U64
    spill_trouble: Text
    volumes: Annotated[list[VolumeDelay], Field(max_length=VOLUMES_PER_SESSION_MAX)]


@dataclass(frozen=True, slots=True)
class Suspend:
    """Mover to primary: stop sending, drop captured records, mark changes."""

    reason: Text
    cause: SuspendCause = SuspendCause.COMMAND


@dataclass(frozen=True, slots=True)
class Suspended:
    """Primary to mover: the session is suspended here; nothing later than `through_ns` will come."""

    reason: Text
    through_ns: U64
    cause: SuspendCause = SuspendCause.COMMAND


@dataclass(frozen=True, slots=True)
class Resume:
    """Mover to primary: start a new incarnation: copy marked tracks, capture again."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Primary to mover: a new incarnation begins with the next RecordSet; images of marked tracks come first-hand."""

    incarnation: Identity
    volumes: Annotated[list[VolumeInfo], Field(max_length=VOLUMES_PER_SESSION_MAX)]


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Mover to primary: planned switchover: refuse application writes to the session's volumes from now on."""


@dataclass(frozen=True, slots=True)
class Quiesced:
    """Primary to mover: no write with time > through_ns was or will be acknowledged on the session's volumes."""

    through_ns: U64


@dataclass(frozen=True, slots=True)
class Unquiesce:
    """Mover to primary: the switchover was given up; accept application writes again."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Mover to primary: the session was recovered at the secondary up to `recovered_ns` under `epoch`; it ends here.

    Attributes:
        volumes: the session's volumes here, all of which refuse writes from now on. A primary that lost power may
            have forgotten them.
        secondaries: their secondaries, in the same order, for a session in the other direction.
    """

    epoch: U64
    recovered_ns: U64
    volumes: Annotated[list[Name], Field(max_length=VOLUMES_PER_SESSION_MAX)] = field(default_factory=list)
    secondaries: Annotated[list[Name], Field(max_length=VOLUMES_PER_SESSION_MAX)] = field(
        default_factory=list
    )


@dataclass(frozen=True, slots=True)
class FencedVolume:
    """One volume of a fenced primary.

    Attributes:
        marked_tracks: tracks that may differ from the recovered image.
    """

    name: Name
    marked_tracks: U64


@dataclass(frozen=True, slots=True)
class Fenced:
    """Primary to mover: the session has ended here under `epoch`; no application writes any more.

    Attributes:
        last_write_ns: time of the last application write to the session's volumes: never too early, and too late by a
            few milliseconds at most, unless the primary died in between (then by as long as it was away).
            0 when there was none.
    """

    epoch: U64
    last_write_ns: U64 = 0
    volumes: Annotated[list[FencedVolume], Field(max_length=VOLUMES_PER_SESSION_MAX)] = field(
        default_factory=list
    )


@dataclass(frozen=True, slots=True)
class Marks:
    """Mover to primary, while that awaits its appointment: tracks that were written at the mover's side since the split.

    Attributes:
        volume: name at the primary.
        runs: first track and track count, one pair after the other.
    """

    volume: Name
    runs: Annotated[list[U32], Field(max_length=2 * MARK_RUNS_MAX)]


@dataclass(frozen=True, slots=True)
class Marked:
    """Primary to mover: the tracks of the last Marks are in its change map; the next may come."""


@dataclass(frozen=True, slots=True)
class Appoint:
    """Mover to primary: all marks are there: be the primary of the session under `epoch`, and serve applications."""

    epoch: U64


@dataclass(frozen=True, slots=True)
class Appointed:
    """Primary to mover: it is the primary under `epoch`; marked tracks will be copied to whoever says Hello under it."""

    epoch: U64


@dataclass(frozen=True, slots=True)
class Forget:
    """Mover to primary: the session is deleted; drop marks and captured records."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Primary to mover: nothing of the session is left here."""


ControlMessage = (
    Hello | Welcome | Refused | Configure | Configured | Ack | CopyProgress | CaptureReport | StreamCut
    | NamedInstant | Suspend | Suspended | Resume | Resumed | Quiesce | Quiesced | Unquiesce | Fence | Fenced | Forget
    | Forgotten | Marks | Marked | Appoint | Appointed
)  # fmt: skip
"""Every message that travels as JSON."""

Message = ControlMessage | RecordSet | Compare | Compared
