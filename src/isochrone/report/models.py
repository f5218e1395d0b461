"""What a controller says about itself, as frozen values: the JSON of the API, the input of the tables and
the metrics.

Units and qualifiers stand last in every name. A figure that was not measured is None, never 0.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import computed_field

from isochrone.model.choices import ComparePolicy, Compression, MarkPolicy, OverflowPolicy, PaceLevel
from isochrone.model.states import PairState, SessionState, SuspendCause
from isochrone.report.backlog_models import BacklogReport, SpillReport
from isochrone.report.base import Report
from isochrone.report.copy_models import CopiesSummary
from isochrone.report.history_models import HistorySummary
from isochrone.report.split_models import SplitReport
from isochrone.report.times import TimePoint


class PoolState(StrEnum):
    """Whether the pool takes writes."""

    SERVING = "SERVING"
    FULL = "FULL"
    """No free track: a write that needs one gets ENOSPC; all others go on."""
    READ_ONLY = "READ_ONLY"
    """A device error stopped all writes; see the reason."""


class VolumeRole(StrEnum):
    """What a volume is to the sessions of this controller."""

    SIMPLEX = "SIMPLEX"
    PRIMARY = "PRIMARY"
    SECONDARY = "SECONDARY"


class ExportState(StrEnum):
    """Whether NBD clients can open a volume."""

    EXPORTED = "EXPORTED"
    WITHHELD = "WITHHELD"
    """Not offered now; the reason says why (for example: secondary of a running session)."""


class LinkState(StrEnum):
    """State of the link between a mover and one primary controller.

    ::

        DOWN --dial--> CONNECTING --welcome--> UP
          ^                |                    |
          +--- error ------+------- error ------+
        REFUSED: the primary answered, and said no; a person must act
    """

    DOWN = "DOWN"
    CONNECTING = "CONNECTING"
    UP = "UP"
    REFUSED = "REFUSED"


class ControllerReport(Report):
    """The process.

    Attributes:
        host_time_ns: the present in host time.
        wall_time: the same moment by the wall clock (ISO 8601, UTC).
        memory_bytes: resident memory now.
        memory_bytes_max: the bound that follows from the settings; None when not known.
    """

    name: str
    id: str
    version: str
    pid: int
    uptime_s: float
    host_time_ns: int
    wall_time: str
    nbd_addresses: tuple[str, ...]
    link_addresses: tuple[str, ...]
    api_addresses: tuple[str, ...]
    memory_bytes: int
    memory_bytes_max: int | None = None


class PoolReport(Report):
    """The pool.

    Attributes:
        free_track_count: tracks that can be handed out now.
        used_track_count: tracks that hold data, staged tracks included.
        pending_free_track_count: freed, but not reusable until what freed them is durable.
        staged_track_count: tracks of records received but not committed yet.
        quarantined_track_count: tracks that the device could not write; not used before the controller is restarted.
        read_only_reason: why the pool stopped taking writes; None while it takes them.
        checkpoint_waits_because: the file system has no room for a checkpoint; it is tried again, and the pool goes on
            until its log is full. None when no checkpoint waits.
        log_used_bytes: pointer log written since the last checkpoint; `log_bytes_max` makes a checkpoint due.
        checkpoint_age_s: since the last completed checkpoint; None when there was none.
        warning_percent: the highest of the levels `pool.warn_percent` that its use has reached; None below all.
    """

    uuid: str
    path: str
    track_size_bytes: int
    track_count: int
    free_track_count: int
    used_track_count: int
    pending_free_track_count: int
    staged_track_count: int = 0
    quarantined_track_count: int = 0
    volume_count: int
    read_only_reason: str | None
    checkpoint_waits_because: str | None = None
    log_used_bytes: int
    log_bytes_max: int
    checkpoint_age_s: float | None
    warning_percent: int | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def state(self) -> PoolState:
        """Follows from the counts and the reason, so that it cannot contradict them."""
        if self.read_only_reason is not None:
            return PoolState.READ_ONLY
        return PoolState.SERVING if self.free_track_count else PoolState.FULL

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size_bytes(self) -> int:
        """Space of all tracks."""
        return self.track_count * self.track_size_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def free_bytes(self) -> int:
        """Space of the free tracks."""
        return self.free_track_count * self.track_size_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def used_bytes(self) -> int:
        """Space of the used tracks."""
        return self.used_track_count * self.track_size_bytes

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pending_free_bytes(self) -> int:
        """Space that becomes free with the next sync."""
        return self.pending_free_track_count * self.track_size_bytes


class VolumeReport(Report):
    """One volume. Counters run since the controller started.

    Attributes:
        sessions: names of the sessions it belongs to, empty for SIMPLEX.
        export_reason: why it is WITHHELD; None when EXPORTED.
        connection_count: NBD connections that have it open now, or read what changed since it.
        kind: "COPY" is a writable copy, "IMAGE" a test image of a secondary.
        copy_of: what it was made from; None unless it is a copy.
        copies: volumes that were made from it.
    """

    name: str
    number: int
    size_bytes: int
    mapped_bytes: int
    kind: Literal["VOLUME", "SNAPSHOT", "COPY", "IMAGE"] = "VOLUME"
    copy_of: str | None = None
    copies: tuple[str, ...] = ()
    role: VolumeRole
    sessions: tuple[str, ...] = ()
    export_state: ExportState
    export_reason: str | None = None
    read_only: bool
    connection_count: int
    read_count: int
    write_count: int
    read_bytes: int
    written_bytes: int


class TrackRange(Report):
    """Tracks in a row."""

    track: int
    track_count: int


class PairReport(Report):
    """One pair as the session's mover sees it.

    Attributes:
        source: name of the primary controller within the session.
        size_bytes: None until the primary has told it.
        tracks_to_copy: tracks the present copy began with; None until the primary has told it.
        tracks_remaining: tracks whose image is still to be read; None until the primary has told it.
        estimate_s: time until the copy is complete at the present rate; None when idle, unknown or complete.
            reason: why the pair is SUSPENDED, cannot start, or has tracks that wait; None otherwise.
        waiting_track_count: tracks that came and that the device here has not taken yet.
            image: while the secondary's image is of another time than the session's: its time; None otherwise.
        suspend_at: a suspension of this pair by itself is pending: its time (ISO 8601, UTC); None otherwise.
            refused: it cannot start as it is (no such volume, another size, data at the secondary): a person must act.
        priority: pairs of a higher one are copied first; among equals the one with least to copy.
        pace: its own pace level; None for the session's.
        compared_track_count: tracks that were compared before they were sent, in the last copy that compared any.
        equal_track_count: those of them that were equal, and so not sent; `compare_saved_bytes` is their size.
        unreadable_track_count: tracks that the primary's device cannot read; the copy waits for them.
        unreadable: the first ranges of them.
    """

    source: str
    primary_volume: str
    secondary_volume: str
    state: PairState
    size_bytes: int | None
    tracks_to_copy: int | None
    tracks_remaining: int | None
    estimate_s: float | None = None
    reason: str | None = None
    image: TimePoint | None = None
    suspend_at: str | None = None
    refused: bool = False
    priority: int = 0
    pace: PaceLevel | None = None
    compared_track_count: int = 0
    equal_track_count: int = 0
    compare_saved_bytes: int = 0
    unreadable_track_count: int = 0
    unreadable: tuple[TrackRange, ...] = ()
    waiting_track_count: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def copied_percent(self) -> float | None:
        """0 to 100, and 100 only when no track remains; None while the amount is unknown."""
        if self.state is PairState.DUPLEX:
            return 100.0
        if self.tracks_to_copy is None or self.tracks_remaining is None:
            return None
        if self.tracks_remaining == 0:
            return 100.0
        total = max(self.tracks_to_copy, self.tracks_remaining)
        return 1000 * (total - self.tracks_remaining) // total / 10


class SourceReport(Report):
    """One primary controller of a session, as the mover sees it.

    Attributes:
        name: its name within the session.
        controller_id: None until it was first reached.
        since: when the link entered its state (ISO 8601, UTC); `state_age_s` is the same as an age.
        last_error: of the newest failed attempt; kept after success, for the record; None when there was
            none.
        received: everything of this controller up to here has been received.
        window_bytes: what the controller may still send.
        reconnect_count: times the link was lost and found again, since the controller started.
        backlog: its side file and the delays there, as it told last; None when it has not, or the link is down.
    """

    name: str
    address: str
    controller_id: str | None
    link_state: LinkState
    since: str
    state_age_s: float
    last_error: str | None
    received: TimePoint
    window_bytes: int
    received_record_count: int
    received_bytes: int
    reconnect_count: int
    backlog: BacklogReport | None = None


class SessionSettings(Report):
    """The settings a session runs with; meanings as in the request that creates it."""

    group_interval_ms: float
    group_bytes_max: int
    retry_ms_max: float
    retry_tracks_max: int
    history_s_max: float = 0.0
    history_bytes_max: int = 0
    compression: Compression
    overflow_policy: OverflowPolicy
    pace_level: PaceLevel = PaceLevel.STEADY
    pace_delay_ms_max: float
    hold_ms_max: float = 5000.0
    copy_rate_bytes_max: int
    copy_share_percent: int
    compare: ComparePolicy
    mark_policy: MarkPolicy
    link_timeout_s: float
    auto_resume: bool
    auto_resume_budget_s: float


class ResyncReport(Report):
    """All copies of a session together, first ones and resynchronisations.

    Attributes:
        tracks_remaining, bytes_remaining: images still to be read.
        bytes_per_s: images read lately.
        estimate_s: time until none remains at this rate, of the slowest primary; None while that is not known.
    """

    tracks_remaining: int
    bytes_remaining: int
    bytes_per_s: float
    estimate_s: float | None


class AutoResumeReport(Report):
    """What will become of a suspension.

    Attributes:
        attempt: number of the attempt to come; 0 when it resumes by command only.
        at: when it is expected to resume (ISO 8601, UTC); None when that is not a matter of time.
        text: the same in words, with what is in the way.
    """

    attempt: int
    at: str | None
    text: str


class RetryReport(Report):
    """What the secondary's device has not taken and is offered again, while everything else goes on.

    Attributes:
        waiting_track_count: tracks that wait in memory; C stays before the oldest record of them.
        waiting_bytes: memory that they take.
        oldest_age_s: how long the one that waits longest has waited; None when none does.
        retry_count: tries since the controller started.
        reason: what the device said last; None when none waits.
    """

    waiting_track_count: int = 0
    waiting_bytes: int = 0
    oldest_age_s: float | None = None
    retry_count: int = 0
    reason: str | None = None


class SessionReport(Report):
    """One session as its mover sees it (role "secondary").

    Attributes:
        blocked_on: what its times wait for now ("controller a: link down 3.2 s", "pool full"); None when
            they move.
        pending_command: a command that was accepted and is not complete ("recover: draining"); None
            otherwise.
        image_complete: recovery would give a complete image of every pair: all are DUPLEX or were when
            suspended.
        image_incomplete_reason: why not; None when complete.
        form: F: everything up to it has been received from every controller.
        journal: J: everything up to it is durable here.
        consistency: C: the committed image is exactly the writes up to it. Its lag is the data a disaster
            would cost.
        recovered: once ENDED by recovery: the time the volumes stand at. None before.
        rewound_from: once ENDED by a recovery to an instant of the history: the time of the image that was left for it.
        kept_copy: name of the snapshots of that image. recovered_note: why it was not left after all, if so.
        split: once ENDED by recovery: what each side wrote since. None before.
        history: what is kept of the past; None when it is off.
        retry: tracks that the device here has not taken yet.
        staged_track_count: tracks received and not yet committed.
        group_count: consistency groups with writes committed since the controller started.
        record_count, byte_count: received since the controller started.
        records_per_s, bytes_per_s: over the last seconds.
        suspend_at: a suspension is pending: the moment whose image it will leave (ISO 8601, UTC).
        auto_resume: what the session waits for to resume by itself; set while SUSPENDED.
        suspended_reason, suspended_cause, suspended_since: set while SUSPENDED; the image is that of `consistency`.
        resync: while pairs are being copied.
    """

    name: str
    id: str
    epoch: int
    role: Literal["secondary"] = "secondary"
    state: SessionState
    blocked_on: str | None
    pending_command: str | None = None
    suspend_at: str | None = None
    suspended_reason: str | None = None
    suspended_cause: SuspendCause | None = None
    suspended_since: str | None = None
    auto_resume: AutoResumeReport | None = None
    image_complete: bool
    image_incomplete_reason: str | None
    form: TimePoint
    journal: TimePoint
    consistency: TimePoint
    recovered: TimePoint | None = None
    rewound_from: TimePoint | None = None
    kept_copy: str | None = None
    recovered_note: str | None = None
    history: HistorySummary | None = None
    split: SplitReport | None = None
    settings: SessionSettings
    resync: ResyncReport | None = None
    retry: RetryReport = RetryReport()
    staged_track_count: int
    staged_bytes: int
    group_count: int
    record_count: int
    byte_count: int
    records_per_s: float
    bytes_per_s: float
    sources: tuple[SourceReport, ...]
    pairs: tuple[PairReport, ...]


class PacingReport(Report):
    """What the application's writes feel because of one session.

    Attributes:
        level: how early and how steeply writes are delayed.
        delay_ms: the longest that the writes to any volume are delayed now; 0 when none are.
        delay_ms_max: the longest the operator allows.
        hold_ms_max: the longest that a write waits for room under the policy "hold".
        held_write_count: writes whose acknowledgement waits at this moment.
        paced_write_count: acknowledgements that were ever delayed, since the controller started.
        paced_s: sum of those delays.
    """

    policy: OverflowPolicy
    level: PaceLevel = PaceLevel.STEADY
    delay_ms: float
    delay_ms_max: float
    hold_ms_max: float = 0.0
    held_write_count: int
    paced_write_count: int
    paced_s: float


class CapturedVolume(Report):
    """One primary volume of a session at its controller.

    Attributes:
        marked_track_count: tracks that may differ at the secondary.
        tracks_remaining: tracks whose image is still to be read and sent.
        region_count: regions of the volume in which durable marks are kept, active_region_count those of them that a power
            loss now would make suspect; None while marks are kept in memory.
        suspected_region_count: how many were suspected at the last start, because marks could not be believed; None when
            they were.
    """

    name: str
    number: int
    marked_track_count: int
    tracks_remaining: int
    region_count: int | None = None
    active_region_count: int | None = None
    suspected_region_count: int | None = None


class MarksReport(Report):
    """How the marks of one session are kept small (S3); counts are since the controller started.

    Attributes:
        policy: what they survive.
        toggled: when a generation of marks was closed last (ISO 8601, UTC); None for never.
        discarded: when one was discarded last, all of it being hardened.
        toggle_count, discard_count: how often; a discard counts once a volume.
        track_discarded: when single marks of a generation that waits were discarded last.
        track_discard_count: how many.
    """

    policy: MarkPolicy = MarkPolicy.MEMORY
    toggled: str | None = None
    discarded: str | None = None
    toggle_count: int = 0
    discard_count: int = 0
    track_discarded: str | None = None
    track_discard_count: int = 0


class CaptureReport(Report):
    """One session as a primary controller of it sees it (role "primary").

    Attributes:
        state: ACTIVE, SUSPENDED (changes are marked, nothing is sent) or ENDED (fenced by a recovery).
        mover_id, mover_name: who owns the session; name None until it was heard since the start.
        link_since: when the link entered its state (ISO 8601, UTC).
        side_file_bytes: captured and not yet hardened remotely, in memory and in the spill.
        side_file_bytes_max: memory and spill together.
        spill: None when there is none.
        backlog: who is delayed, by how much and why.
        unsent_bytes: captured and not yet sent.
        hardened: J as last acknowledged. consistency: C as last heard.
        quiesced: application writes are refused for a planned switchover.
        split: once fenced: what was written here since the last common time. None before.
        cut: the stream was cut at this time for a suspension; later writes are only marked. None when it was not.
        suspended_since: ISO 8601, UTC; set with `suspended_reason`, as is `suspended_cause`.
    """

    name: str
    id: str
    epoch: int
    role: Literal["primary"] = "primary"
    state: SessionState
    mover_id: str
    mover_name: str | None
    link_state: LinkState
    link_since: str
    side_file_bytes: int
    side_file_bytes_max: int
    unsent_bytes: int
    hardened: TimePoint
    consistency: TimePoint
    volumes: tuple[CapturedVolume, ...]
    pacing: PacingReport
    marks: MarksReport = MarksReport()
    spill: SpillReport | None = None
    backlog: BacklogReport | None = None
    quiesced: bool = False
    split: SplitReport | None = None
    cut: TimePoint | None = None
    suspended_reason: str | None = None
    suspended_cause: SuspendCause | None = None
    suspended_since: str | None = None


class StatusReport(Report):
    """All of one controller.

    Itself, its pool and volumes (but for snapshots), sessions it moves (secondary), sessions it feeds (primary), copies.
    """

    controller: ControllerReport
    pool: PoolReport
    volumes: tuple[VolumeReport, ...]
    sessions: tuple[SessionReport, ...]
    captures: tuple[CaptureReport, ...]
    copies: CopiesSummary = CopiesSummary()
