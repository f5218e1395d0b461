"""The activity maps of one primary: what writes ask of them, and when regions are given up. See activity_map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from isochrone.capture.activity_map import ActivityMap, Steps
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.settings import CaptureSettings
from isochrone.store.volume import Volume


@dataclass(frozen=True, slots=True)
class DurableMarks:
    """Both maps of one volume of a session whose marks are durable."""

    activity: ActivityMap
    change_map: ChangeMap


class Change(NamedTuple):
    """A write or zeroing to come; bytes of its volume. A plain tuple of the same serves as well, and costs less."""

    offset: int
    length: int
    zeroes: bool


class Activities:
    """All activity maps of a primary, by volume number."""

    def __init__(self, settings: CaptureSettings, track_size_bytes: int) -> None:
        self._settings = settings
        self._track_size_bytes = track_size_bytes
        self._marks: dict[int, tuple[DurableMarks, ...]] = {}
        self._trimmed_ns = 0

    def rebuild(self, marks: dict[int, tuple[DurableMarks, ...]]) -> None:
        """Take over which maps there are."""
        self._marks = marks

    def has(self, number: int) -> bool:
        """Whether writes to volume `number` have to ask first."""
        return number in self._marks

    def ask(self, volume: Volume, changes: Iterable[tuple[int, int, bool]]) -> bool:
        """Return whether all `changes` of `volume` may be made at once; else they may after the next `activate`."""
        activities = [one.activity for one in self._marks.get(volume.number, ())]
        size = self._track_size_bytes
        may = True
        for offset, length, zeroes in changes:
            if zeroes:
                may &= self._ask_to_zero(volume, offset, length, activities)
                continue
            track = offset // size
            track_count = (offset + length - 1) // size - track + 1
            for activity in activities:
                if not activity.ask(track, track_count):
                    may = False
        return may

    def _ask_to_zero(self, volume: Volume, offset: int, length: int, activities: list[ActivityMap]) -> bool:
        """Ask for what is mapped of a range: the rest stays as it is."""
        size = self._track_size_bytes
        may = True
        for start, run_length, mapped in volume.mapped_runs(offset, length):
            if mapped:
                track = start // size
                track_count = (start + run_length - 1) // size - track + 1
                for activity in activities:
                    may &= activity.ask(track, track_count)
        return may

    def activate(self) -> Steps:
        """Yield blocking calls after which all that was asked for before the first is active."""
        asked = [one.activity for marks in self._marks.values() for one in marks if one.activity.is_asked]
        for activity in asked:
            yield from activity.activate()

    # Giving regions up: begin_trim, a sync of the pool, end_trim

    def trim_is_due(self, now_ns: int) -> bool:
        """Whether more regions are active somewhere than are to be kept, and the last trim is a while ago."""
        if now_ns - self._trimmed_ns < self._settings.activity_trim_interval_ns:
            return False
        self._trimmed_ns = now_ns
        return any(
            one.activity.active_count > self._settings.activity_regions_max
            for marks in self._marks.values()
            for one in marks
        )

    def begin_trim(self, now_ns: int) -> None:
        """A sync of the pool begins after this."""
        for marks in self._marks.values():
            for one in marks:
                one.activity.begin_trim(now_ns, self._settings.activity_idle_ns)

    def end_trim(self) -> None:
        """The sync that began after `begin_trim` has succeeded. Raises OSError."""
        for marks in self._marks.values():
            for one in marks:
                one.activity.end_trim(one.change_map, self._settings.activity_regions_max)
