"""Activity maps: which regions of a volume may have to be copied after a power loss (S3, marks under the policy `durable`).

Change maps live in memory, and a power loss takes them. An activity map says beforehand which *regions* (a few MiB each)
can hold marks, in a file that is made durable before the first write of a region touches the volume:

    inactive --asked for: byte written, fdatasync--> active --nothing to remember, and not lately written--> inactive

So at every moment each track that is marked, or was written since the pool was last made durable, lies in a region whose
byte is on disk. After a power loss the tracks of these regions are suspected, and no others. A region is given up lazily:

a. no mark remains in it: all of it is hardened at the secondary;
b. the pool was made durable after the last write in it. Otherwise the power loss could take an acknowledged write here
   that the secondary has, with nothing left to say that the two differ;
c. more regions are active than are to be kept, and it has not been written for a while. Those written last stay, so that
   random writes do not pay for a sync again and again. Oldest leave first.

Giving up is not made durable: when it is lost, the region is only suspected in vain.

A sync costs a thousand times a write, so nobody waits for one alone: `ask` collects what is missing, `activate` makes all
of it durable in one step that the shell drives beside other work. `enter` is the guard at the write itself. It makes
the region durable in place if it was not asked for: correctness does not hang on the callers' care.

A file whose header is missing or another's counts as active everywhere, and so does a new one: nothing is known yet.
The order in which one is begun (contents, sync, header) and ended (header, sync, removal of the name) keeps a
stale file from being believed after a power loss.

File: one header page (see docs/formats.md), then one byte a region.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from isochrone.capture.change_map import ChangeMap
from isochrone.store.disk import Disk, File

MAGIC: Final = b"ISOCACTV"
VERSION: Final = 1
HEADER_SIZE_BYTES: Final = 4096
_HEADER: Final = struct.Struct("<8sIIIIQ")
_CHECKSUM: Final = struct.Struct("<Q")
ACTIVITY_MAP_PREFIX: Final = "activity-"
MARKED_LOOKED_AT_MAX: Final = 4096
"""Regions with marks near them that one trim looks at more closely."""

Steps = Generator[Callable[[], None], None, None]
"""Blocking calls, to be made one after the other, by the driver, in any thread; it throws in what they raise."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How much of a volume was suspected when its marks could not be believed at the start, in regions."""

    suspected_count: int
    region_count: int


def activity_map_name(session_id: str, volume_number: int) -> str:
    """Return the name of a map's file in the pool's folder."""
    return f"{ACTIVITY_MAP_PREFIX}{session_id}-{volume_number}"


class ActivityMap:
    """Regions of one volume for one session. See the module's essay.

    Args:
        track_count: of the volume.
        region_tracks: tracks in a region, a power of two.
        make_durable: `File.datasync`, and whatever is to be done when it fails.

    Attributes:
        region_count: regions of the volume.
        active_count: those of them that are active, durably.
        sync_count: how often `enter` or `activate` has made regions durable.
    """

    def __init__(
        self,
        disk: Disk,
        name: str,
        volume_number: int,
        track_count: int,
        region_tracks: int,
        make_durable: Callable[[File], None],
        *,
        is_new: bool = False,
    ) -> None:
        """Open the map, making one that is active everywhere when there is none, or `is_new`.

        Raises OSError, PoolReadOnlyError.
        """
        assert region_tracks & (region_tracks - 1) == 0
        self._disk = disk
        self._name = name
        self._make_durable = make_durable
        self._shift = region_tracks.bit_length() - 1
        self.track_count = track_count
        self.region_tracks = region_tracks
        self.region_count = (track_count + region_tracks - 1) >> self._shift
        self.sync_count = 0
        self._under_way: list[list[int]] = []
        self._is_closed = False
        self._file = disk.open(name, create=True)
        packed = _HEADER.pack(MAGIC, VERSION, volume_number, region_tracks, 0, track_count)
        self._header = packed + _CHECKSUM.pack(xxh3_64_intdigest(packed))
        self._active = bytearray(b"\x01" * self.region_count)
        if not is_new and self._is_valid():
            kept = self._file.pread(self.region_count, HEADER_SIZE_BYTES)
            self._active = bytearray(np.not_equal(np.frombuffer(kept, np.uint8), 0).tobytes())
            # What a failed sync left in the cache only is written once more.
            self._file.pwrite(self._active, HEADER_SIZE_BYTES)
            self._make_durable(self._file)
        else:
            self._begin()
        self.active_count = self._active.count(1)
        self._wanted: set[int] = set()
        self._epoch = 1
        self._epoch_ends: deque[tuple[int, int]] = deque()
        self._idle_epoch = 0
        self._trim_epoch = -1
        self._look_from = 0
        self._written: NDArray[np.uint32] = np.zeros(self.region_count, np.uint32)
        self._written_view = self._written.data

    def _is_valid(self) -> bool:
        size_bytes = HEADER_SIZE_BYTES + self.region_count
        return (
            self._file.size_bytes() >= size_bytes and self._file.pread(len(self._header), 0) == self._header
        )

    def _begin(self) -> None:
        """Make every region active; only then is the file one to be believed."""
        self._file.allocate(HEADER_SIZE_BYTES + self.region_count)
        self._file.pwrite(bytes(len(self._header)), 0)
        self._file.pwrite(self._active, HEADER_SIZE_BYTES)
        self._make_durable(self._file)
        self._file.pwrite(self._header, 0)

    # Before writes

    def ask(self, track: int, track_count: int) -> bool:
        """Return whether a write to this run may be made at once; what is missing is activated by the next `activate`."""
        first, last = track >> self._shift, (track + track_count - 1) >> self._shift
        if first == last and self._active[first]:
            return True
        if self._active.find(0, first, last + 1) < 0:
            return True
        self._wanted.update(region for region in range(first, last + 1) if not self._active[region])
        return False

    def enter(self, track: int, track_count: int) -> None:
        """A write to this run comes next: it is durably in active regions once this returns.

        Raises:
            OSError, PoolReadOnlyError: that could not be made so; the write must not be made.
        """
        first, last = track >> self._shift, (track + track_count - 1) >> self._shift
        if first == last:
            if not self._active[first]:
                self._activate_now(first, last)
            self._written_view[first] = self._epoch
            return
        if self._active.find(0, first, last + 1) >= 0:
            self._activate_now(first, last)
        self._written[first : last + 1] = self._epoch

    def activate_all(self) -> None:
        """Marks are about to be set anywhere: make every region active, now. Raises as `enter` does."""
        if self.active_count < self.region_count:
            self._activate_now(0, self.region_count - 1)

    def activate(self) -> Steps:
        """Yield a blocking call after which all regions asked for before the first are active."""
        regions = sorted(self._wanted)
        self._wanted.clear()
        if not regions or self._is_closed:
            return
        self._store(regions, 1)
        self._under_way.append(regions)
        try:
            yield partial(self._make_durable, self._file)
        finally:
            self._under_way.remove(regions)
            self._close_when_idle()
        self._activated(regions)

    @property
    def is_asked(self) -> bool:
        """Whether `activate` has something to do."""
        return bool(self._wanted)

    def _activate_now(self, first: int, last: int) -> None:
        regions = [region for region in range(first, last + 1) if not self._active[region]]
        self._store(regions, 1)
        self._make_durable(self._file)
        self._activated(regions)

    def _activated(self, regions: Iterable[int]) -> None:
        self.sync_count += 1
        for region in regions:
            self.active_count += not self._active[region]
            self._active[region] = 1
            self._written_view[region] = self._epoch

    def _store(self, regions: list[int], value: int) -> None:
        """Write `value` for `regions`, ascending, into the file."""
        numbers = np.array(regions, np.int64)
        ends = np.flatnonzero(np.diff(numbers, append=-1) != 1)
        start = 0
        for end in (ends + 1).tolist():
            count = end - start
            self._file.pwrite(bytes([value]) * count, HEADER_SIZE_BYTES + int(numbers[start]))
            start = end

    # Giving up

    def begin_trim(self, now_ns: int, idle_ns: int) -> None:
        """A sync of the pool begins now: after it, what was written before and not in the last `idle_ns` may be given up."""
        self._trim_epoch = self._epoch
        self._epoch_ends.append((self._epoch, now_ns))
        self._epoch += 1
        while self._epoch_ends and self._epoch_ends[0][1] <= now_ns - idle_ns:
            self._idle_epoch = self._epoch_ends.popleft()[0]

    def end_trim(self, change_map: ChangeMap, regions_max: int) -> int:
        """That sync has succeeded: give up the oldest regions without marks until `regions_max` are active.

        Returns how many were given up. Raises OSError.
        """
        excess = self.active_count - regions_max
        through_epoch = min(self._trim_epoch, self._idle_epoch)
        if excess <= 0 or through_epoch < 0:
            return 0
        flags = np.frombuffer(self._active, np.uint8)
        idle = np.flatnonzero((flags != 0) & (self._written <= through_epoch))
        del flags
        # What a sync under way makes active when it ends must not be given up before.
        for regions in self._under_way:
            idle = np.setdiff1d(idle, regions)
        marked_near = change_map.blocks_near_marks(idle, self.region_tracks)
        near = np.roll(idle[marked_near], -self._look_from)[:MARKED_LOOKED_AT_MAX]
        self._look_from += len(near)
        unmarked = near[~change_map.blocks_marked(near, self.region_tracks)]
        free = np.concatenate((idle[~marked_near], unmarked))
        oldest = np.sort(free[np.argsort(self._written[free], kind="stable")[:excess]])
        given_up = oldest.tolist()
        if given_up:
            for region in given_up:
                self._active[region] = 0
            self.active_count -= len(given_up)
            self._store(given_up, 0)
        return len(given_up)

    # Looking, life

    def suspected(self) -> NDArray[np.bool_]:
        """Return the tracks of active regions, shape (track_count,)."""
        regions = np.frombuffer(bytes(self._active), np.bool_)
        return np.repeat(regions, self.region_tracks)[: self.track_count]

    def close(self) -> None:
        """Close the file, once no sync of it is under way in a thread; what it says stays true until the next write."""
        self._is_closed = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        # A volume may leave its session at any moment. Were the file closed under a sync, its failure would be taken for
        # the device's, and the whole pool would stop taking writes.
        if self._is_closed and not self._under_way:
            self._file.close()

    def remove(self) -> None:
        """Make sure that the file is never believed again, close and delete it. Raises OSError, PoolReadOnlyError."""
        _disown(self._file, self._make_durable)
        self.close()
        self._disk.remove(self._name)


def remove_activity_map(disk: Disk, name: str, make_durable: Callable[[File], None]) -> None:
    """Remove a file that no session names any more, as `ActivityMap.remove` does."""
    file = disk.open(name)
    _disown(file, make_durable)
    file.close()
    disk.remove(name)


def _disown(file: File, make_durable: Callable[[File], None]) -> None:
    file.pwrite(bytes(HEADER_SIZE_BYTES), 0)
    make_durable(file)
