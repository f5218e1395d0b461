"""The files that remember marks in the pool's folder: opened, made to follow the session's policy, removed."""

from __future__ import annotations

from isochrone.capture.activity_map import (
    ACTIVITY_MAP_PREFIX,
    ActivityMap,
    Suspicion,
    activity_map_name,
    remove_activity_map,
)
from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.change_map import CHANGE_MAP_PREFIX, ChangeMap, change_map_name
from isochrone.capture.document import CaptureDocument
from isochrone.capture.settings import CaptureSettings
from isochrone.model.choices import MarkPolicy
from isochrone.store.disk import Disk
from isochrone.store.pool import Pool


class MarkFiles:
    """Change maps and activity maps of one primary."""

    def __init__(self, pool: Pool, disk: Disk, settings: CaptureSettings) -> None:
        self._pool = pool
        self._disk = disk
        self._region_tracks = max(1, settings.activity_region_bytes // pool.track_size_bytes)

    def open(self, document: CaptureDocument, number: int, captured_from_ns: int) -> CapturedVolume:
        """Open the maps of volume `number` for a session, or make them.

        Marks that a power loss or a failing device may have taken are suspected. Raises OSError, PoolReadOnlyError.
        """
        volume = self._pool.volume_by_number(number)
        is_known = number in document.volumes
        activity = self._open_activity(document, number) if _is_durable(document) else None
        name = change_map_name(document.session_id, number)
        change_map = ChangeMap(
            self._disk, name, number, volume.track_count, is_known=is_known, suspects=activity
        )
        if is_known and (self._pool.reopened_after_loss or change_map.was_created):
            change_map.distrust(activity)
        captured = CapturedVolume(volume, change_map, captured_from_ns, activity)
        if change_map.was_suspected:
            region_count = -(-volume.track_count // self._region_tracks)
            captured.suspicion = Suspicion(activity.active_count if activity else region_count, region_count)
        return captured

    def follow_policy(self, document: CaptureDocument, captured: CapturedVolume) -> None:
        """Keep an activity map of the volume just when the session's marks are to be durable. Raises as `open` does."""
        if _is_durable(document) and captured.activity is None:
            captured.activity = self._open_activity(document, captured.volume.number, is_new=True)
        elif not _is_durable(document) and captured.activity is not None:
            activity, captured.activity = captured.activity, None
            activity.remove()

    def _open_activity(self, document: CaptureDocument, number: int, *, is_new: bool = False) -> ActivityMap:
        volume = self._pool.volume_by_number(number)
        return ActivityMap(
            self._disk,
            activity_map_name(document.session_id, number),
            number,
            volume.track_count,
            self._region_tracks,
            self._pool.make_durable,
            is_new=is_new or number not in document.volumes,
        )

    def remove(self, captured: CapturedVolume) -> None:
        """The volume has left its session. Raises as `open` does."""
        captured.change_map.remove()
        if captured.activity is not None:
            captured.activity.remove()

    def remove_orphans(self, documents: list[CaptureDocument]) -> None:
        """Delete maps that a crash left behind between a session's document and its maps. Raises as `open` does."""
        maps = {change_map_name(d.session_id, number) for d in documents for number in d.volumes}
        maps |= {
            activity_map_name(d.session_id, number)
            for d in documents
            for number in d.volumes
            if _is_durable(d)
        }
        for name in self._disk.names():
            if name in maps:
                continue
            if name.startswith(CHANGE_MAP_PREFIX):
                self._disk.remove(name)
            elif name.startswith(ACTIVITY_MAP_PREFIX):
                remove_activity_map(self._disk, name, self._pool.make_durable)


def _is_durable(document: CaptureDocument) -> bool:
    return document.policy.mark_policy is MarkPolicy.DURABLE
