"""Reports with every field in use: what a controller that does something of everything would say."""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console, RenderableType

from isochrone.model.choices import ComparePolicy, Compression, MarkPolicy, OverflowPolicy
from isochrone.model.states import PairState, SessionState
from isochrone.report.models import (
    CapturedVolume,
    CaptureReport,
    ControllerReport,
    ExportState,
    LinkState,
    MarksReport,
    PacingReport,
    PairReport,
    PoolReport,
    SessionReport,
    SessionSettings,
    SourceReport,
    StatusReport,
    VolumeReport,
    VolumeRole,
)
from isochrone.report.times import NS_PER_MS, NS_PER_S, TimePoint

NOW_NS: Final = 1_000 * NS_PER_S
WALL_NOW_NS: Final = 1_800_000_000 * NS_PER_S


def behind(lag_ms: int) -> TimePoint:
    return TimePoint.measure(NOW_NS - lag_ms * NS_PER_MS, now_ns=NOW_NS, wall_now_ns=WALL_NOW_NS)


CONTROLLER: Final = ControllerReport(
    name="secondary",
    id="0" * 32,
    version="0.1.0",
    pid=1,
    uptime_s=61.0,
    host_time_ns=NOW_NS,
    wall_time="2027-01-15T08:00:00.000000Z",
    nbd_addresses=("unix:/run/nbd.sock",),
    link_addresses=(),
    api_addresses=("tcp:127.0.0.1:7480",),
    memory_bytes=90 << 20,
    memory_bytes_max=700 << 20,
)
POOL: Final = PoolReport(
    uuid="1" * 32,
    path="/srv/pool",
    track_size_bytes=4096,
    track_count=1000,
    free_track_count=600,
    used_track_count=390,
    pending_free_track_count=10,
    staged_track_count=20,
    volume_count=1,
    read_only_reason=None,
    log_used_bytes=1 << 20,
    log_bytes_max=64 << 20,
    checkpoint_age_s=12.0,
)
VOLUME: Final = VolumeReport(
    name="db-copy",
    number=3,
    size_bytes=1 << 30,
    mapped_bytes=1 << 20,
    role=VolumeRole.SECONDARY,
    sessions=("bank",),
    export_state=ExportState.WITHHELD,
    export_reason="secondary of session bank [not recovered]",
    read_only=True,
    connection_count=0,
    read_count=5,
    write_count=7,
    read_bytes=5 * 4096,
    written_bytes=7 * 4096,
)
SETTINGS: Final = SessionSettings(
    group_interval_ms=10.0,
    group_bytes_max=32 << 20,
    retry_ms_max=60_000.0,
    retry_tracks_max=1024,
    compression=Compression.OFF,
    overflow_policy=OverflowPolicy.PACE,
    pace_delay_ms_max=100.0,
    copy_rate_bytes_max=0,
    link_timeout_s=0,
    auto_resume=True,
    auto_resume_budget_s=60,
    copy_share_percent=50,
    compare=ComparePolicy.SUSPECTED,
    mark_policy=MarkPolicy.DURABLE,
)
SOURCE: Final = SourceReport(
    name="a",
    address="tcp:10.0.0.1:7481",
    controller_id="2" * 32,
    link_state=LinkState.UP,
    since="2027-01-15T07:59:00.000000Z",
    state_age_s=60.0,
    last_error="[Errno 111] Connection refused",
    received=behind(9),
    window_bytes=8 << 20,
    received_record_count=1234,
    received_bytes=5 << 20,
    reconnect_count=2,
)
PAIR: Final = PairReport(
    source="a",
    primary_volume="db",
    secondary_volume="db-copy",
    state=PairState.COPY,
    size_bytes=1 << 30,
    tracks_to_copy=1000,
    tracks_remaining=250,
    estimate_s=75.0,
)
SESSION: Final = SessionReport(
    name="bank",
    id="3" * 32,
    epoch=4,
    state=SessionState.ACTIVE,
    blocked_on=None,
    image_complete=False,
    image_incomplete_reason="pair db-copy is COPY",
    form=behind(12),
    journal=behind(14),
    consistency=behind(16),
    settings=SETTINGS,
    staged_track_count=20,
    staged_bytes=20 * 4096,
    group_count=99,
    record_count=1234,
    byte_count=5 << 20,
    records_per_s=321.0,
    bytes_per_s=float(3 << 20),
    sources=(SOURCE,),
    pairs=(PAIR,),
)
CAPTURE: Final = CaptureReport(
    name="ledger",
    id="4" * 32,
    epoch=1,
    state=SessionState.ACTIVE,
    mover_id="5" * 32,
    mover_name="third-site",
    link_state=LinkState.UP,
    link_since="2027-01-15T07:00:00.000000Z",
    side_file_bytes=128 << 20,
    side_file_bytes_max=256 << 20,
    unsent_bytes=1 << 20,
    hardened=behind(20),
    consistency=behind(25),
    volumes=(
        CapturedVolume(
            name="ledger-db",
            number=1,
            marked_track_count=77,
            tracks_remaining=5,
            region_count=25600,
            active_region_count=2048,
            suspected_region_count=2100,
        ),
    ),
    pacing=PacingReport(
        policy=OverflowPolicy.PACE,
        delay_ms=3.5,
        delay_ms_max=100.0,
        held_write_count=6,
        paced_write_count=1000,
        paced_s=2.5,
    ),
    marks=MarksReport(
        toggled="2027-01-15T08:00:00.000Z",
        discarded="2027-01-15T08:00:01.000Z",
        toggle_count=9,
        discard_count=8,
        track_discarded="2027-01-15T07:59:00.000Z",
        track_discard_count=1234,
    ),
)
STATUS: Final = StatusReport(
    controller=CONTROLLER, pool=POOL, volumes=(VOLUME,), sessions=(SESSION,), captures=(CAPTURE,)
)
EMPTY: Final = StatusReport(
    controller=CONTROLLER.model_copy(update={"memory_bytes_max": None}),
    pool=POOL.model_copy(update={"checkpoint_age_s": None}),
    volumes=(),
    sessions=(),
    captures=(),
)


def rendered(view: RenderableType) -> str:
    """What a wide terminal shows of a view."""
    stream = io.StringIO()
    Console(file=stream, width=240).print(view)
    return stream.getvalue()
