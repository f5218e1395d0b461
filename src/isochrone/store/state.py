"""The metadata of a pool in memory, and every change that can happen to it.

No I/O and no log in here: the running pool and recovery make the same calls, so that replaying the log is the
same as having lived through it. Callers have checked their arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.allocator import Allocator, TrackNumbers
from isochrone.store.arena import Arena
from isochrone.store.history import History
from isochrone.store.kept_entries import KeptEntries
from isochrone.store.log_records import MAP_DTYPE, StagePayload
from isochrone.store.pointer_copy import Extents, establish, share
from isochrone.store.rebuild import rebuild
from isochrone.store.runs import expand
from isochrone.store.staging import Chunk, SessionStage, entries_by_volume, join
from isochrone.store.tables import Assigned, TrackTables, VolumeTable

_COMMIT_ENTRY_COUNT: Final = 1 << 18
"""Entries linked in one vectorised step: bounds the temporary arrays of a commit to about 10 MiB."""


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit did.

    Attributes:
        through_ns: the session's committed time now.
        linked_count: entries that are the newest of their track and stand in the tables now.
        superseded_count: entries overtaken by a later one of the same commit.
        freed_count: tracks that nothing refers to any more, reusable after the next sync.
    """

    through_ns: int
    linked_count: int = 0
    superseded_count: int = 0
    freed_count: int = 0


class PoolState:
    """Volumes, tables, tracks, documents and staged entries of one pool.

    Attributes:
        volumes: by number.
        documents: by key.
        sessions: by session number.
        histories: what is kept of sessions, by session number; a session may have ended before its history does.
        given_up: entries that were kept and are not wanted any more; their tracks are dropped bit by bit.
        unfinished: hidden volumes of images that are being made.
        volume_number_next: the number that the next volume gets.
    """

    def __init__(self, track_count: int, track_size_bytes: int, page_count: int = 0) -> None:
        self.track_size_bytes = track_size_bytes
        self.allocator = Allocator(track_count)
        self.arena = Arena(page_count)
        self.tables = TrackTables(self.arena, self.allocator)
        self.volumes: dict[int, VolumeTable] = {}
        self.documents: dict[str, bytes] = {}
        self.sessions: dict[int, SessionStage] = {}
        self.histories: dict[int, History] = {}
        self.given_up = KeptEntries()
        self.unfinished: set[int] = set()
        self.volume_number_next = 1

    def create_volume(self, number: int, name: str, size_bytes: int) -> VolumeTable:
        """Add an empty volume."""
        table = VolumeTable(number, name, 0, 0)
        self.tables.resize(table, size_bytes, size_bytes // self.track_size_bytes)
        self.volumes[number] = table
        self.volume_number_next = max(self.volume_number_next, number + 1)
        return table

    def resize_volume(self, number: int, size_bytes: int) -> None:
        """Give a volume another size; tracks beyond it are unmapped."""
        self._end_history_of(number)
        self.tables.resize(self.volumes[number], size_bytes, size_bytes // self.track_size_bytes)

    def delete_volume(self, number: int) -> None:
        """Remove a volume and all that only it refers to."""
        self._end_history_of(number)
        self.tables.resize(self.volumes.pop(number), 0, 0)

    def copy_volume(self, source: int, number: int, name: str, kind: VolumeKind) -> VolumeTable:
        """Add a volume that is what `source` is now, sharing all pages."""
        origin = self.volumes[source]
        table = VolumeTable(number, name, 0, 0, kind)
        share(self.tables, origin, table)
        self.volumes[number] = table
        self.volume_number_next = max(self.volume_number_next, number + 1)
        return table

    def establish(self, source: int, target: int, extents: Extents | None) -> None:
        """Make ranges of `target`, or all of it with its size, what they are in `source` now."""
        self._end_history_of(target)
        if extents is None:
            share(self.tables, self.volumes[source], self.volumes[target])
        else:
            establish(self.tables, self.volumes[source], self.volumes[target], extents)

    def map(self, entries: NDArray[np.void]) -> None:
        """Apply MAP entries (MAP_DTYPE) in order: used by recovery only, where references are not counted."""
        for number in np.unique(entries["volume"]).tolist():
            mine = entries[entries["volume"] == number]
            counts = mine["count"]
            tracks = expand(mine["track"], counts)
            physicals = expand(mine["physical"], counts).astype(np.uint32)
            physicals[np.repeat(mine["physical"] == 0, counts)] = 0
            self.tables.assign(self.volumes[number], tracks, physicals)

    def unmap(self, number: int, first: int, count: int) -> None:
        """Unmap a range of tracks of a volume."""
        self.tables.clear(self.volumes[number], first, count)

    def stage(self, payload: StagePayload) -> None:
        """Remember staged records; their tracks count one reference each already."""
        session = self.sessions.setdefault(payload.session, SessionStage())
        session.add(payload.source, payload.through_ns, Chunk(payload.records, payload.physicals))

    def commit(self, session: int, through_ns: int) -> CommitResult:
        """Link all entries of a session with time <= through_ns, the last of a track wins; keep those of kept volumes."""
        history = self._history_for(session, through_ns) if self.histories else None
        stage = self.sessions.setdefault(session, SessionStage())
        linked = superseded = freed = 0
        group: list[Chunk] = []
        entry_count = 0
        for chunk in stage.take_through(through_ns):
            group.append(chunk)
            entry_count += chunk.entry_count
            if entry_count >= _COMMIT_ENTRY_COUNT:
                done = self._commit(join(group), history)
                linked, superseded, freed = (
                    linked + done.linked,
                    superseded + done.superseded,
                    freed + done.freed,
                )
                group, entry_count = [], 0
        if group:
            done = self._commit(join(group), history)
            linked, superseded, freed = linked + done.linked, superseded + done.superseded, freed + done.freed
        stage.committed_through_ns = max(stage.committed_through_ns, through_ns)
        if history is not None:
            history.through_ns = max(history.through_ns, stage.committed_through_ns)
        return CommitResult(stage.committed_through_ns, linked, superseded, freed)

    def discard(self, session: int, after_ns: int) -> int:
        """Drop staged entries with time > after_ns. Returns their number."""
        stage = self.sessions.get(session)
        return self._drop_chunks(stage.take_after(after_ns)) if stage else 0

    def discard_source(self, session: int, source: int, after_ns: int) -> int:
        """Drop staged entries of one source with time > after_ns. Returns their number."""
        stage = self.sessions.get(session)
        return self._drop_chunks(stage.take_source_after(source, after_ns)) if stage else 0

    def discard_volume(self, session: int, number: int) -> int:
        """Drop all staged entries of a volume. Returns their number."""
        stage = self.sessions.get(session)
        return self._drop_chunks(stage.take_volume(number)) if stage else 0

    def compact(self, session: int, after_ns: int, through_ns: int) -> int:
        """Drop entries that a later one of the same track supersedes within (after_ns, through_ns]; count them."""
        stage = self.sessions.get(session)
        dropped = stage.keep_newest(after_ns, through_ns) if stage else []
        for physicals in dropped:
            self.tables.drop(physicals)
        return sum(map(len, dropped))

    def end_session(self, session: int) -> None:
        """Forget a session and drop all that it has staged."""
        stage = self.sessions.pop(session, None)
        if stage:
            self._drop_chunks(stage.take_after(-1))

    def rebuild(self) -> None:
        """Count references and free tracks anew, after everything was loaded and replayed."""
        rebuild(self.tables, list(self.volumes.values()), self.entry_tracks())

    def entry_tracks(self) -> Iterator[TrackNumbers]:
        """Yield the tracks of all entries that count one reference each: staged, kept, or given up and not yet dropped."""
        for session in self.sessions.values():
            for source in session.sources.values():
                for chunk in source.chunks:
                    yield chunk.physicals
        for history in self.histories.values():
            yield from history.entries.tracks()
        yield from self.given_up.tracks()

    @property
    def staged_track_count(self) -> int:
        """Tracks that staged entries hold."""
        return sum(session.track_count for session in self.sessions.values())

    @property
    def staged_record_count(self) -> int:
        """Staged records of all sessions."""
        return sum(session.record_count for session in self.sessions.values())

    @property
    def kept_track_count(self) -> int:
        """Tracks that histories hold, as entries that were kept; also those that were given up and are not dropped yet."""
        kept = sum(history.entries.track_count for history in self.histories.values())
        return kept + self.given_up.track_count

    def link(self, chunk: Chunk) -> Assigned:
        """Let tables refer to entries that count one reference already; the last of a track wins."""
        linked = superseded = freed = 0
        for number, entries in entries_by_volume(chunk):
            table = self.volumes.get(number)
            tracks, physicals = entries.tracks, entries.physicals
            inside = tracks < (table.track_count if table else 0)
            if not inside.all():  # the volume was deleted or shrunk since the records were staged
                lost = physicals[~inside]
                freed += self.tables.drop(lost[lost != 0])
                tracks, physicals = tracks[inside], physicals[inside]
            if table and len(tracks):
                done = self.tables.assign(table, tracks, physicals)
                linked, superseded, freed = (
                    linked + done.linked,
                    superseded + done.superseded,
                    freed + done.freed,
                )
        return Assigned(linked, superseded, freed)

    def _commit(self, chunk: Chunk, history: History | None) -> Assigned:
        """Link entries; the history, if there is one, keeps its own reference to the tracks that it wants."""
        part = history.part_of(chunk) if history is not None else None
        if history is None or part is None:
            return self.link(chunk)
        kept, bases = part
        if self.tables.accounting:
            self.allocator.share(kept.physicals)
        done = self.link(chunk)
        kept.records["volume"] = bases  # nobody else has this chunk, which was joined for the commit
        history.entries.add(kept)
        return done

    def _history_for(self, session: int, through_ns: int) -> History | None:
        """Return a session's history, if there is one, ready for a commit: what it went back behind is gone."""
        history = self.histories.get(session)
        if history is not None and history.rewound_ns is not None and through_ns > history.rewound_ns:
            self.given_up.extend(history.leave_future())
        return history

    def _end_history_of(self, number: int) -> None:
        """A volume is deleted or gets another size: what it was is kept, what it will be is not."""
        for history in self.histories.values():
            history.leave(number, history.through_ns)

    def _drop_chunks(self, chunks: list[Chunk]) -> int:
        for chunk in chunks:
            self.tables.drop(chunk.physicals)
        return sum(chunk.entry_count for chunk in chunks)


def decode_map(payloads: list[memoryview]) -> NDArray[np.void]:
    """Return the entries of consecutive MAP records as one array."""
    return np.frombuffer(b"".join(payloads), MAP_DTYPE)
