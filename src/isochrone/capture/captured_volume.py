"""One volume of a session at its primary: its marks, its copy, and whether it is suspended by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isochrone.capture.activity_map import ActivityMap, Suspicion
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.copier import CompareCount, Copier
from isochrone.capture.delays import DelayMeter
from isochrone.link.messages import UNREADABLE_RUNS_MAX, TrackRun, VolumeCopy
from isochrone.model.choices import ComparePolicy, PaceLevel
from isochrone.store.volume import Volume


class CapturedVolume:
    """One volume of a session at its primary.

    Attributes:
        captured_from_ns: records of the volume up to here are of an earlier time in the session, with a gap since.
        compare_count: of the last copy that compared anything.
        copy_began_ns: the tracks that `copier` still has to copy are in no record of a later time.
        copier: what is still to be copied; None when nothing is.
        activity: which regions a power loss makes suspect; None while marks are kept in memory only.
        suspicion: how much of it was suspected when its marks could not be believed; None when they were.
        copied_through_ns: time by which every image was captured; 0 while tracks remain.
        priority: volumes of a higher one are copied first.
        pace: its own pace level, None for the session's.
        delays: what pacing has applied to it for this session.
        is_duplex: the mover has said so of its pair in this incarnation.
        suspend_at_ns: from when on it is to be suspended by itself, 0 for never.
        suspended_ns: since when it is, 0 when it is not: writes up to it are sent, later ones only marked.
    """

    __slots__ = (
        "activity",
        "captured_from_ns",
        "change_map",
        "compare_count",
        "copied_through_ns",
        "copier",
        "copy_began_ns",
        "delays",
        "is_duplex",
        "pace",
        "priority",
        "suspend_at_ns",
        "suspended_ns",
        "suspicion",
        "volume",
    )

    def __init__(
        self,
        volume: Volume,
        change_map: ChangeMap,
        captured_from_ns: int,
        activity: ActivityMap | None = None,
    ) -> None:
        self.activity = activity
        self.suspicion: Suspicion | None = None
        self.captured_from_ns = captured_from_ns
        self.volume = volume
        self.change_map = change_map
        self.compare_count = CompareCount()
        self.copier: Copier | None = None
        self.copy_began_ns = 0
        self.copied_through_ns = 0
        self.priority = 0
        self.pace: PaceLevel | None = None
        self.delays = DelayMeter()
        self.is_duplex = False
        self.suspend_at_ns = 0
        self.suspended_ns = 0

    @property
    def tracks_remaining(self) -> int:
        """Tracks whose image is still to be read."""
        return self.copier.remaining if self.copier else 0

    def progress(self) -> VolumeCopy:
        """Return what the mover is told of the copy."""
        copier = self.copier
        return VolumeCopy(
            self.volume.number,
            self.tracks_remaining,
            self.copied_through_ns,
            copier.unreadable_count if copier else 0,
            [TrackRun(*run) for run in copier.unreadable_runs(UNREADABLE_RUNS_MAX)] if copier else [],
            self.compare_count.compared,
            self.compare_count.equal,
            self.suspended_ns,
        )

    def suspect_all(self) -> None:
        """Nothing is known about the secondary: all of the volume may differ. Raises OSError, PoolReadOnlyError."""
        if self.activity is not None:
            self.activity.activate_all()
        self.change_map.suspect_all()

    def mark_mapped(self) -> None:
        """The secondary is empty and lacks all that is mapped here. Raises as `suspect_all` does."""
        if self.activity is not None:
            self.activity.activate_all()
        self.change_map.mark_where(self.volume.mapped())

    def mark_runs(self, runs: Sequence[tuple[int, int]]) -> None:
        """Mark runs of tracks (first, count) that changed elsewhere. Raises as `suspect_all` does."""
        if self.activity is not None:
            for run in runs:
                self.activity.ask(*run)
            for call in self.activity.activate():
                call()
        for run in runs:
            self.change_map.mark(*run)

    def mark_tracks(self, tracks: NDArray[np.int64]) -> None:
        """Mark tracks that changed here without a write. Raises as `suspect_all` does."""
        if self.activity is not None:
            for track in tracks[
                np.unique(tracks // self.activity.region_tracks, return_index=True)[1]
            ].tolist():
                self.activity.ask(track, 1)
            for call in self.activity.activate():
                call()
        marks = np.zeros(self.change_map.track_count, np.bool_)
        marks[tracks[tracks < len(marks)]] = True
        self.change_map.mark_where(marks)

    def start_copy(self, track_size_bytes: int, now_ns: int, compare: ComparePolicy) -> None:
        """Copy every marked track; marks are kept until all of it is hardened. `now_ns` is a promise of the stamper."""
        self.change_map.freeze()
        marked = self.change_map.marked()
        suspected: NDArray[np.bool_] | None = None
        if compare is ComparePolicy.SUSPECTED:
            suspected = self.change_map.suspected()
        elif compare is ComparePolicy.ALWAYS:
            suspected = marked
        if suspected is not None and suspected.any():
            self.compare_count = CompareCount()
        else:
            suspected = None
        self.copier = Copier(self.volume, marked, track_size_bytes, suspected, self.compare_count)
        self.copy_began_ns = now_ns
        self.copied_through_ns = 0
        self.is_duplex = False

    def end_copy(self, copied_through_ns: int) -> None:
        """Every marked track was captured, or found equal, before `copied_through_ns`, a promise of the stamper."""
        self.copier = None
        self.copied_through_ns = copied_through_ns
        self.change_map.thaw(copied_through_ns, found_equal=self.compare_count.equal > 0)

    def stop_copy(self) -> None:
        """Give the copy up; the marks remember what is missing."""
        self.change_map.freeze()
        self.copier = None
        self.copied_through_ns = 0
        self.is_duplex = False

    def suspend(self, cut_ns: int, now_ns: int) -> None:
        """Capture nothing later than `cut_ns`; of a pair that is not DUPLEX, send nothing more. `now_ns` is a promise."""
        self.suspended_ns = cut_ns
        if self.is_duplex:
            self.cut(cut_ns)
        if not self.is_duplex or self.copied_through_ns == 0:
            self.stop_copy()
            self.captured_from_ns = now_ns

    def cut(self, cut_ns: int) -> None:
        """The stream ends at `cut_ns`: every mark is kept from here on, and a copy counts only if its last image is in."""
        if self.copier is not None or self.copied_through_ns > cut_ns:
            self.stop_copy()
        else:
            self.change_map.freeze()


def copy_order(captured: CapturedVolume) -> tuple[int, int]:
    """Sort key: highest priority first, then smallest remaining, so that pairs become DUPLEX early."""
    return (-captured.priority, captured.tracks_remaining)
