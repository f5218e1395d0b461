"""Change maps that stay small: two levels of discard, each with a threshold by count and one by time (S3).

Level 1 discards a whole generation of all maps of a session: it is toggled when `prune_tracks_max` tracks were captured or
`prune_interval_ns` went by since the last toggle, and released when the hardened time has reached the toggle.

While the secondary lags, a generation waits for its *last* write. Level 2 does not: when it has waited for
`discard_interval_ns`, or `discard_tracks_max` tracks are marked, single marks of it are discarded, namely all but those of
records that are still in the backlog. It looks at the monitored generation only, and so needs no pause of the writers:

- marks of that generation are never set anew, and what stands for them in the backlog only becomes less. What is found
  needed at any moment is a superset of what is needed later: a run can take as many ticks as it likes;
- writes meanwhile mark the active generation. None of those could be discarded anyway: their times are later than the
  toggle, and the hardened time is not, or level 1 would have released the whole.

A run takes note of the backlog's entries, reads their records in bounded steps, then clears in bounded steps. A map that
is frozen, released or toggled meanwhile has left the run: its `toggle_ns` is another one. Only packed records are read, so
it does not matter where the payload is.

Hardened means here: hardened and committed. A recovery during a resync goes back to the image of before the resync, and
drops what was hardened since; after such a split the marks must reach back to the recovered time. So J counts only up to
C, behind which no recovery goes, and a run of level 2 clears nothing before all that had left the backlog when it began is
committed.

Before the first mark is cleared, by either level, the session's document remembers the time of a hardened record: a mover
that comes back with less has lost data, and then everything is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from isochrone.capture.backlog import Backlog
from isochrone.capture.change_map import REGION_TRACKS, ChangeMap
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.stamper import Stamper
from isochrone.model.records import RECORD_DTYPE, RecordArray

ENTRIES_PER_STEP_MAX: Final = 4096
TRACKS_NEEDED_PER_STEP_MAX: Final = 1 << 19
TRACKS_CLEARED_PER_STEP_MAX: Final = 1 << 20
assert TRACKS_CLEARED_PER_STEP_MAX % REGION_TRACKS == 0
DISCARD_PAUSE_NS: Final = 1_000_000_000
"""A generation is left alone this long after its toggle, or after the last run: level 1 is cheaper, and mostly in time."""
_RUN_TRACKS_FEW: Final = 32


class MarkedVolume(Protocol):
    """What pruning needs of a captured volume."""

    @property
    def change_map(self) -> ChangeMap:
        """Its marks for this session."""
        ...


@dataclass(slots=True)
class PruneCounts:
    """What pruning did to the maps of a session since the controller started; times are host time, 0 for never."""

    toggles: int = 0
    toggled_ns: int = 0
    generations_discarded: int = 0
    discarded_ns: int = 0
    track_runs: int = 0
    tracks_discarded: int = 0
    tracks_discarded_ns: int = 0


class Pruner:
    """Both levels for the maps of one session. No I/O but the stores into the maps."""

    def __init__(
        self, backlog: Backlog, stamper: Stamper, settings: CaptureSettings, track_size_bytes: int
    ) -> None:
        self.counts = PruneCounts()
        self._backlog = backlog
        self._stamper = stamper
        self._settings = settings
        self._track_size_bytes = track_size_bytes
        self._entered_at_toggle_bytes = 0
        self._run: DiscardRun | None = None
        self._looked_ns = 0
        self._ran_ns = 0
        self._dropped_at_run_ns = 0

    def work(
        self, volumes: Mapping[int, MarkedVolume], hardened_ns: int, now_ns: int, remember: Callable[[], None]
    ) -> None:
        """Do what is due, a bounded piece of it; called with every tick while the session is streaming.

        Args:
            volumes: those of the session, by number.
            hardened_ns: J as the mover has acknowledged it, but not past C.
            remember: persists the time of the last hardened record; called before marks are cleared.
        """
        maps = {number: volume.change_map for number, volume in volumes.items()}
        self._release(maps, hardened_ns, now_ns, remember)
        self._toggle(maps, now_ns)
        if self._run is None and self._is_discard_due(maps, now_ns):
            self._run = DiscardRun(maps, self._backlog)
            self._ran_ns = now_ns
            self._dropped_at_run_ns = self._backlog.dropped_through_ns
        if self._run is not None and self._run.step(maps, hardened_ns, remember):
            self.counts.track_runs += 1
            self.counts.tracks_discarded += self._run.discarded_count
            self.counts.tracks_discarded_ns = now_ns
            self._run = None

    # Level 1

    def _release(
        self, maps: dict[int, ChangeMap], hardened_ns: int, now_ns: int, remember: Callable[[], None]
    ) -> None:
        due = [m for m in maps.values() if m.toggle_ns is not None and m.toggle_ns <= hardened_ns]
        if due:
            remember()
            for change_map in due:
                self.counts.generations_discarded += change_map.release(hardened_ns)
            self.counts.discarded_ns = now_ns

    def _toggle(self, maps: dict[int, ChangeMap], now_ns: int) -> None:
        captured_bytes = self._backlog.entered_bytes - self._entered_at_toggle_bytes
        if (
            now_ns - self.counts.toggled_ns >= self._settings.prune_interval_ns
            or captured_bytes >= self._settings.prune_tracks_max * self._track_size_bytes
        ):
            self.counts.toggled_ns = now_ns
            self._entered_at_toggle_bytes = self._backlog.entered_bytes
            toggled = [change_map.toggle(self._stamper.promise()) for change_map in maps.values()]
            self.counts.toggles += any(toggled)

    # Level 2

    def _is_discard_due(self, maps: dict[int, ChangeMap], now_ns: int) -> bool:
        """Whether a generation waits that has something to give, and a threshold is passed."""
        settings = self._settings
        waiting_ns = [m.toggle_ns for m in maps.values() if m.toggle_ns is not None]
        since_ns = max(min(waiting_ns, default=now_ns), self._ran_ns, self._looked_ns)
        if now_ns - since_ns < min(DISCARD_PAUSE_NS, settings.discard_interval_ns):
            return False
        if self._backlog.dropped_through_ns == self._dropped_at_run_ns:
            return False  # nothing has become hardened since the last run
        self._looked_ns = now_ns
        if now_ns - max(min(waiting_ns), self._ran_ns) >= settings.discard_interval_ns:
            return True
        return (
            sum(m.marked_count for m in maps.values() if m.toggle_ns is not None)
            > settings.discard_tracks_max
        )


class DiscardRun:
    """One run of level 2: find what the monitored generations still need, then clear the rest of them.

    Attributes:
        discarded_count: marks cleared so far.
    """

    def __init__(self, maps: Mapping[int, ChangeMap], backlog: Backlog) -> None:
        self.discarded_count = 0
        self._toggles_ns = {n: m.toggle_ns for n, m in maps.items() if m.toggle_ns is not None}
        self._through_ns = max(self._toggles_ns.values(), default=0)
        self._needed = {n: np.zeros(maps[n].track_count, np.bool_) for n in self._toggles_ns}
        # Newest first: taken from the end, so that the run keeps nothing alive that it has looked at.
        self._entries = list(backlog)[::-1]
        self._records: RecordArray = np.empty(0, RECORD_DTYPE)
        self._left_through_ns = backlog.dropped_through_ns
        self._to_clear: list[tuple[int, int, int]] | None = None

    def step(self, maps: Mapping[int, ChangeMap], hardened_ns: int, remember: Callable[[], None]) -> bool:
        """Do the next piece; returns whether the run is over. Arguments as `Pruner.work`."""
        for number, toggle_ns in list(self._toggles_ns.items()):
            change_map = maps.get(number)
            if change_map is None or change_map.frozen or change_map.toggle_ns != toggle_ns:
                del self._toggles_ns[number]
                del self._needed[number]
        if not self._toggles_ns:
            return True
        if self._to_clear is None:
            self._look()
            if len(self._records) or self._entries or hardened_ns < self._left_through_ns:
                return False  # what has left the backlog before the run is proven only then
            remember()
            self._to_clear = [
                (number, at, min(at + TRACKS_CLEARED_PER_STEP_MAX, stop))
                for number in self._toggles_ns
                for start, stop in maps[number].marked_runs()
                for at in range(start, stop, TRACKS_CLEARED_PER_STEP_MAX)
            ]
        self._clear(maps)
        return not self._to_clear

    def _look(self) -> None:
        """Take the next records of the backlog, up to the toggle, as needed."""
        if not len(self._records):
            entries = self._entries[-ENTRIES_PER_STEP_MAX:][::-1]
            del self._entries[-ENTRIES_PER_STEP_MAX:]
            packed = b"".join([entry.packed_records for entry in entries])
            records: RecordArray = np.frombuffer(packed, RECORD_DTYPE)
            self._records = records[records["time_ns"] <= self._through_ns]
            if len(self._records) < len(records):
                self._entries.clear()  # the rest is later still
        totals = np.cumsum(self._records["track_count"], dtype=np.int64)
        count = max(1, int(np.searchsorted(totals, TRACKS_NEEDED_PER_STEP_MAX, side="right")))
        records, self._records = self._records[:count], self._records[count:]
        for number, needed in self._needed.items():
            _set_runs(needed, records[records["volume"] == number])

    def _clear(self, maps: Mapping[int, ChangeMap]) -> None:
        assert self._to_clear is not None
        room_tracks = TRACKS_CLEARED_PER_STEP_MAX
        while self._to_clear and room_tracks > 0:
            number, start, stop = self._to_clear.pop()
            if number in self._toggles_ns:
                self.discarded_count += maps[number].discard(self._needed[number], start, stop)
                room_tracks -= stop - start


def _set_runs(flags: NDArray[np.bool_], records: RecordArray) -> None:
    """Set the flags of all tracks of `records`; a volume that left may have come back smaller."""
    records = records[records["track"] < len(flags)]
    starts = records["track"].astype(np.int64)
    counts = np.minimum(records["track_count"].astype(np.int64), len(flags) - starts)
    few = counts <= _RUN_TRACKS_FEW
    starts_few, counts_few = starts[few], counts[few]
    before = np.cumsum(counts_few) - counts_few
    flags[np.repeat(starts_few - before, counts_few) + np.arange(counts_few.sum())] = True
    for start, count in zip(starts[~few].tolist(), counts[~few].tolist(), strict=True):
        flags[start : start + count] = True
