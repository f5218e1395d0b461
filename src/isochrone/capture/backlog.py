"""One session's queue through the side file.

Captured entries enter at the right, hardened ones leave at the left, and the order never changes:

    [ kept | sent ]  [ ready | spilled | fresh ]
      sent, not        not sent
      hardened

In the common case there are only `sent` and `ready`. When memory runs short, `fresh` is what may be spilled next, oldest
first; `spilled` is what was given to the spill; `ready` is what the sender takes from, with what it has asked back a little
ahead of need. Sent entries are spilled last, into `kept`. A payload that has left memory is found out at the entry, not by
its place here: an entry that two sessions share lies in two queues, and either may have given it to the spill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from isochrone.capture.side_file import SideFile, SideFileEntry
from isochrone.model.records import RecordBatch


class Backlog:
    """See the module's essay.

    Attributes:
        ahead_bytes: what the sender will take soon: kept in memory, or asked back. 0 while nothing can be sent.
        held_bytes: bytes of all entries.
        image_bytes: those of them that the copier read.
        unsent_bytes: those of them that are not sent.
        entered_bytes: bytes that ever entered.
        dropped_through_ns: time of the last record that left hardened; a peer that has received less than this
            cannot be continued.
    """

    __slots__ = (
        "_fresh",
        "_kept",
        "_ready",
        "_ready_bytes",
        "_sent",
        "_side_file",
        "_spilled",
        "_wanted",
        "ahead_bytes",
        "dropped_through_ns",
        "entered_bytes",
        "held_bytes",
        "image_bytes",
        "unsent_bytes",
    )

    def __init__(self, side_file: SideFile) -> None:
        self._side_file = side_file
        self._kept: deque[SideFileEntry] = deque()
        self._sent: deque[SideFileEntry] = deque()
        self._ready: deque[SideFileEntry] = deque()
        self._spilled: deque[SideFileEntry] = deque()
        self._fresh: deque[SideFileEntry] = deque()
        self._wanted: set[SideFileEntry] = set()
        self._ready_bytes = 0
        self.ahead_bytes = 0
        self.held_bytes = 0
        self.image_bytes = 0
        self.unsent_bytes = 0
        self.dropped_through_ns = 0
        self.entered_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes))

    def __iter__(self) -> Iterator[SideFileEntry]:
        """Every entry, oldest first; `packed_records` of each says what is not hardened yet."""
        return chain(*self._lanes)

    @property
    def _lanes(self) -> tuple[deque[SideFileEntry], ...]:
        return self._kept, self._sent, self._ready, self._spilled, self._fresh

    @property
    def sent_count(self) -> int:
        """Entries that are sent and not hardened."""
        return len(self._kept) + len(self._sent)

    # Entering, sending, leaving

    def append(self, entry: SideFileEntry) -> None:
        """Add a captured entry; only the side file calls this."""
        size_bytes = entry.size_bytes
        if self._spilled or self._fresh:
            self._fresh.append(entry)
        else:
            self._ready.append(entry)
            self._ready_bytes += size_bytes
        self.held_bytes += size_bytes
        self.entered_bytes += size_bytes
        self.image_bytes += entry.image_bytes
        self.unsent_bytes += size_bytes

    def take_unsent(self, bytes_max: int) -> list[RecordBatch]:
        """Return the next batches to send and count them as sent.

        They add up to at most `bytes_max`, but a first batch is returned whatever its size. None are returned when nothing
        is unsent, or when the next one has to be read back first.
        """
        if self._spilled or self._fresh:
            self._read_ahead()
        batches: list[RecordBatch] = []
        total_bytes = 0
        ready = self._ready
        while ready:
            entry = ready[0]
            if batches and total_bytes + entry.size_bytes > bytes_max:
                break
            if entry.content is None:
                self._want(entry)  # another session has given it to the spill
                break
            batches += entry.content
            total_bytes += entry.size_bytes
            self._sent.append(ready.popleft())
            if self._wanted:
                self._unwant(entry)
        self._ready_bytes -= total_bytes
        self.unsent_bytes -= total_bytes
        return batches

    def drop_hardened(self, hardened_ns: int) -> None:
        """Forget every entry whose records all have time <= hardened_ns."""
        for lane in (self._kept, self._sent):
            while lane and lane[0].last_time_ns <= hardened_ns:
                entry = lane.popleft()
                self.held_bytes -= entry.size_bytes
                self.image_bytes -= entry.image_bytes
                self.dropped_through_ns = entry.last_time_ns
                self._side_file.release(entry)
            if lane:
                return

    def rewind(self, received_through_ns: int) -> None:
        """Count as unsent every entry of which a peer that has received through `received_through_ns` lacks something.

        The peer may have the first records of such an entry, when it was sent in parts and joined since.
        """
        entries = list(self)
        self._unwant_all()
        first_unsent = next(
            (n for n, entry in enumerate(entries) if entry.last_time_ns > received_through_ns), len(entries)
        )
        sent, unsent = entries[:first_unsent], entries[first_unsent:]
        for lane in self._lanes:
            lane.clear()
        kept_count = _count_through_last_spilled(sent)
        self._kept.extend(sent[:kept_count])
        self._sent.extend(sent[kept_count:])
        spilled_count = _count_through_last_spilled(unsent)
        self._spilled.extend(unsent[:spilled_count])
        (self._fresh if spilled_count else self._ready).extend(unsent[spilled_count:])
        self._ready_bytes = sum(entry.size_bytes for entry in self._ready)
        self.unsent_bytes = sum(entry.size_bytes for entry in unsent)

    def clear(self) -> None:
        """Drop everything, hardened or not (the change maps remember)."""
        self._unwant_all()
        for entry in self:
            self._side_file.release(entry)
        for lane in self._lanes:
            lane.clear()
        self._ready_bytes = 0
        self.held_bytes = 0
        self.image_bytes = 0
        self.unsent_bytes = 0
        self.dropped_through_ns = 0

    # To the spill

    def next_spill_bytes(self) -> int:
        """Return the most that `take_for_spill` would give to the spill now."""
        self._set_apart()
        lane = self._fresh or self._sent
        return max(self._side_file.piece_bytes_max, lane[0].size_bytes) if lane else 0

    def take_for_spill(self) -> SideFileEntry | None:
        """Return the next entry to be written, several joined where no other session holds them; None when there is none.

        It may have been given to the spill already, by another session.
        """
        self._set_apart()
        lane, behind = (self._fresh, self._spilled) if self._fresh else (self._sent, self._kept)
        if not lane:
            return None
        entry = lane.popleft()
        if _may_join(entry):
            run = [entry]
            room_bytes = self._side_file.piece_bytes_max - entry.size_bytes
            while lane and _may_join(lane[0]) and lane[0].size_bytes <= room_bytes:
                room_bytes -= lane[0].size_bytes
                run.append(lane.popleft())
            if len(run) > 1:
                entry = SideFileEntry.joined(run)
        behind.append(entry)
        return entry

    def _set_apart(self) -> None:
        """Where nothing is in the spill: what the sender will not take soon may go there."""
        if self._spilled or self._fresh or self._ready_bytes <= self.ahead_bytes:
            return
        self._fresh, self._ready = self._ready, self._fresh
        self._ready_bytes = 0
        while self._fresh and self._ready_bytes + self._fresh[0].size_bytes <= self.ahead_bytes:
            entry = self._fresh.popleft()
            self._ready.append(entry)
            self._ready_bytes += entry.size_bytes

    def take_back_from_spill(self) -> None:
        """The spill has failed to write: what it did not take may be given to it again later."""
        for lane, behind in ((self._fresh, self._spilled), (self._sent, self._kept)):
            while behind and behind[-1].slot is None:
                lane.appendleft(behind.pop())
        self._join_fresh()

    # Back from the spill

    def _read_ahead(self) -> None:
        """Make spilled entries ready, at least one, as far ahead as the sender is allowed; those not in memory are read."""
        while self._spilled and (not self._ready or self._ready_bytes < self.ahead_bytes):
            entry = self._spilled.popleft()
            self._ready.append(entry)
            self._ready_bytes += entry.size_bytes
            self._want(entry)
        self._join_fresh()

    def _join_fresh(self) -> None:
        if not self._spilled and self._fresh:
            self._ready_bytes += sum(entry.size_bytes for entry in self._fresh)
            self._ready.extend(self._fresh)
            self._fresh.clear()

    def _want(self, entry: SideFileEntry) -> None:
        if entry not in self._wanted:
            self._wanted.add(entry)
            self._side_file.want(entry)

    def _unwant(self, entry: SideFileEntry) -> None:
        if entry in self._wanted:
            self._wanted.remove(entry)
            self._side_file.unwant(entry)

    def _unwant_all(self) -> None:
        for entry in list(self._wanted):
            self._unwant(entry)


def _may_join(entry: SideFileEntry) -> bool:
    return entry.holders == 1 and entry.slot is None


def _count_through_last_spilled(entries: list[SideFileEntry]) -> int:
    """Return how many entries there are up to the last one that was given to the spill."""
    return next((n + 1 for n in range(len(entries) - 1, -1, -1) if entries[n].slot is not None), 0)
