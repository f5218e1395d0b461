"""What may be asked of a controller, checked whole before anything starts.

Unknown fields are refused: a misspelt setting must not silently become its default. Numbers and text are
strict: "10" is not 10. Every refusal says which field, what is wrong and what is possible.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from isochrone.model.addresses import parse_peer_address
from isochrone.model.choices import ComparePolicy, Compression, MarkPolicy, OverflowPolicy, PaceLevel
from isochrone.model.errors import RefusedError
from isochrone.model.instants import INSTANT_TEXT_LENGTH_MAX
from isochrone.model.names import check_name
from isochrone.model.split import Side

PRIMARIES_PER_SESSION_MAX: Final = 64
PAIRS_PER_REQUEST_MAX: Final = 4096
REASON_LENGTH_MAX: Final = 512
SUSPEND_AFTER_S_MAX: Final = 31 * 86_400.0
TIME_S_MAX: Final = 31 * 86_400.0
HISTORY_S_LIMIT: Final = 366 * 86_400.0
PAIR_PRIORITY_MAX: Final = 1000
VOLUME_SIZE_BYTES_MAX: Final = 1 << 48
RETRY_MS_LIMIT: Final = 3_600_000.0
RETRY_TRACKS_LIMIT: Final = 65_536
PACE_DELAY_MS_LIMIT: Final = 10_000.0
"""Longer delays make clients give up: Linux's nbd client and QEMU time out after tens of seconds."""
HOLD_MS_LIMIT: Final = 20_000.0
"""Longest wait of a write for room, for the same reason."""
PAIR_NAME_LENGTH_MAX: Final = 129
"""Two names with a colon between them."""


def _address(address: str) -> str:
    try:
        return str(parse_peer_address(address))
    except RefusedError as error:
        raise ValueError(error.message) from error


def _name(name: str) -> str:
    try:
        return check_name(name, "the")
    except RefusedError as error:
        raise ValueError(error.message) from error


Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, AfterValidator(_name)]
CompressionChoice = Annotated[Compression, Field(strict=False)]
"""JSON has no enumerations: the word stands for the choice."""
CompareChoice = Annotated[ComparePolicy, Field(strict=False)]
MarkChoice = Annotated[MarkPolicy, Field(strict=False)]
OverflowChoice = Annotated[OverflowPolicy, Field(strict=False)]
PaceLevelChoice = Annotated[PaceLevel, Field(strict=False)]
PairPaceChoice = PaceLevelChoice | Literal["session"]
PairName = Annotated[str, Field(max_length=PAIR_NAME_LENGTH_MAX)]
"""A pair by its secondary volume, or as PRIMARY:VOLUME."""
HoldMsMax = Annotated[float, Field(ge=0, le=HOLD_MS_LIMIT)]
GroupIntervalMs = Annotated[float, Field(ge=1, le=60_000)]
GroupBytesMax = Annotated[int, Field(ge=1 << 20, le=1 << 30)]
PaceDelayMsMax = Annotated[float, Field(ge=0, le=PACE_DELAY_MS_LIMIT)]
CopyRateBytesMax = Annotated[int, Field(ge=0, lt=1 << 48)]
CopySharePercent = Annotated[int, Field(ge=1, le=100)]
PairPriority = Annotated[int, Field(ge=0, le=PAIR_PRIORITY_MAX)]
RetryMsMax = Annotated[float, Field(ge=0, le=RETRY_MS_LIMIT)]
RetryTracksMax = Annotated[int, Field(ge=0, le=RETRY_TRACKS_LIMIT)]
HistorySMax = Annotated[float, Field(ge=0, le=HISTORY_S_LIMIT)]
HistoryBytesMax = Annotated[int, Field(ge=0, lt=1 << 48)]
SizeBytes = Annotated[int, Field(gt=0, le=VOLUME_SIZE_BYTES_MAX)]


class Request(BaseModel):
    """Base of all requests: strict, frozen, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CreateVolumeRequest(Request):
    """A new thin volume that reads as zeros. The size must be a multiple of the pool's track size."""

    name: Name
    size_bytes: SizeBytes


class ResizeVolumeRequest(Request):
    """A new size for a volume. Shrinking cuts data off and must be allowed by `shrink`."""

    size_bytes: SizeBytes
    shrink: bool = False


class Primary(Request):
    """One primary controller: the name the session's pairs use for it, and its link address."""

    name: Name
    address: Address


class Pair(Request):
    """One pair: a volume at a primary, and the volume of this controller that mirrors it."""

    primary: Name
    primary_volume: Name
    secondary_volume: Name


class SettingsRequest(Request):
    """Settings of a session. One that is not given keeps its value, which in a new session is the default.

    Attributes:
        group_interval_ms: how often a consistency group is formed. Default 10.
        group_bytes_max: a group is formed early when this much was received. Default 32 MiB.
        compression: of payloads on the links. Default "off".
        overflow_policy: what the primaries do when a side file nears its limit: "pace" (default) delays
            acknowledgements up to `pace_delay_ms_max` (default 100), then suspends; "suspend" never delays; "hold" delays
            as "pace" does, and at the limit lets writes wait for room up to `hold_ms_max` (default 5000) before it suspends.
        pace_level: how early and how steeply writes are delayed: "off", "gentle", "steady" (default) or "firm".
        pair_pace: by secondary volume, or PRIMARY:VOLUME: a pace level of the pair's own; "session" for the session's.
        link_timeout_s: suspend when a primary is without its link for so long. Default 0: never, as long as the side
            file holds what is captured.
        auto_resume: whether a suspension that was not by command ends by itself. Default true.
        auto_resume_budget_s: not while acknowledgements were held for longer than this in the last hour. Default 60.
        copy_rate_bytes_max: images of tracks that one primary sends in a second at most; 0 (default) for no limit.
        copy_share_percent: of the time, at most so much of the link is given to images while applications write.
            Default 50.
        compare: which marked tracks are compared by hash before they are sent: "suspected" (default: those that nobody
            knows to differ, after a power loss say), "always" or "never".
        mark_policy: what the marks of changed tracks at the primaries survive: "memory" (default) the death of a process,
            "durable" power loss too.
        priorities: by secondary volume: pairs of a higher one (default 0) are copied first.
        retry_ms_max: how long what the secondary's device does not take is tried again before the session suspends.
            Default 60,000.
        retry_tracks_max: how many tracks may wait for that. Default 1,024.
        history_s_max: how long what was committed is kept, for images of any instant of that time. Default 0: not at all.
        history_bytes_max: space that it may take; what is older is given up. Default 0: as much as the pool has.
    """

    group_interval_ms: GroupIntervalMs | None = None
    group_bytes_max: GroupBytesMax | None = None
    compression: CompressionChoice | None = None
    overflow_policy: OverflowChoice | None = None
    pace_level: PaceLevelChoice | None = None
    pace_delay_ms_max: PaceDelayMsMax | None = None
    hold_ms_max: HoldMsMax | None = None
    link_timeout_s: Annotated[float, Field(ge=0, le=TIME_S_MAX)] | None = None
    auto_resume: bool | None = None
    auto_resume_budget_s: Annotated[float, Field(ge=0, le=3600)] | None = None
    copy_rate_bytes_max: CopyRateBytesMax | None = None
    copy_share_percent: CopySharePercent | None = None
    compare: CompareChoice | None = None
    mark_policy: MarkChoice | None = None
    pair_pace: Annotated[dict[PairName, PairPaceChoice], Field(max_length=PAIRS_PER_REQUEST_MAX)] | None = (
        None
    )
    priorities: Annotated[dict[Name, PairPriority], Field(max_length=PAIRS_PER_REQUEST_MAX)] | None = None
    retry_ms_max: RetryMsMax | None = None
    retry_tracks_max: RetryTracksMax | None = None
    history_s_max: HistorySMax | None = None
    history_bytes_max: HistoryBytesMax | None = None


class SessionRequest(SettingsRequest):
    """A new session, asked of the controller that holds the secondaries."""

    name: Name
    primaries: Annotated[list[Primary], Field(min_length=1, max_length=PRIMARIES_PER_SESSION_MAX)]
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=PAIRS_PER_REQUEST_MAX)]

    @model_validator(mode="after")
    def _names_agree(self) -> SessionRequest:
        _refuse_repeats([primary.name for primary in self.primaries], "primary")
        _refuse_pair_repeats(self.pairs)
        known = {primary.name for primary in self.primaries}
        for pair in self.pairs:
            if pair.primary not in known:
                raise ValueError(
                    f"pair {pair.primary}:{pair.primary_volume} names a primary that is not given: "
                    f"add it to primaries, or use one of {', '.join(sorted(known))}"
                )
        unused = known - {pair.primary for pair in self.pairs}
        if unused:
            raise ValueError(f"primary {min(unused)} has no pair: add one, or leave the primary out")
        return self


class ChangeSessionRequest(SettingsRequest):
    """Other settings for a running session."""

    @model_validator(mode="after")
    def _changes_something(self) -> ChangeSessionRequest:
        if not self.model_dump(exclude_none=True):
            raise ValueError(f"nothing is changed: give one of {', '.join(type(self).model_fields)}")
        return self


class AddPairsRequest(Request):
    """Pairs for a running session. `primaries` names only controllers the session does not know yet."""

    primaries: Annotated[list[Primary], Field(max_length=PRIMARIES_PER_SESSION_MAX)] = []
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=PAIRS_PER_REQUEST_MAX)]

    @model_validator(mode="after")
    def _names_agree(self) -> AddPairsRequest:
        _refuse_repeats([primary.name for primary in self.primaries], "primary")
        _refuse_pair_repeats(self.pairs)
        return self


class RemovePairsRequest(Request):
    """Pairs to take out of a session, by the names of their secondary volumes.

    The volumes and their data stay.
    """

    secondary_volumes: Annotated[list[Name], Field(min_length=1, max_length=PAIRS_PER_REQUEST_MAX)]

    @model_validator(mode="after")
    def _no_repeats(self) -> RemovePairsRequest:
        _refuse_repeats(self.secondary_volumes, "secondary volume")
        return self


class SuspendRequest(Request):
    """Stop copying, mark changes at the primaries: at once, or (one of `at`, `after_s`, `drain`) at a time.

    Attributes:
        secondary_volumes: only these pairs, by the names of their secondary volumes; the others go on. Empty for the
            whole session.
        reason: shown in every status until the session resumes.
        at: when the image is exactly all writes up to this moment (ISO 8601 with its offset from UTC).
        after_s: the same, so many seconds from now.
        drain: once everything that is acknowledged now is committed.
        cancel: forget a pending suspension, instead.
    """

    secondary_volumes: Annotated[list[Name], Field(max_length=PAIRS_PER_REQUEST_MAX)] = []
    reason: Annotated[str, Field(max_length=REASON_LENGTH_MAX)] = "by command"
    at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    after_s: Annotated[float, Field(ge=0, le=SUSPEND_AFTER_S_MAX)] | None = None
    drain: bool = False
    cancel: bool = False

    @model_validator(mode="after")
    def _one_time(self) -> SuspendRequest:
        given = [self.at is not None, self.after_s is not None, self.drain, self.cancel]
        if sum(given) > 1:
            raise ValueError("at, after_s, drain and cancel exclude each other: give one of them")
        return self


class ResumeRequest(Request):
    """Resynchronise a suspended session, or only pairs of it that were suspended by themselves."""

    secondary_volumes: Annotated[list[Name], Field(max_length=PAIRS_PER_REQUEST_MAX)] = []


class ResyncRequest(Request):
    """Give one side's writes up after a recovery, and copy the other's.

    Attributes:
        discard: the side whose writes since the last common time are lost; without it the request is refused with both
            histories.
        primary: with "primary", at the old primary: the recovered controller, which becomes the primary.
    """

    discard: Annotated[Side, Field(strict=False)] | None = None
    primary: Primary | None = None


class MomentRequest(Request):
    """An instant of a session's past; at most one of its ways to say it is given.

    Attributes:
        at: by the wall clock (ISO 8601 with its offset from UTC).
        at_ns: host time in nanoseconds, as reports have it: exact.
        before_s: so many seconds ago.
        instant: the text of a named instant.
    """

    at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    at_ns: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    before_s: Annotated[float, Field(ge=0, le=HISTORY_S_LIMIT, allow_inf_nan=False)] | None = None
    instant: Annotated[str, Field(min_length=1, max_length=INSTANT_TEXT_LENGTH_MAX)] | None = None

    @property
    def names_a_moment(self) -> bool:
        """Whether an instant is given at all."""
        return any(way is not None for way in (self.at, self.at_ns, self.before_s, self.instant))

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if sum(way is not None for way in (self.at, self.at_ns, self.before_s, self.instant)) > 1:
            raise ValueError("at, at_ns, before_s and instant exclude each other: give one of them")
        return self


class RecoverRequest(MomentRequest):
    """End the session and bring its secondaries into service; with an instant, as they were then.

    Attributes:
        drain: planned switchover: refuse writes at the primaries first and take everything over; needs
            every link up.
        incomplete: recover although the image is not complete (a pair never reached DUPLEX).
    """

    drain: bool = False
    incomplete: bool = False

    @model_validator(mode="after")
    def _the_past_is_not_drained(self) -> Self:
        if self.drain and self.names_a_moment:
            raise ValueError(
                "drain takes everything over, an instant leaves some of it out: give one of them"
            )
        return self


def _refuse_pair_repeats(pairs: list[Pair]) -> None:
    _refuse_repeats([pair.secondary_volume for pair in pairs], "secondary volume")
    _refuse_repeats([f"{pair.primary}:{pair.primary_volume}" for pair in pairs], "primary volume")


def _refuse_repeats(names: list[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name} is given twice: give it once")
        seen.add(name)
