"""The activity maps of one primary: what writes ask of them, and when regions are given up. See activity_map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isochrone.capture.activity_map import ActivityMap, Steps
from isochrone.capture.change_map import ChangeMap
from isochrone.capture.settings import CaptureSettings
from isochrone.store.volume import Volume


@dataclass(frozen=True, slots=True)
class DurableMarks:
    """Both maps of one volume of a session whose marks are durable."""

    activity: ActivityMap
    change_map: ChangeMap


@dataclass(frozen=True, slots=True)
class Change:
    """A write or zeroing to come; bytes of its volume."""

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

    def ask(self, volume: Volume, changes: Iterable[Change]) -> bool:
        """Return whether all `changes` of `volume` may be made at once; else they may after the next `activate`."""
        marks = self._marks.get(volume.number, ())
        size = self._track_size_bytes
        may = True
        for change in changes:
            runs: Iterable[tuple[int, int]] = [(change.offset, change.length)]
            if change.zeroes:  # tracks that are not mapped stay as they are
                mapped_runs = volume.mapped_runs(change.offset, change.length)
                runs = [(start, length) for start, length, mapped in mapped_runs if mapped]
            for start, length in runs:
                track = start // size
                count = (start + length - 1) // size - track + 1
                for one in marks:
                    may &= one.activity.ask(track, count)
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
