"""The pointer log: every change of the metadata since the last checkpoint, in order.

Situation: mapping entries come one at a time, hundreds of thousands a second, and must reach the file before
the write they belong to is acknowledged. So they are packed and collected in a list; `write` turns all that
is collected into a few records and makes one `pwrite`. After it the records survive the death of the process;
durable they become by `datasync`, which the pool's sync calls.

Two segments are used in turn. A checkpoint takes its snapshot, switches to the other segment (next
*generation*), and when its root is durable the old segment is free. Recovery replays the generation that the
root names and, if a checkpoint was under way, the one after it.

Where does the log end? After the death of the process alone exactly where the *head* says: a word in shared
memory that is stored after each write, so that damage to the last record cannot pass as a torn tail. After a
power loss nothing vouches for what was written since the last sync: the log ends at the last barrier (see
recovery). A barrier also says how far the log itself had been made durable before; a broken record below that
is damage, above it a torn tail. The head repeats that word after each sync. Nothing makes it durable, but
the kernel writes it out within seconds; what arrives was true when it was stored.

Rejected: finding the end by zeroed space (a rewrite of 64 MiB per checkpoint); a barrier as proof for the
records right before it (sectors of one unsynced write may reach the disk in any order).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from isochrone.store.disk import Disk, File
from isochrone.store.head import Head
from isochrone.store.log_records import (
    HEADER,
    REPLAY_WEIGHT,
    REPLAY_WEIGHT_DEFAULT,
    Part,
    RecordType,
    pack_record,
    pack_together,
    record_size_bytes,
)
from isochrone.store.segment import (
    SEGMENT_HEADER_SIZE_BYTES,
    SEGMENT_NAMES,
    SegmentHeader,
    encode_segment_header,
    record_seed,
    segment_name,
)
from isochrone.store.superblock import Superblock

MAP_RECORD_BYTES_MAX: Final = 1 << 20
"""Largest payload of one MAP record; more entries make more records."""
REPLAY_WEIGHT_MAX: Final = 400_000
"""A checkpoint is due when replaying the log would take longer than about two seconds."""


class Log:
    """The log being written.

    Attributes:
        add_map: appends one or more packed MAP entries (MAP_ENTRY); bound method of a list, for the hot path.
        head: tells the next life of the process where the log ends.
        generation: of the current segment.
        next_sequence: of the next record to be written; everything before it has been written.
        content_through: sequence after the last record that is not a barrier.
        barrier_through: all tracks that records before it refer to are durable, as a barrier or a root says.
        durable_through: records before it are durable. `barrier_through` may be ahead of it.
    """

    add_map: Callable[[bytes], None]

    def __init__(self, disk: Disk, superblock: Superblock) -> None:
        self._superblock = superblock
        self._boot_id = disk.boot_id
        self._files: list[File] = [disk.open(name) for name in SEGMENT_NAMES]
        self.head = Head(disk)
        self._maps: list[bytes] = []
        self.add_map = self._maps.append
        self._pending: list[tuple[RecordType, bytes]] = []
        self._pending_bytes = 0
        self._offset = SEGMENT_HEADER_SIZE_BYTES
        self._replay_weight = 0
        self._seed = 0
        self._unsynced: dict[
            File, int
        ] = {}  # sequence behind the last record, per segment, the older one first
        self.content_through = self.barrier_through = self.durable_through = 0
        self.generation = 0
        self.next_sequence = 1
        self.file = self._files[0]

    def start(self, generation: int, first_sequence: int) -> None:
        """Begin a segment: from now on records go to it. What was pending stays pending.

        The caller has made sure that the generation before the last is not needed any more.
        """
        self.next_sequence = first_sequence
        self.head.store_end(
            first_sequence
        )  # before the header: it says that the head is of this boot, and may be believed
        header = SegmentHeader(self._superblock.uuid, generation, first_sequence, self._boot_id)
        file = self._files[SEGMENT_NAMES.index(segment_name(generation))]
        file.pwrite(encode_segment_header(header), 0)
        self.file = file
        self.generation = generation
        self._mark_unsynced()
        self._seed = record_seed(self._superblock.seed, generation)
        self._offset = SEGMENT_HEADER_SIZE_BYTES
        self._replay_weight = 0

    def append(self, kind: RecordType, payload: bytes) -> None:
        """Add a record behind everything added so far; `write` brings it to the file."""
        self._close_maps()
        self._add(kind, payload)

    def append_together(self, parts: Sequence[Part]) -> None:
        """Add records, at least one, of which a crash leaves all or none."""
        if len(parts) == 1:
            self.append(*parts[0])
        else:
            self.append(RecordType.TOGETHER, pack_together(parts))

    def fits(self) -> bool:
        """Whether the segment has room for all that is pending."""
        self._close_maps()
        return self._offset + self._pending_bytes <= self._superblock.log_segment_size_bytes

    def write(self) -> None:
        """Write all that is pending, which fits, by one pwrite. OSError: the log is not to be written again."""
        self._close_maps()
        if not self._pending:
            return
        parts: list[bytes] = []
        sequence = self.next_sequence
        for kind, payload in self._pending:
            parts.append(pack_record(sequence, self.generation, kind, payload, self._seed))
            self._replay_weight += REPLAY_WEIGHT.get(kind, REPLAY_WEIGHT_DEFAULT)
            sequence += 1
            if kind != RecordType.BARRIER:
                self.content_through = sequence
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.file.pwrite(data, self._offset)
        self._offset += len(data)
        self.next_sequence = sequence
        self._mark_unsynced()
        self.head.store_end(sequence)
        self.forget_pending()

    def files_to_sync(self) -> list[File]:
        """Return the segments with records that are not durable, the older one first."""
        return list(self._unsynced)

    def synced(self, through: int) -> None:
        """All segments were made durable when `through` was the next sequence; more may have followed since."""
        self.durable_through = max(self.durable_through, through)
        self.head.store_claim(self.generation, self.durable_through)
        self._unsynced = {file: end for file, end in self._unsynced.items() if end > through}

    def checkpointed(self, first_sequence: int) -> None:
        """A durable root holds all that records before `first_sequence` say, and the tracks they refer to."""
        self.barrier_through = max(self.barrier_through, first_sequence)
        self.durable_through = max(self.durable_through, first_sequence)
        self.content_through = max(self.content_through, first_sequence)
        self._unsynced = {file: end for file, end in self._unsynced.items() if file is self.file}

    def forget_pending(self) -> None:
        """Drop what is pending: it has been written, or a checkpoint of the state that it led to is durable."""
        self._maps.clear()
        self._pending.clear()
        self._pending_bytes = 0

    @property
    def has_pending(self) -> bool:
        """Whether something waits for `write`."""
        return bool(self._pending or self._maps)

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Something that differs after every change of metadata."""
        return self.generation, self.next_sequence, len(self._pending), len(self._maps)

    @property
    def is_checkpoint_due(self) -> bool:
        """Half full, or slow to replay."""
        half = self._superblock.log_segment_size_bytes // 2
        return self._offset > half or self._replay_weight > REPLAY_WEIGHT_MAX

    @property
    def used_bytes(self) -> int:
        """Bytes of the current segment in use."""
        return self._offset

    def close(self) -> None:
        """Give the files back."""
        for file in self._files:
            file.close()
        self.head.close()

    def _add(self, kind: RecordType, payload: bytes) -> None:
        self._pending.append((kind, payload))
        self._pending_bytes += record_size_bytes(len(payload))

    def _close_maps(self) -> None:
        """Turn the collected entries into records, so that what comes next is ordered behind them."""
        if not self._maps:
            return
        entries = b"".join(self._maps)
        self._maps.clear()
        for start in range(0, len(entries), MAP_RECORD_BYTES_MAX):
            self._add(RecordType.MAP, entries[start : start + MAP_RECORD_BYTES_MAX])

    def _mark_unsynced(self) -> None:
        self._unsynced[self.file] = self.next_sequence


LOG_SEGMENT_SIZE_MIN_BYTES: Final = 1 << 20
LOG_SEGMENT_SIZE_MAX_BYTES: Final = 64 << 20
_POOL_BYTES_PER_LOG_BYTE: Final = 64


def default_segment_size_bytes(pool_size_bytes: int) -> int:
    """Return the size of each log segment for a pool: 1/64 of it, 1 to 64 MiB, in whole MiB."""
    wanted = pool_size_bytes // _POOL_BYTES_PER_LOG_BYTE >> 20 << 20
    return min(max(wanted, LOG_SEGMENT_SIZE_MIN_BYTES), LOG_SEGMENT_SIZE_MAX_BYTES)


assert (
    SEGMENT_HEADER_SIZE_BYTES + HEADER.size < LOG_SEGMENT_SIZE_MIN_BYTES
)  # an empty segment takes a barrier
