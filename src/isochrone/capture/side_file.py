"""The side file: captured batches that some session has not hardened yet, held once however many sessions want them.

Its first part is memory, its second, when the operator gives it room, the spill (spill.py). An *entry* is a batch, or
several that went to the spill together, with the number of sessions that still need it. Its payload is in memory, in the
spill, or in both:

    captured --spilled, written--> only in the spill --wanted by a sender--> read back --sent--> only in the spill
                                                                                              hardened: gone from both

Packed records (24 bytes each) stay in memory always: who wants to know which tracks are not hardened need not read.
Memory is charged exactly: an entry at its full size while its payload is there or on its way back, else at its packed
records and ENTRY_BYTES. `used_bytes` counts every entry once at its full size, wherever the payload is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from isochrone.capture.settings import CaptureSettings
from isochrone.capture.spill import ReadJob, Slot, Spill, SpillJob, WriteJob, remove_spill_files
from isochrone.model.records import MIXED_VOLUMES, RECORD_DTYPE, RecordBatch
from isochrone.store.disk import Disk

if TYPE_CHECKING:
    from isochrone.capture.backlog import Backlog

ENTRY_BYTES: Final = 256
"""Charged for an entry whose payload is in the spill, beside its packed records."""
SPILL_MARK_SHARE: Final = 0.5
"""Memory in use, as a share of its limit, above which entries go to the spill."""

PIECE_BYTES_MAX: Final = 1 << 20
"""Entries of one session are spilled, read back, sent and dropped in pieces of at most this size."""


class SideFileEntry:
    """Records captured together, or spilled together, of one session or several.

    Attributes:
        content: batches with their payload; None while that is in the spill only.
        headers: packed records while `content` is None, else empty; see `packed_records`.
        last_time_ns: time of the last record.
        size_bytes: packed records and payload.
        image_bytes: those of them that the copier read.
        holders: sessions that still need it.
        is_reading: its payload is on its way back.
        senders: sessions that have asked for the payload and not sent it yet.
        charged_bytes: what memory is charged for it now.
        slot: its place in the spill, None when it has none.
        loss: why its payload is lost, "" when it is not.
    """

    __slots__ = (
        "charged_bytes",
        "content",
        "headers",
        "holders",
        "image_bytes",
        "is_reading",
        "last_time_ns",
        "loss",
        "senders",
        "size_bytes",
        "slot",
    )

    def __init__(self, batch: RecordBatch, holders: int, is_image: bool) -> None:
        self.content: tuple[RecordBatch, ...] | None = (batch,)
        self.headers = b""
        self.last_time_ns = batch.last_time_ns
        self.size_bytes = self.charged_bytes = size_bytes = batch.size_bytes
        self.image_bytes = size_bytes if is_image else 0
        self.holders = holders
        self.is_reading = False
        self.senders = 0
        self.slot: Slot | None = None
        self.loss = ""

    @classmethod
    def joined(cls, entries: Sequence[SideFileEntry]) -> SideFileEntry:
        """Return one entry in the place of `entries`, all in memory, of one and the same session, in order."""
        entry = cls.__new__(cls)
        entry.content = tuple(batch for one in entries for batch in one.content or ())
        entry.headers = b""
        entry.last_time_ns = entries[-1].last_time_ns
        entry.size_bytes = sum(one.size_bytes for one in entries)
        entry.charged_bytes = sum(one.charged_bytes for one in entries)
        entry.image_bytes = sum(one.image_bytes for one in entries)
        entry.holders = 1
        entry.is_reading = False
        entry.senders = 0
        entry.slot = None
        entry.loss = ""
        return entry

    @property
    def packed_records(self) -> bytes:
        """Every record (RECORD_DTYPE), wherever the payload is."""
        return self.headers if self.content is None else b"".join([batch.headers for batch in self.content])


class SideFile:
    """Counts the bytes that all backlogs of a controller hold together, and moves payload to the spill and back.

    `0 <= memory_bytes`; it may pass `bytes_max` by one batch: the batch that passes it is captured, then a session
    suspends. Without a spill `memory_bytes == used_bytes`.

    Attributes:
        bytes_max: memory, as the operator chose it.
        used_bytes: everything held, each batch once.
        memory_bytes: memory in use.
        piece_bytes_max: entries are joined for the spill up to this size.
        spill: the second part, None when there is none.
    """

    __slots__ = ("bytes_max", "memory_bytes", "piece_bytes_max", "spill", "used_bytes")

    def __init__(
        self, bytes_max: int, spill: Spill | None = None, *, piece_bytes_max: int = PIECE_BYTES_MAX
    ) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self.memory_bytes = 0
        self.piece_bytes_max = piece_bytes_max
        self.spill = spill

    def enter(self, batch: RecordBatch, backlogs: tuple[Backlog, ...], *, is_image: bool = False) -> None:
        """Hold `batch` for every one of `backlogs` (at least one)."""
        entry = SideFileEntry(batch, len(backlogs), is_image)
        self.used_bytes += entry.size_bytes
        self.memory_bytes += entry.size_bytes
        for backlog in backlogs:
            backlog.append(entry)

    def release(self, entry: SideFileEntry) -> None:
        """One backlog no longer needs `entry`."""
        entry.holders -= 1
        if entry.holders == 0:
            self.used_bytes -= entry.size_bytes
            self.memory_bytes -= entry.charged_bytes
            if entry.slot is not None:
                self._leave_spill(entry, entry.slot)

    # How full it is

    @property
    def is_full(self) -> bool:
        """Whether a session must suspend."""
        return self.memory_bytes > self.bytes_max

    @property
    def full_reason(self) -> str:
        """What to say to a session that suspends because of it."""
        spill = self.spill
        text = f"the side file reached its limit of {self.bytes_max} bytes"
        if spill is None:
            return text
        if spill.trouble:
            return f"{text} of memory, and its spill cannot be written: {spill.trouble}"
        state = "is full too" if spill.is_full else "is slower than the writes"
        return f"{text} of memory, and its spill of {spill.bytes_max} bytes {state}"

    @property
    def capacity_bytes(self) -> int:
        """Memory and spill together."""
        return self.bytes_max + (self.spill.bytes_max if self.spill else 0)

    @property
    def spilled_bytes(self) -> int:
        """Bytes of entries whose payload is in the spill only."""
        return self.used_bytes - self.memory_bytes if self.spill else 0

    @property
    def fill(self) -> float:
        """How full it is for pacing, from 0 to 1 and a little beyond.

        With a spill it is the fuller of two: everything held against memory and spill together, and, where the spill
        cannot take so much so fast, the memory above the mark against what is left there.
        """
        if self.spill is None:
            return self.used_bytes / self.bytes_max
        mark_bytes = self.bytes_max * SPILL_MARK_SHARE
        above = (self.memory_bytes - mark_bytes) / (self.bytes_max - mark_bytes)
        return max(self.used_bytes / self.capacity_bytes, above)

    # To the spill

    def spill_excess(self, backlogs: Sequence[Backlog], now_ns: int) -> None:
        """Queue what is held beyond the mark for writing, oldest first, the backlog that is furthest behind first."""
        spill = self.spill
        if spill is None:
            return
        mark_bytes = int(self.bytes_max * SPILL_MARK_SHARE)
        if self.memory_bytes - spill.queued_bytes <= mark_bytes:
            return
        for backlog in sorted(backlogs, key=lambda backlog: backlog.unsent_bytes, reverse=True):
            while self.memory_bytes - spill.queued_bytes > mark_bytes:
                if not spill.takes(backlog.next_spill_bytes(), now_ns):
                    break
                entry = backlog.take_for_spill()
                if entry is None:
                    break
                if entry.slot is None and entry.content is not None:
                    parts = [batch.payload for batch in entry.content if batch.payload]
                    entry.slot = spill.offer(entry, parts)

    def finished(self, job: SpillJob, backlogs: Sequence[Backlog], now_ns: int) -> list[SideFileEntry]:
        """Take the outcome of a job of the spill in. Returns entries whose payload is lost: their sessions suspend."""
        assert self.spill is not None
        failed = self.spill.finished(job, now_ns)
        match job:
            case WriteJob() if job.error is None:
                for slot in job.slots:
                    self._drop_payload_of(slot)
            case ReadJob():
                return self._read_back(job)
        for slot in failed:
            _entry_of(slot).slot = None
        if failed:
            for backlog in backlogs:
                backlog.take_back_from_spill()
        return []

    def _drop_payload_of(self, slot: Slot) -> None:
        entry = _entry_of(slot)
        if not slot.is_freed and not entry.senders:
            self._drop_payload(entry)

    def _drop_payload(self, entry: SideFileEntry) -> None:
        if entry.content is not None:
            entry.headers = entry.packed_records
            entry.content = None
            self._charge(entry, min(entry.size_bytes, len(entry.headers) + ENTRY_BYTES))

    def _leave_spill(self, entry: SideFileEntry, slot: Slot) -> None:
        entry.slot = None
        if self.spill is not None:
            self.spill.free(slot)

    # Back from the spill

    def want(self, entry: SideFileEntry) -> None:
        """A sender will need the payload of `entry` soon: read it back unless it is here or on its way."""
        entry.senders += 1
        if entry.content is None and not entry.is_reading and not entry.loss:
            assert self.spill is not None
            assert entry.slot is not None
            entry.is_reading = True
            self._charge(entry, entry.size_bytes)
            self.spill.want(entry.slot)

    def unwant(self, entry: SideFileEntry) -> None:
        """A sender that wanted `entry` has sent it, or needs it no more."""
        entry.senders -= 1
        if not entry.senders and entry.slot is not None and entry.slot.is_written:
            self._drop_payload(entry)

    def _read_back(self, job: ReadJob) -> list[SideFileEntry]:
        for slot, payload in zip(job.slots, job.payloads, strict=False):
            entry = _entry_of(slot)
            if slot.is_freed:
                continue
            entry.is_reading = False
            entry.content = (_spilled_batch(entry, payload),)
            entry.headers = b""
            if not entry.senders:
                self._drop_payload(entry)
        lost = [_entry_of(slot) for slot in job.slots[len(job.payloads) :] if not slot.is_freed]
        for entry in lost:
            entry.is_reading = False
            entry.loss = f"captured records cannot be read back from the spill: {job.error}"
        return lost

    def _charge(self, entry: SideFileEntry, size_bytes: int) -> None:
        self.memory_bytes += size_bytes - entry.charged_bytes
        entry.charged_bytes = size_bytes


def _entry_of(slot: Slot) -> SideFileEntry:
    assert isinstance(slot.owner, SideFileEntry)
    return slot.owner


def _spilled_batch(entry: SideFileEntry, payload: bytes) -> RecordBatch:
    """Return what was spilled together as one batch, of whatever volumes it is."""
    first_time_ns = int.from_bytes(entry.headers[:8], "little")
    count = len(entry.headers) // RECORD_DTYPE.itemsize
    return RecordBatch(MIXED_VOLUMES, first_time_ns, entry.last_time_ns, count, entry.headers, payload)


def open_side_file(settings: CaptureSettings, disk: Disk, spill_disk: Disk) -> SideFile:
    """Make the side file of a controller; an earlier life's spill is removed, also when there is to be none.

    `disk` is the pool's folder, `spill_disk` that of the spill, perhaps the same. Raises OSError.
    """
    remove_spill_files(disk)
    if not settings.spill_bytes_max:
        return SideFile(settings.side_file_bytes_max)
    spill = Spill(spill_disk, settings.spill_bytes_max, settings.spill_segment_bytes)
    piece_bytes_max = min(PIECE_BYTES_MAX, settings.record_set_bytes_max)
    return SideFile(settings.side_file_bytes_max, spill, piece_bytes_max=piece_bytes_max)
