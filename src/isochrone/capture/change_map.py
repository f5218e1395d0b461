"""Change maps: which tracks of a volume may differ at the secondary (S3, design section 4).

A mark is set before a write touches the volume and cleared only when everything written before some instant is
hardened at the secondary. Clearing single marks exactly would need the time of the last write of every track; two
generations do it without:

    RECORDING (active) --toggle at T--> TOGGLED (active + monitored) --J >= T--> RECORDING

New marks carry the active bit. `toggle` turns the active generation into the monitored one; once the hardened time J has
reached the toggle time, everything in the monitored generation is at the secondary and its bit is cleared everywhere. A
track written again meanwhile carries the new active bit too and stays marked. There are two bits only, so a map is never
toggled twice without a release; while a generation waits for its release, `discard` clears single marks of it (see
pruning). While images are copied the map is frozen: no toggle, release or discard (P3.4); `thaw` then turns *all* marks
into the monitored generation at the time of the last image.

The map is one byte a track in a shared memory mapping of a file in the pool's folder: a store is one instruction, no
system call, and survives a kill of the process. It does not survive a power loss. So the header says in which boot of the
machine the map is in use, or that it was closed and made durable; a map that another boot had in use marks everything,
and only then takes the new boot's name: whatever dies on the way, marks that are no superset are never believed. (What the
pool knows of its own last life is no substitute: it may have been closed well, minutes before the power went.)

A mark is either certain (a write set it: the track differs, or did) or only suspected: nobody knows, so it may differ. What
is only suspected carries the suspicion bit alone; a write adds a generation's bit and so makes it certain. Such tracks are
compared with the secondary's before they are sent. Suspicion is cleared by `thaw` alone, when every
marked track has been copied or found equal.

One byte in memory for each 4,096 tracks says whether any of them is marked, so that clearing and counting skip clean
stretches.

File: one header page (see docs/formats.md), then `track_count` bytes.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from isochrone.capture.write_note import NOTE_OFFSET, NOTE_SIZE_BYTES, WriteNote
from isochrone.model.errors import DamagedError
from isochrone.store.disk import Disk

MAGIC: Final = b"ISOCHMAP"
VERSION: Final = 1
HEADER_SIZE_BYTES: Final = 4096
_HEADER: Final = struct.Struct("<8sIIQ")
_CLOSED: Final = (1 << 64) - 1
"""In the header, in the place of the boot: closed, and durable as it is."""

GENERATION_A: Final = 1
GENERATION_B: Final = 2
SUSPICION: Final = 4
"""Nothing is known of the track; alone, without a generation's bit, it is a mark that nobody has written."""
REGION_SHIFT: Final = 12
REGION_TRACKS: Final = 1 << REGION_SHIFT


CHANGE_MAP_PREFIX: Final = "changes-"


def change_map_name(session_id: str, volume_number: int) -> str:
    """Return the name of a map's file in the pool's folder."""
    return f"{CHANGE_MAP_PREFIX}{session_id}-{volume_number}"


class Suspects(Protocol):
    """Who knows which tracks can have been marked when marks were lost: an activity map."""

    def suspected(self) -> NDArray[np.bool_]:
        """Return those tracks, shape (track_count,)."""
        ...


class ChangeMap:
    """Marks of one volume for one session. See the module's essay.

    Attributes:
        frozen: no generation is toggled or released while set.
        toggle_ns: time of the last toggle while a monitored generation exists, else None.
        was_created: the file did not exist when the map was opened.
        was_suspected: since it was opened, or by that, tracks were marked that nobody is known to have written.
        note: when the application wrote last.
    """

    def __init__(
        self,
        disk: Disk,
        name: str,
        volume_number: int,
        track_count: int,
        *,
        is_known: bool = False,
        suspects: Suspects | None = None,
    ) -> None:
        """Open the map, creating it empty when missing. Raises DamagedError when the file is another volume's.

        With `is_known` a session's document names the map already: one that is missing is not believed. Marks that are not
        believed are replaced by the tracks of `suspects`, all if there are none.
        A volume in a session is never resized, but the map follows `track_count`: marks of tracks that stay are kept.
        """
        self._disk = disk
        self._name = name
        self._volume_number = volume_number
        self._file = disk.open(name, create=True)
        self._active = GENERATION_A
        self.frozen = True
        self.toggle_ns: int | None = None
        self._is_whole = False
        boot = xxh3_64_intdigest(disk.boot_id.encode()) >> 1 | 1
        last_boot = self._last_boot(volume_number)
        self.was_created = last_boot is None
        self.was_suspected = False
        self._map(track_count)
        if last_boot not in (None, boot, _CLOSED) or (last_boot is None and is_known):
            if suspects is not None:
                self._marks[:] = 0  # what a power loss has left of them says nothing
            self.distrust(suspects)
        if last_boot != boot:
            self._file.pwrite(_HEADER.pack(MAGIC, VERSION, volume_number, boot), 0)
        if last_boot == _CLOSED:
            self._file.datasync()  # from now on a power loss must find it in use

    def _last_boot(self, volume_number: int) -> int | None:
        """Return the boot in the header; None in a new file, and in one whose bytes a power loss took."""
        is_new = self._file.size_bytes() < HEADER_SIZE_BYTES
        header = bytes(_HEADER.size) if is_new else self._file.pread(_HEADER.size, 0)
        if not any(header):
            self._file.truncate(0)
            self._file.allocate(HEADER_SIZE_BYTES)
            return None
        magic, version, number, last_boot = _HEADER.unpack(header)
        if (magic, version, number) != (MAGIC, VERSION, volume_number):
            raise DamagedError(
                f"change map {self._name}: the header does not name volume {volume_number} in format {VERSION}; "
                "remove the file and restart: the session then copies the whole volume again",
                file=self._name,
            )
        return int(last_boot)

    def _map(self, track_count: int) -> None:
        size_bytes = HEADER_SIZE_BYTES + track_count
        if self._file.size_bytes() < size_bytes:
            self._file.allocate(size_bytes)
        elif self._file.size_bytes() > size_bytes:
            self._file.truncate(size_bytes)
        self.track_count = track_count
        mapped = self._file.map_shared()
        self.note = WriteNote(mapped[NOTE_OFFSET : NOTE_OFFSET + NOTE_SIZE_BYTES])
        self._view = mapped[HEADER_SIZE_BYTES:]
        self._marks: NDArray[np.uint8] = np.frombuffer(self._view, dtype=np.uint8)
        self._regions = bytearray((track_count + REGION_TRACKS - 1) >> REGION_SHIFT)
        self._rescan(0, track_count)

    # Marking

    def mark(self, track: int, track_count: int) -> None:
        """Mark a run of tracks in the active generation. Called before the write touches the volume."""
        if track_count == 1:
            self._view[track] |= self._active
            self._regions[track >> REGION_SHIFT] = 1
            return
        self._marks[track : track + track_count] |= self._active
        first, last = track >> REGION_SHIFT, (track + track_count - 1) >> REGION_SHIFT
        self._regions[first : last + 1] = b"\x01" * (last - first + 1)

    def mark_where(self, tracks: NDArray[np.bool_]) -> None:
        """Mark every track where `tracks`, shape (track_count,), is true."""
        self._marks[tracks] |= self._active
        self._rescan(0, self.track_count)

    def suspect_where(self, tracks: NDArray[np.bool_]) -> None:
        """Mark every track where `tracks`, shape (track_count,), is true as one that may differ; nobody knows."""
        self._marks[tracks] |= SUSPICION
        self._rescan(0, self.track_count)
        self.was_suspected = True

    def suspect_all(self) -> None:
        """Mark every track: nothing is known about the secondary. What a write has marked stays certain."""
        self._marks |= SUSPICION
        self._rescan(0, self.track_count)
        self.was_suspected = True

    def distrust(self, suspects: Suspects | None) -> None:
        """Marks may be missing: suspect the tracks of `suspects` too, all if there are none."""
        if suspects is None:
            self.suspect_all()
        else:
            self.suspect_where(suspects.suspected())

    # Pruning

    def freeze(self) -> None:
        """Begin a copy or a suspension: keep every mark until `thaw`."""
        self.frozen = True
        self.toggle_ns = None

    def thaw(self, copied_through_ns: int, *, found_equal: bool = False) -> None:
        """Every marked track's image has been captured with time <= copied_through_ns: prune again from there on.

        With `found_equal`, some tracks were not sent because the secondary has received the same; that may not be hardened
        yet, and is in no record that waits here. So this generation is released as a whole, or not at all.

        All marks become the monitored generation of a toggle at `copied_through_ns`. A write captured after an image
        has a later time than its mark's toggle only if it is marked anew, so the caller thaws before it takes another
        write.
        """
        monitored = self._active
        for start, stop in self.marked_runs():
            part = self._marks[start:stop]
            part[part != 0] = monitored
        self._active = GENERATION_A + GENERATION_B - monitored
        self.toggle_ns = copied_through_ns
        self._is_whole = found_equal
        self.frozen = False

    def toggle(self, now_ns: int) -> bool:
        """Make the active generation the monitored one as of `now_ns`, a promise of the stamper.

        Returns False, and does nothing, while frozen or while the last monitored generation is not released.
        """
        if self.frozen or self.toggle_ns is not None:
            return False
        self._active = GENERATION_A + GENERATION_B - self._active
        self.toggle_ns = now_ns
        self._is_whole = False
        return True

    def release(self, hardened_ns: int) -> bool:
        """Clear the monitored generation if everything before its toggle is hardened. Returns whether it was."""
        if self.frozen or self.toggle_ns is None or hardened_ns < self.toggle_ns:
            return False
        for start, stop in self.marked_runs():
            self._marks[start:stop] &= self._active | SUSPICION
            self._rescan(start, stop)
        self.toggle_ns = None
        return True

    def discard(self, needed: NDArray[np.bool_], start: int, stop: int) -> int:
        """Clear the monitored generation's marks of the tracks [start, stop) that are not `needed` (level 2, see pruning).

        Args:
            needed: shape (track_count,); true for every track with a record up to the toggle that is not hardened.
            start, stop: region boundaries or the map's end.

        Returns how many tracks are no longer marked; none are touched while frozen, without a monitored generation, or in
        one that is released as a whole.
        """
        if self.frozen or self.toggle_ns is None or self._is_whole:
            return 0
        monitored = GENERATION_A + GENERATION_B - self._active
        part = self._marks[start:stop]
        before = int(np.count_nonzero(part))
        part &= needed[start:stop].view(np.uint8) * np.uint8(monitored) | np.uint8(0xFF ^ monitored)
        self._rescan(start, stop)
        return before - int(np.count_nonzero(part))

    # Looking

    def marked(self) -> NDArray[np.bool_]:
        """Return which tracks are marked, shape (track_count,)."""
        return np.not_equal(self._marks, 0)

    def suspected(self) -> NDArray[np.bool_]:
        """Return which of the marked tracks are only suspected, shape (track_count,)."""
        return np.equal(self._marks, SUSPICION)

    @property
    def marked_count(self) -> int:
        """Number of marked tracks."""
        return sum(int(np.count_nonzero(self._marks[start:stop])) for start, stop in self.marked_runs())

    def marked_runs(self) -> list[tuple[int, int]]:
        """Return runs of regions with marks, as [start, stop) track numbers."""
        flags = np.frombuffer(bytes(self._regions) + b"\x00", dtype=np.uint8)
        edges = np.flatnonzero(np.diff(flags, prepend=np.uint8(0)))
        return [
            (int(first) << REGION_SHIFT, min(int(last) << REGION_SHIFT, self.track_count))
            for first, last in zip(edges[::2], edges[1::2], strict=True)
        ]

    def blocks_near_marks(self, blocks: NDArray[np.int64], block_tracks: int) -> NDArray[np.bool_]:
        """Return which of `blocks` (numbers of runs of `block_tracks` tracks) lie in a region with marks; shape as `blocks`.

        `block_tracks` divides REGION_TRACKS.
        """
        near: NDArray[np.bool_] = np.frombuffer(self._regions, np.bool_)[
            blocks * block_tracks >> REGION_SHIFT
        ]
        return near

    def blocks_marked(self, blocks: NDArray[np.int64], block_tracks: int) -> NDArray[np.bool_]:
        """Return which of `blocks` have a marked track; shape as `blocks`."""
        whole_count = self.track_count // block_tracks
        whole = self._marks[: whole_count * block_tracks].reshape(-1, block_tracks)
        is_whole = blocks < whole_count
        result = np.full(len(blocks), bool(self._marks[whole_count * block_tracks :].any()))
        result[is_whole] = whole[blocks[is_whole]].any(axis=1)
        return result

    def _rescan(self, start: int, stop: int) -> None:
        """Recompute the summary of the tracks [start, stop); both ends are region boundaries or the map's end."""
        if start == stop:
            return
        summary = np.maximum.reduceat(self._marks[start:stop], np.arange(0, stop - start, REGION_TRACKS))
        first = start >> REGION_SHIFT
        self._regions[first : first + len(summary)] = np.minimum(summary, 1).tobytes()

    # Life

    def close(self) -> None:
        """Close the file; marks stay on disk as after a kill."""
        self._unmap()
        self._file.close()

    def close_durably(self) -> None:
        """Close the file at a clean stop: the marks are believed whatever happens to the machine. Raises OSError."""
        self._file.datasync()
        self._file.pwrite(_HEADER.pack(MAGIC, VERSION, self._volume_number, _CLOSED), 0)
        self._file.datasync()
        self.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self._disk.remove(self._name)

    def _unmap(self) -> None:
        self._marks = np.empty(0, dtype=np.uint8)
        self._view.release()
        self.note.release()
