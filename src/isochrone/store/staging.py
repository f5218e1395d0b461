"""Staged entries: records stored once on fresh tracks, not yet linked into the tables (S10).

This is the consistency group pointer table of the method: per session and source, records in the order they
came, with the physical tracks that hold their payload. Entries keep their times, so a commit may stop at any
instant, also in the middle of what arrived together. Chunks stay as compact as they came (24 bytes a record,
4 bytes a track with payload) and are expanded to tracks only when they are linked.

A record that could not be stored at once comes after later ones; it takes its place in the order of times (S6).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isochrone.model.records import RECORD_DTYPE, RecordArray, RecordKind, count_through
from isochrone.store.allocator import TrackNumbers
from isochrone.store.entries import EntryMask, entries_with_data, entry_keys, select
from isochrone.store.runs import expand


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What one stage call brought, or a part of it. Immutable: a checkpoint may hold it while the pool goes
    on.

    Attributes:
        records: shape (n,), RECORD_DTYPE, times non-decreasing.
        physicals: tracks of the DATA records in order, shape (sum of their track counts,).
    """

    records: RecordArray
    physicals: TrackNumbers

    @property
    def entry_count(self) -> int:
        """Tracks that the records cover."""
        return int(self.records["track_count"].sum(dtype=np.int64))

    def split(self, time_ns: int) -> tuple[Chunk, Chunk]:
        """Return the part with time <= time_ns and the part after it."""
        at = count_through(self.records, time_ns)
        data = data_track_counts(self.records[:at])
        physical_at = int(data.sum(dtype=np.int64))
        return (
            Chunk(self.records[:at], self.physicals[:physical_at]),
            Chunk(self.records[at:], self.physicals[physical_at:]),
        )

    def part_volume(self, number: int) -> tuple[Chunk, Chunk]:
        """Return the records of all other volumes and those of volume `number`, each in order."""
        mine = self.records["volume"] == number
        if not mine.any():
            return self, Chunk(self.records[:0], self.physicals[:0])
        physicals = np.repeat(mine, data_track_counts(self.records))
        return (
            Chunk(self.records[~mine], self.physicals[~physicals]),
            Chunk(self.records[mine], self.physicals[physicals]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Records of one volume expanded to tracks: two arrays of one length, in order; physical 0 means zeros."""

    tracks: NDArray[np.int64]
    physicals: TrackNumbers


@dataclass(frozen=True, slots=True, eq=False)
class Unstored:
    """Entries of a stage call that the device did not take; everything else of the call is staged.

    If an entry of a track is among them, so are all other entries of the call for that track: none overtakes another.

    Attributes:
        entries: shape (entries of the call,): which of them.
        before_ns: time of the oldest of them.
        reason: what the device said.
    """

    entries: EntryMask
    before_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Staged:
    """What a stage call did.

    Attributes:
        track_count: tracks stored.
        through_ns: what counts as staged of the source now, also after a crash.
        unstored: what was not; None when everything was.
    """

    track_count: int
    through_ns: int
    unstored: Unstored | None = None


@dataclass(slots=True)
class SourceStage:
    """What one source (a primary controller) has staged.

    Attributes:
        through_ns: promise of the source up to which everything is staged. Later records may be staged too, beside
            some that are still to be stored.
        chunks: in the order of time, which is that of arrival but for records that had to be stored again.
    """

    through_ns: int = 0
    chunks: list[Chunk] = field(default_factory=list)


@dataclass(slots=True)
class SessionStage:
    """What one session has staged and committed; three counts sum up its chunks.

    Attributes:
        withdrawal_count: times that entries were dropped which no later entry of the session supersedes.
    """

    committed_through_ns: int = 0
    sources: dict[int, SourceStage] = field(default_factory=dict)
    record_count: int = 0
    entry_count: int = 0
    track_count: int = 0
    withdrawal_count: int = 0

    def add(self, source: int, through_ns: int, chunk: Chunk) -> None:
        """Append what a source sent."""
        stage = self.sources.setdefault(source, SourceStage())
        stage.through_ns = through_ns
        if len(chunk.records):
            if stage.chunks and stage.chunks[-1].records["time_ns"][-1] > chunk.records["time_ns"][0]:
                stage.chunks = _with_late(stage.chunks, chunk)
            else:
                stage.chunks.append(chunk)
            self._add([chunk])

    def take_through(self, time_ns: int) -> list[Chunk]:
        """Remove and return all with time <= time_ns, in arrival order per source."""
        taken: list[Chunk] = []
        for stage in self.sources.values():
            early, stage.chunks = _split_all(stage.chunks, time_ns)
            taken += early
        self._add(taken, -1)
        return taken

    def take_after(self, time_ns: int) -> list[Chunk]:
        """Remove and return all with time > time_ns; no source promises more than that any longer."""
        self.withdrawal_count += 1
        taken: list[Chunk] = []
        for stage in self.sources.values():
            stage.chunks, late = _split_all(stage.chunks, time_ns)
            stage.through_ns = min(stage.through_ns, time_ns)
            taken += late
        self._add(taken, -1)
        return taken

    def take_source_after(self, source: int, time_ns: int) -> list[Chunk]:
        """Remove and return all of one source with time > time_ns; what it promises stays."""
        stage = self.sources.get(source)
        if stage is None:
            return []
        self.withdrawal_count += 1
        stage.chunks, late = _split_all(stage.chunks, time_ns)
        self._add(late, -1)
        return late

    def take_volume(self, number: int) -> list[Chunk]:
        """Remove and return all of one volume; what the sources promise stays."""
        self.withdrawal_count += 1
        taken: list[Chunk] = []
        for stage in self.sources.values():
            kept: list[Chunk] = []
            for chunk in stage.chunks:
                others, mine = chunk.part_volume(number)
                kept += [others] if len(others.records) else []
                taken += [mine] if len(mine.records) else []
            stage.chunks = kept
        self._add(taken, -1)
        return taken

    def keep_newest(self, after_ns: int, through_ns: int) -> list[TrackNumbers]:
        """Of entries with after_ns < time <= through_ns keep the newest of each track; return the others' tracks."""
        dropped: list[TrackNumbers] = []
        for stage in self.sources.values():
            early, rest = _split_all(stage.chunks, after_ns)
            middle, late = _split_all(rest, through_ns)
            if middle:
                newest, superseded = newest_of(join(middle))
                self._add(middle, -1)
                self._add([newest])
                stage.chunks = [*early, newest, *late]
                dropped.append(superseded)
        return dropped

    def _add(self, chunks: list[Chunk], sign: int = 1) -> None:
        self.record_count += sign * sum(len(chunk.records) for chunk in chunks)
        self.entry_count += sign * sum(chunk.entry_count for chunk in chunks)
        self.track_count += sign * sum(len(chunk.physicals) for chunk in chunks)


def _split_all(chunks: list[Chunk], time_ns: int) -> tuple[list[Chunk], list[Chunk]]:
    """Split a source's chunks, whose times are non-decreasing, at a time."""
    for index, chunk in enumerate(chunks):
        if chunk.records["time_ns"][-1] > time_ns:
            early, late = chunk.split(time_ns)
            before = [*chunks[:index], early] if len(early.records) else chunks[:index]
            return before, [late, *chunks[index + 1 :]]
    return chunks, []


def _with_late(chunks: list[Chunk], late: Chunk) -> list[Chunk]:
    """Return a source's chunks and `late`, whose records come behind those of the same time."""
    before, after = _split_all(chunks, int(late.records["time_ns"][0]))
    return [*before, _in_order(join([*after, late]))]


def _in_order(chunk: Chunk) -> Chunk:
    """Return the records of `chunk` sorted by time, those of one time as they were."""
    order = np.argsort(chunk.records["time_ns"], kind="stable")
    counts = data_track_counts(chunk.records)
    firsts = np.cumsum(counts, dtype=np.int64) - counts
    return Chunk(chunk.records[order], chunk.physicals[expand(firsts[order], counts[order])])


def data_track_counts(records: RecordArray) -> NDArray[np.uint32]:
    """Return tracks with payload per record: its track count for DATA, 0 for ZERO."""
    is_data = records["kind"] & np.uint32(RecordKind.DATA) != 0
    counts: NDArray[np.uint32] = np.where(is_data, records["track_count"], np.uint32(0))
    return counts


def join(chunks: list[Chunk]) -> Chunk:
    """Return all of `chunks` as one, in order."""
    records = [chunk.records for chunk in chunks] or [np.empty(0, RECORD_DTYPE)]
    physicals = [chunk.physicals for chunk in chunks] or [np.empty(0, np.uint32)]
    return Chunk(np.concatenate(records), np.concatenate(physicals))


def newest_of(chunk: Chunk) -> tuple[Chunk, TrackNumbers]:
    """Return `chunk` with only the last entry of each track, still in order, and the tracks of the other entries."""
    keys = entry_keys(chunk.records)
    _, from_end = np.unique(keys[::-1], return_index=True)
    kept = np.zeros(len(keys), np.bool_)
    kept[len(keys) - 1 - from_end] = True
    has_data = entries_with_data(chunk.records)
    kept_data = kept[has_data]
    return Chunk(select(chunk.records, kept), chunk.physicals[kept_data]), chunk.physicals[~kept_data]


def entries_by_volume(chunk: Chunk) -> list[tuple[int, Entries]]:
    """Return the entries of each volume in `chunk`, expanded to tracks, in order."""
    records = chunk.records
    counts = records["track_count"]
    tracks = expand(records["track"], counts)
    has_data = np.repeat(records["kind"] & np.uint32(RecordKind.DATA) != 0, counts)
    physicals = np.zeros(len(tracks), np.uint32)
    physicals[has_data] = chunk.physicals
    volumes = np.unique(records["volume"]).tolist()
    if len(volumes) == 1:
        return [(volumes[0], Entries(tracks, physicals))]
    volume_of = np.repeat(records["volume"], counts)
    masks = [(number, volume_of == number) for number in volumes]
    return [(number, Entries(tracks[mask], physicals[mask])) for number, mask in masks]
