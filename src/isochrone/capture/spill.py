"""The spill: captured payload beyond memory, in files of a set size (the side file's second part).

What is here only keeps places and makes calls; which entries go, and what memory is charged, the side file decides
(side_file.py). Nothing blocks: the deciding side queues writes and reads and asks for the next *job*; its `run` makes the
blocking calls, in a thread of the shell or at the simulator's pace, and `finished` takes the outcome in. One job is
under way at a time, so a handle is never used by two threads, and reads and writes take turns.

    offer(slot) --write job--> written --want(slot)--> read job --> payload back
                    |                                      |
                    +-- EIO, ENOSPC: the payload is        +-- EIO, damage: the payload is lost,
                        still in memory; rest a while          the sessions that hold it suspend

Space is taken in segments, files that are reserved whole when they are begun, so that a full file system is met before
anything counts on it, and written from front to back in large pieces. A segment is removed when the last of its records is
no longer held: sessions that are behind by different amounts free different segments. Each record has a header with its
number and a checksum: a device that brings back other bytes is noticed, not believed.

Nothing in the files outlives the process: an incarnation ends with it, and the change maps remember. So nothing is ever
made durable, and files found at the start are removed. The layout is in docs/formats.md.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

from xxhash import xxh3_64

from isochrone.model.errors import DamagedError
from isochrone.store.disk import Disk, File

SPILL_PREFIX: Final = "spill-"
MAGIC: Final = b"ISPL"
RECORD_HEADER: Final = struct.Struct("<4sIQQQ")
"""Magic, reserved (0), number of the record, bytes of payload, xxh3_64 of the payload."""

JOB_BYTES_MAX: Final = 4 << 20
"""Bytes that one job reads or writes, but for one larger record."""
WRITE_QUEUE_BYTES_MAX: Final = 2 * JOB_BYTES_MAX
"""Payload that waits to be written; more is not taken until some of it is."""
REST_NS: Final = 5_000_000_000
"""After a write has failed the spill takes nothing for this long: space may come back."""


def remove_spill_files(disk: Disk) -> None:
    """Remove what an earlier life left in the folder. Raises OSError."""
    for name in disk.names():
        if name.startswith(SPILL_PREFIX):
            disk.remove(name)


class Segment:
    """One file of the spill.

    Attributes:
        end: where the next record goes.
        held_count: records that are still held.
        is_closed: no record is added any more.
    """

    __slots__ = ("end", "file", "held_count", "is_closed", "name", "size_bytes")

    def __init__(self, name: str, size_bytes: int) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.file: File | None = None
        self.end = 0
        self.held_count = 0
        self.is_closed = False


class Slot:
    """The place of one record in the spill.

    Attributes:
        owner: whose payload it is; the spill does not look at it.
        is_written: the payload can be read back.
        is_freed: nobody holds it any more.
    """

    __slots__ = (
        "checksum",
        "is_freed",
        "is_written",
        "length",
        "number",
        "offset",
        "owner",
        "parts",
        "segment",
    )

    def __init__(
        self, owner: object, number: int, segment: Segment, offset: int, parts: Sequence[bytes], length: int
    ) -> None:
        self.owner = owner
        self.number = number
        self.segment = segment
        self.offset = offset
        self.length = length
        self.parts = parts
        self.checksum = 0
        self.is_written = False
        self.is_freed = False


class SpillJob:
    """Blocking calls for a thread. Attributes: `error`: what the disk had against it, None when all went well."""

    def __init__(self) -> None:
        self.error: OSError | DamagedError | None = None

    def run(self) -> None:
        """Make the calls. An error of the disk is kept in `error`."""
        try:
            self._run()
        except (OSError, DamagedError) as error:
            self.error = error

    def _run(self) -> None:
        raise NotImplementedError


class WriteJob(SpillJob):
    """Write records that lie one behind the other in one segment; make the segment if it is new."""

    def __init__(self, disk: Disk, slots: list[Slot]) -> None:
        super().__init__()
        self.slots = slots
        self._disk = disk

    def _run(self) -> None:
        segment = self.slots[0].segment
        if segment.file is None:
            segment.file = self._disk.open(segment.name, create=True)
            segment.file.allocate(segment.size_bytes)
        buffers: list[bytes] = []
        for slot in self.slots:
            digest = xxh3_64()
            for part in slot.parts:
                digest.update(part)
            slot.checksum = digest.intdigest()
            buffers.append(RECORD_HEADER.pack(MAGIC, 0, slot.number, slot.length, slot.checksum))
            buffers += slot.parts
        segment.file.pwritev(buffers, self.slots[0].offset)


class ReadJob(SpillJob):
    """Read records back. Attributes: `payloads`, one a slot, as far as it came."""

    def __init__(self, slots: list[Slot]) -> None:
        super().__init__()
        self.slots = slots
        self.payloads: list[bytes] = []

    def _run(self) -> None:
        for slot in self.slots:
            self.payloads.append(_read(slot))


def _read(slot: Slot) -> bytes:
    file = slot.segment.file
    assert file is not None
    header = file.pread(RECORD_HEADER.size, slot.offset)
    payload = file.pread(slot.length, slot.offset + RECORD_HEADER.size)
    expected = RECORD_HEADER.pack(MAGIC, 0, slot.number, slot.length, slot.checksum)
    if header != expected or xxh3_64(payload).intdigest() != slot.checksum:
        raise DamagedError(
            f"{slot.segment.name}: the record at byte {slot.offset} is not what was written; replace the device",
            file=slot.segment.name,
            offset=slot.offset,
        )
    return payload


class RemoveJob(SpillJob):
    """Close and remove segments that nobody needs."""

    def __init__(self, disk: Disk, segments: list[Segment]) -> None:
        super().__init__()
        self.segments = segments
        self._disk = disk

    def _run(self) -> None:
        for segment in self.segments:
            try:
                if segment.file is not None:
                    segment.file.close()
                    segment.file = None
                    self._disk.remove(segment.name)
            except OSError as error:  # the others go all the same
                self.error = error


class Spill:
    """Places, queues and the one job under way. See the module's essay. Making one removes an earlier life's files.

    Args:
        disk: the folder of the segments.
        bytes_max: space that all segments may take together.
        segment_bytes: size of a segment; a larger record has one of its own.

    Attributes:
        reserved_bytes: space that segments take now, at most `bytes_max`.
        queued_bytes: payload offered and not yet written.
        trouble: why the last write failed, "" when it did not.
    """

    def __init__(self, disk: Disk, bytes_max: int, segment_bytes: int) -> None:
        self.bytes_max = bytes_max
        self.reserved_bytes = 0
        self.queued_bytes = 0
        self.trouble = ""
        remove_spill_files(disk)
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._numbers = 0
        self._segment_numbers = 0
        self._segments: set[Segment] = set()
        self._current: Segment | None = None
        self._writes: deque[Slot] = deque()
        self._reads: deque[Slot] = deque()
        self._removals: list[Segment] = []
        self._job: SpillJob | None = None
        self._wrote_last = False
        self._rests_until_ns = 0

    # Space

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another segment."""
        return self.reserved_bytes + self._segment_bytes > self.bytes_max

    def takes(self, payload_bytes: int, now_ns: int) -> bool:
        """Return whether a record of that payload may be offered now."""
        return (
            now_ns >= self._rests_until_ns
            and self.queued_bytes < WRITE_QUEUE_BYTES_MAX
            and self._fitting(RECORD_HEADER.size + payload_bytes) is not None
        )

    def _fitting(self, size_bytes: int) -> int | None:
        """Return the size of the segment to begin for a record of `size_bytes`: 0 = the current one will do; None = full."""
        current = self._current
        if current is not None and current.end + size_bytes <= current.size_bytes:
            return 0
        wanted = max(self._segment_bytes, size_bytes)
        return wanted if self.reserved_bytes + wanted <= self.bytes_max else None

    def offer(self, owner: object, parts: Sequence[bytes]) -> Slot:
        """Give the payload `parts` a place and queue its writing; `takes` has just said that there is room."""
        length = sum(map(len, parts))
        size_bytes = RECORD_HEADER.size + length
        begin = self._fitting(size_bytes)
        assert begin is not None
        if begin:
            self._close_current()
            self._segment_numbers += 1
            self._current = Segment(f"{SPILL_PREFIX}{self._segment_numbers:08x}", begin)
            self._segments.add(self._current)
            self.reserved_bytes += begin
        segment = self._current
        assert segment is not None
        self._numbers += 1
        slot = Slot(owner, self._numbers, segment, segment.end, parts, length)
        segment.end += size_bytes
        segment.held_count += 1
        self._writes.append(slot)
        self.queued_bytes += length
        return slot

    def free(self, slot: Slot) -> None:
        """The payload of `slot` is no longer needed from the spill."""
        slot.is_freed = True
        segment = slot.segment
        segment.held_count -= 1
        if segment.held_count == 0 and not segment.is_closed:
            self._close_current()  # it is the current one: its space comes back when all of it was caught up
        elif segment.held_count == 0:
            self._removals.append(segment)

    def _close_current(self) -> None:
        segment, self._current = self._current, None
        if segment is not None:
            segment.is_closed = True
            if segment.held_count == 0:
                self._removals.append(segment)

    def want(self, slot: Slot) -> None:
        """Queue the reading of a written slot."""
        self._reads.append(slot)

    # Jobs

    def next_job(self) -> SpillJob | None:
        """Return the next job to run, None when there is none or one is under way. `finished` must be told of it."""
        if self._job is None:
            self._job = self._choose_job()
        else:
            return None
        return self._job

    def _choose_job(self) -> SpillJob | None:
        if self._removals:
            removals, self._removals = self._removals, []
            return RemoveJob(self._disk, removals)
        self._skip_freed()
        if self._reads and (self._wrote_last or not self._writes):
            self._wrote_last = False
            return ReadJob(self._next_reads())
        if self._writes:
            self._wrote_last = True
            return WriteJob(self._disk, self._next_writes())
        return None

    def _skip_freed(self) -> None:
        while self._reads and self._reads[0].is_freed:
            self._reads.popleft()
        while self._writes and self._writes[0].is_freed:
            self.queued_bytes -= self._writes.popleft().length

    def _next_reads(self) -> list[Slot]:
        slots: list[Slot] = []
        left_bytes = JOB_BYTES_MAX
        while self._reads and (not slots or self._reads[0].length <= left_bytes):
            slot = self._reads.popleft()
            if not slot.is_freed:
                slots.append(slot)
                left_bytes -= slot.length
        return slots

    def _next_writes(self) -> list[Slot]:
        """Take slots that lie one behind the other in one segment."""
        slots = [self._writes.popleft()]
        left_bytes = JOB_BYTES_MAX - slots[0].length
        while self._writes and self._writes[0].length <= left_bytes:
            last, following = slots[-1], self._writes[0]
            end = last.offset + RECORD_HEADER.size + last.length
            if following.is_freed or following.segment is not last.segment or following.offset != end:
                break
            slots.append(self._writes.popleft())
            left_bytes -= following.length
        return slots

    def finished(self, job: SpillJob, now_ns: int) -> list[Slot]:
        """Take the outcome of `job` in. Returns slots whose writing has failed: their payload is only in memory."""
        assert job is self._job
        self._job = None
        match job:
            case WriteJob():
                return self._written(job, now_ns)
            case RemoveJob():
                self._removed(job)
        return []

    def _written(self, job: WriteJob, now_ns: int) -> list[Slot]:
        self.queued_bytes -= sum(slot.length for slot in job.slots)
        if job.error is None:
            self.trouble = ""
            for slot in job.slots:
                slot.is_written = True
                slot.parts = ()
            return []
        self.trouble = str(job.error)
        self._rests_until_ns = now_ns + REST_NS
        failed = [*job.slots, *self._writes]
        self._writes.clear()
        self.queued_bytes = 0
        self._close_current()
        live = [slot for slot in failed if not slot.is_freed]
        for slot in live:
            self.free(slot)
        return live

    def _removed(self, job: RemoveJob) -> None:
        """Count the space as free, also of what could not be removed: it is at the next start."""
        for segment in job.segments:
            self._segments.discard(segment)
            self.reserved_bytes -= segment.size_bytes

    def close(self) -> None:
        """Remove every segment; no job may be under way. Blocking; raises OSError."""
        segments, self._segments = self._segments, set()
        for segment in segments:
            if segment.file is not None:
                segment.file.close()
                self._disk.remove(segment.name)
