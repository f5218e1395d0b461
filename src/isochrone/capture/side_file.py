"""The side file: captured batches that some session has not hardened yet, held once however many sessions want them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from isochrone.model.records import RecordBatch


class SideFileEntry:
    """One batch, the number of sessions that still need it, and whether the copier read it."""

    __slots__ = ("batch", "holders", "is_image")

    def __init__(self, batch: RecordBatch, holders: int, is_image: bool) -> None:
        self.batch = batch
        self.holders = holders
        self.is_image = is_image

    @property
    def packed_records(self) -> bytes:
        """Its records (RECORD_DTYPE)."""
        return self.batch.headers


class SideFile:
    """Counts the bytes that all backlogs of a controller hold together, each batch once.

    `0 <= used_bytes`; it may pass `bytes_max` by one batch: the batch that passes it is captured, then a session
    suspends.
    """

    __slots__ = ("bytes_max", "used_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0

    def enter(self, batch: RecordBatch, backlogs: tuple[Backlog, ...], *, is_image: bool = False) -> None:
        """Hold `batch` for every one of `backlogs` (at least one)."""
        entry = SideFileEntry(batch, len(backlogs), is_image)
        self.used_bytes += batch.size_bytes
        for backlog in backlogs:
            backlog.append(entry)

    def release(self, entry: SideFileEntry) -> None:
        """One backlog no longer needs `entry`."""
        entry.holders -= 1
        if entry.holders == 0:
            self.used_bytes -= entry.batch.size_bytes

    @property
    def is_full(self) -> bool:
        """Whether a session must suspend."""
        return self.used_bytes > self.bytes_max


class Backlog:
    """One session's queue through the side file: hardened entries leave at the left, captured ones enter at the right.

    ::

        [ sent, not hardened | not sent ]
          0                  sent_count  len

    Attributes:
        held_bytes: bytes of all entries.
        image_bytes: those of them that the copier read.
        dropped_through_ns: time of the last record that left hardened; a peer that has received less than this
            cannot be continued.
        entered_bytes: bytes that ever entered.
    """

    __slots__ = (
        "_entries",
        "_side_file",
        "dropped_through_ns",
        "entered_bytes",
        "held_bytes",
        "image_bytes",
        "sent_count",
        "unsent_bytes",
    )

    def __init__(self, side_file: SideFile) -> None:
        self._side_file = side_file
        self._entries: deque[SideFileEntry] = deque()
        self.sent_count = 0
        self.held_bytes = 0
        self.image_bytes = 0
        self.unsent_bytes = 0
        self.dropped_through_ns = 0
        self.entered_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[SideFileEntry]:
        """Every entry, oldest first."""
        return iter(self._entries)

    def append(self, entry: SideFileEntry) -> None:
        """Add a captured entry; only the side file calls this."""
        self._entries.append(entry)
        size_bytes = entry.batch.size_bytes
        self.held_bytes += size_bytes
        self.entered_bytes += size_bytes
        self.image_bytes += size_bytes if entry.is_image else 0
        self.unsent_bytes += size_bytes

    def take_unsent(self, bytes_max: int) -> list[RecordBatch]:
        """Return the next batches to send, at least one if any is unsent, and count them as sent.

        They add up to at most `bytes_max`, but a first batch is returned whatever its size.
        """
        batches: list[RecordBatch] = []
        total_bytes = 0
        while self.sent_count < len(self._entries):
            batch = self._entries[self.sent_count].batch
            if batches and total_bytes + batch.size_bytes > bytes_max:
                break
            batches.append(batch)
            total_bytes += batch.size_bytes
            self.sent_count += 1
        self.unsent_bytes -= total_bytes
        return batches

    def drop_hardened(self, hardened_ns: int) -> None:
        """Forget every batch whose records all have time <= hardened_ns."""
        entries = self._entries
        while self.sent_count and entries[0].batch.last_time_ns <= hardened_ns:
            entry = entries.popleft()
            self.sent_count -= 1
            self.held_bytes -= entry.batch.size_bytes
            self.image_bytes -= entry.batch.size_bytes if entry.is_image else 0
            self.dropped_through_ns = entry.batch.last_time_ns
            self._side_file.release(entry)

    def rewind(self, received_through_ns: int) -> None:
        """Count as unsent every batch that a peer which has received through `received_through_ns` still lacks."""
        sent = 0
        unsent_bytes = 0
        for entry in self._entries:
            if entry.batch.last_time_ns <= received_through_ns:
                sent += 1
            else:
                unsent_bytes += entry.batch.size_bytes
        self.sent_count = sent
        self.unsent_bytes = unsent_bytes

    def clear(self) -> None:
        """Drop everything, hardened or not (the change maps remember)."""
        for entry in self._entries:
            self._side_file.release(entry)
        self._entries.clear()
        self.sent_count = 0
        self.held_bytes = 0
        self.image_bytes = 0
        self.unsent_bytes = 0
        self.dropped_through_ns = 0
