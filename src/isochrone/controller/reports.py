"""What a controller says of itself, its pool and its volumes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from isochrone import __version__
from isochrone.controller.capture_reports import Now
from isochrone.controller.exports import VolumeExport
from isochrone.copies.catalogue import Catalogue
from isochrone.model.volume_kind import IMAGE_MARK, VolumeKind
from isochrone.report.models import (
    ControllerReport,
    ExportState,
    PoolReport,
    VolumeReport,
    VolumeRole,
)
from isochrone.report.times import NS_PER_S, wall_text
from isochrone.store.pool import Pool
from isochrone.store.volume import Volume

BASE_MEMORY_BYTES: Final = 150 << 20
"""The interpreter, its libraries, and the fixed buffers of a controller."""
METADATA_PER_MAPPED: Final = 0.003
"""Memory for track tables, reference counts and change maps, as a share of mapped bytes."""

_KINDS: Final[dict[VolumeKind, Literal["VOLUME", "SNAPSHOT", "COPY", "IMAGE"]]] = {
    VolumeKind.VOLUME: "VOLUME",
    VolumeKind.SNAPSHOT: "SNAPSHOT",
    VolumeKind.COPY: "COPY",
    VolumeKind.IMAGE: "IMAGE",
}
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def controller_report(
    *,
    name: str,
    controller_id: str,
    started_ns: int,
    now: Now,
    addresses: Mapping[str, Sequence[str]],
    memory_bytes_max: int,
) -> ControllerReport:
    """Return the report of the process. `addresses` are those of "nbd", "link" and "api"."""
    return ControllerReport(
        name=name,
        id=controller_id,
        version=__version__,
        pid=os.getpid(),
        uptime_s=(now.host_ns - started_ns) / NS_PER_S,
        host_time_ns=now.host_ns,
        wall_time=wall_text(now.wall_ns),
        nbd_addresses=tuple(addresses["nbd"]),
        link_addresses=tuple(addresses["link"]),
        api_addresses=tuple(addresses["api"]),
        memory_bytes=_resident_bytes(),
        memory_bytes_max=memory_bytes_max,
    )


def pool_report(
    pool: Pool, *, path: str, checkpoint_age_s: float | None, warning_percent: int | None
) -> PoolReport:
    """Return the report of the pool."""
    stats = pool.stats()
    return PoolReport(
        uuid=pool.uuid,
        path=path,
        track_size_bytes=stats.track_size_bytes,
        track_count=stats.track_count,
        free_track_count=stats.free_track_count,
        used_track_count=stats.used_track_count,
        pending_free_track_count=stats.pending_free_count,
        staged_track_count=stats.staged_track_count,
        quarantined_track_count=stats.quarantined_track_count,
        volume_count=stats.volume_count,
        read_only_reason=stats.read_only_reason,
        checkpoint_waits_because=stats.checkpoint_waits_because,
        log_used_bytes=stats.log_used_bytes,
        log_bytes_max=stats.log_segment_size_bytes,
        checkpoint_age_s=checkpoint_age_s,
        warning_percent=warning_percent,
    )


def volume_report(
    export: VolumeExport,
    catalogue: Catalogue,
    *,
    mapped_bytes: int,
    captured_by: Sequence[str],
    secondary_of: str,
) -> VolumeReport:
    """Return the report of one volume.

    Args:
        captured_by: sessions it is a primary of.
        secondary_of: the running session it is a secondary of, "" if none.
    """
    role = VolumeRole.SIMPLEX
    if secondary_of:
        role = VolumeRole.SECONDARY
    elif captured_by:
        role = VolumeRole.PRIMARY
    return VolumeReport(
        name=export.name,
        number=export.volume.number,
        size_bytes=export.size_bytes,
        mapped_bytes=mapped_bytes,
        kind=_KINDS[export.volume.kind],
        copy_of=catalogue.source_of(export.name) or _secondary_of_image(export.volume),
        copies=tuple(catalogue.children_of(export.name)),
        role=role,
        sessions=(secondary_of,) if secondary_of else tuple(captured_by),
        export_state=ExportState.EXPORTED,
        read_only=export.read_only,
        connection_count=export.connection_count,
        read_count=export.read_count,
        write_count=export.write_count,
        read_bytes=export.read_bytes,
        written_bytes=export.written_bytes,
    )


def _secondary_of_image(volume: Volume) -> str | None:
    return volume.name.partition(IMAGE_MARK)[0] if volume.kind is VolumeKind.IMAGE else None


def _resident_bytes() -> int:
    """Return the process's resident memory (proc(5), statm: total, resident, ... in pages)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
