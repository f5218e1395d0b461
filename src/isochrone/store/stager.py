"""Staging and committing records on an open pool (S10): checks at the edge, payload to tracks, state, log.

Every record's payload is stored once, on fresh tracks, in as few writes as free space allows; linking it
later moves no data. Nothing in here loops over records or tracks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import BusyError, RefusedError
from isochrone.model.records import TRACK_COUNT_MAX, RecordArray
from isochrone.store.allocator import TrackNumbers
from isochrone.store.arena import PAGE_SHIFT
from isochrone.store.disk import Buffer
from isochrone.store.entries import entries_with_data, entry_keys, entry_times, select
from isochrone.store.hashing import TrackHashes, hash_tracks
from isochrone.store.limits import SESSION_COUNT_MAX, SOURCE_COUNT_MAX, STAGED_RECORD_COUNT_MAX
from isochrone.store.log_records import (
    SESSION,
    SESSION_SOURCE_TIME,
    SESSION_TIME,
    SESSION_TIMES,
    SESSION_VOLUME,
    RecordType,
    StagePayload,
    pack_stage,
)
from isochrone.store.newest import NewestEntries
from isochrone.store.runs import expand
from isochrone.store.staging import SessionStage, SourceStage, Staged, Unstored, data_track_counts
from isochrone.store.state import CommitResult
from isochrone.store.tables import page_count_for
from isochrone.store.track_writer import TrackWriter, Unwritten
from isochrone.store.volume import VolumeParts

_TIME_NS_MAX: Final = (1 << 64) - 1
_KEY_PAGE_BITS: Final = 32
_RESERVED_COUNT_MIN: Final = 1024
"""Up to this many reserved pages, those of entries that were linked meanwhile are kept in the count."""
_EMPTY: Final = SessionStage()


class Stager:
    """Sessions of one pool."""

    def __init__(self, parts: VolumeParts) -> None:
        self._parts = parts
        self._state = parts.state
        self._shift = parts.state.track_size_bytes.bit_length() - 1
        self._writer = TrackWriter(parts.tracks, parts.state.allocator, parts.state.track_size_bytes)
        self._reserved: set[int] = set()  # volume << 32 | page index
        self._reserved_count_max = _RESERVED_COUNT_MIN
        self.recount_pages()

    @property
    def reserved_page_count(self) -> int:
        """Pages that linking what is staged may create."""
        return len(self._reserved)

    def recount_pages(self) -> None:
        """Find out anew which pages linking may create, after pages became shared."""
        self._reserved = {
            key
            for session in self._state.sessions.values()
            for source in session.sources.values()
            for chunk in source.chunks
            for key in self.pages_to_create(chunk.records).tolist()
        }

    def pages_staged(self, numbers: set[int]) -> set[int]:
        """Return the pages of some volumes that linking may change and that are not reserved yet, for `reserve_pages`."""
        chunks = [
            chunk.records
            for session in self._state.sessions.values()
            for source in session.sources.values()
            for chunk in source.chunks
        ]
        if not chunks:
            return set()
        volumes, tracks, counts = (
            np.concatenate([records[name] for records in chunks])
            for name in ("volume", "track", "track_count")
        )
        keys: set[int] = set()
        for number in numbers:
            mine = volumes == number
            pages = self._state.volumes[number].pages
            covered = _covered(tracks[mine].astype(np.int64), counts[mine], len(pages))
            existing = np.flatnonzero(covered & (pages != 0))  # others are reserved already
            keys.update(((number << _KEY_PAGE_BITS) | existing).tolist())
        return keys - self._reserved

    def reserve_pages(self, pages: set[int]) -> None:
        """Count pages as ones that linking will create: what they are now is about to be shared."""
        self._reserved |= pages

    def stage(
        self,
        session: int,
        source: int,
        through_ns: int,
        records: RecordArray,
        payload: Buffer,
        *,
        before_ns: int | None = None,
    ) -> Staged:
        """Store records on fresh tracks and remember them; see `Pool.stage`."""
        self._parts.health.check()
        self._check(session, source, through_ns, records)
        data_counts = data_track_counts(records)
        track_count = int(data_counts.sum(dtype=np.int64))
        if len(payload) != track_count << self._shift:
            raise RefusedError(
                f"{len(payload)} payload bytes for {track_count} tracks of {1 << self._shift} bytes: stage whole records",
                session=session,
            )
        new_pages = set(self.pages_to_create(records).tolist()) - self._reserved
        physicals = np.empty(0, np.uint32)
        unstored: Unstored | None = None
        if track_count or new_pages:
            self._parts.reserve(track_count, len(new_pages))
        if track_count:
            physicals = self._parts.state.allocator.take(track_count)
            unwritten = self._write(physicals, memoryview(payload))
            if unwritten is not None:
                records, physicals, unstored = self._part(records, physicals, unwritten)
                before_ns = unstored.before_ns if before_ns is None else min(before_ns, unstored.before_ns)
        self._reserved |= new_pages
        if before_ns is not None:
            through_ns = max(self._staged_through_ns(session, source), min(through_ns, before_ns - 1))
        if len(records) or unstored is None or through_ns > self._staged_through_ns(session, source):
            staged = StagePayload(session, source, through_ns, np.array(records), physicals)
            self._state.stage(staged)
            self._parts.log.append(RecordType.STAGE, pack_stage(staged))
        return Staged(len(physicals), through_ns, unstored)

    def commit(self, session: int, through_ns: int) -> CommitResult:
        """Link all entries with time <= through_ns; see `Pool.commit`."""
        self._parts.health.check()
        check_u64(session=session, through_ns=through_ns)
        self._check_room(session)
        result = self._state.commit(session, through_ns)
        self._parts.log.append(RecordType.COMMIT, SESSION_TIME.pack(session, through_ns))
        self._forget_pages()
        return result

    def discard(self, session: int, after_ns: int) -> int:
        """Drop staged entries with time > after_ns; see `Pool.discard`."""
        self._parts.health.check()
        check_u64(session=session, after_ns=after_ns)
        count = self._state.discard(session, after_ns)
        self._parts.log.append(RecordType.DISCARD, SESSION_TIME.pack(session, after_ns))
        self._forget_pages()
        return count

    def discard_source(self, session: int, source: int, after_ns: int) -> int:
        """Drop staged entries of one source with time > after_ns; see `Pool.discard_source`."""
        self._parts.health.check()
        check_u64(session=session, source=source, after_ns=after_ns)
        count = self._state.discard_source(session, source, after_ns)
        if count:
            payload = SESSION_SOURCE_TIME.pack(session, source, after_ns)
            self._parts.log.append(RecordType.DISCARD_SOURCE, payload)
            self._forget_pages()
        return count

    def discard_volume(self, session: int, number: int) -> int:
        """Drop all staged entries of a volume; see `Pool.discard_volume`."""
        self._parts.health.check()
        check_u64(session=session)
        count = self._state.discard_volume(session, number)
        if count:
            self._parts.log.append(RecordType.DISCARD_VOLUME, SESSION_VOLUME.pack(session, number))
            self._forget_pages()
        return count

    def compact(self, session: int, after_ns: int, through_ns: int) -> int:
        """Drop staged entries that no commit will link; see `Pool.compact`."""
        self._parts.health.check()
        check_u64(session=session, after_ns=after_ns, through_ns=through_ns)
        count = self._state.compact(session, after_ns, through_ns)
        if count:
            self._parts.log.append(RecordType.COMPACT, SESSION_TIMES.pack(session, after_ns, through_ns))
            self._forget_pages()
        return count

    def end_session(self, session: int) -> None:
        """Forget a session; see `Pool.end_session`."""
        self._parts.health.check()
        check_u64(session=session)
        if session in self._state.sessions:
            self._state.end_session(session)
            self._parts.log.append(RecordType.END_SESSION, SESSION.pack(session))
            self._forget_pages()

    def session(self, session: int) -> SessionStage:
        """Return what is known of a session: an empty one when nothing is."""
        return self._state.sessions.get(session, _EMPTY)

    def newest_entries(self, session: int, source: int) -> NewestEntries:
        """Return an index of what `source` has staged until now."""
        return NewestEntries(self.session(session), source, self._state.tables)

    def hash_newest(
        self, newest: NewestEntries, number: int, tracks: NDArray[np.int64], seed: int
    ) -> TrackHashes | None:
        """Return the hashes of `tracks` (ascending) as they will be once all that `newest` knows is committed.

        None when a track is not within volume `number`.
        """
        table = self._state.volumes.get(number)
        if table is None or int(tracks[-1]) >= table.track_count:
            return None
        physicals = newest.physicals(table, tracks)
        return hash_tracks(self._parts.tracks, self._state.track_size_bytes, physicals, seed)

    def _check(self, session: int, source: int, through_ns: int, records: RecordArray) -> None:
        """Refuse what must not be staged, before anything is changed."""
        check_u64(session=session, source=source, through_ns=through_ns)
        self._check_room(session)
        known = self.session(session)
        stage = known.sources.get(source, SourceStage())
        if source not in known.sources and len(known.sources) >= SOURCE_COUNT_MAX:
            raise BusyError(f"session {session} has {SOURCE_COUNT_MAX} sources already", session=session)
        if through_ns < stage.through_ns:
            raise _refused(
                session, source, f"through {through_ns} is before {stage.through_ns}, staged earlier"
            )
        if not len(records):
            return
        record_count = self._state.staged_record_count
        if record_count + len(records) > STAGED_RECORD_COUNT_MAX:
            raise BusyError(
                f"{record_count} records are staged, {STAGED_RECORD_COUNT_MAX} are the limit: commit first",
                session=session,
            )
        times = records["time_ns"]
        if (times[1:] < times[:-1]).any() or int(times[-1]) > through_ns:
            raise _refused(session, source, "record times step back, or go beyond what is promised")
        if times[0] < stage.through_ns:
            raise _refused(session, source, "records are older than what is staged")
        counts = records["track_count"]
        if not counts.all() or int(counts.max()) > TRACK_COUNT_MAX:
            raise _refused(session, source, f"a record has no track, or more than {TRACK_COUNT_MAX}")
        for number in np.unique(records["volume"]).tolist():
            mine = records[records["volume"] == number]
            table = self._state.volumes.get(number)
            end = int((mine["track"].astype(np.int64) + mine["track_count"]).max())
            if table is None or end > table.track_count:
                raise _refused(session, source, f"a record is not within a volume of number {number}")
            if not table.kind.is_writable:
                raise _refused(
                    session, source, f"volume number {number} is a {table.kind.name.lower()}, read-only"
                )

    def _check_room(self, session: int) -> None:
        if session not in self._state.sessions and len(self._state.sessions) >= SESSION_COUNT_MAX:
            raise BusyError(f"the pool serves {SESSION_COUNT_MAX} sessions already: end one first")

    def pages_to_create(self, records: RecordArray) -> NDArray[np.int64]:
        """Return volume << 32 | page index of pages under `records` that are null or shared now."""
        keys = _page_keys(records)
        volumes = keys >> _KEY_PAGE_BITS
        wanted = np.zeros(len(keys), np.bool_)
        for number in np.unique(volumes).tolist():
            table = self._state.volumes.get(number)
            if table is not None:
                mine = volumes == number
                pages = keys[mine] & 0xFFFF_FFFF
                inside = pages < page_count_for(table.track_count)
                counts = (
                    self._state.arena.counts[table.pages[np.where(inside, pages, 0)]]
                    if len(table.pages)
                    else 1
                )
                wanted[mine] = inside & (counts != 1)
        return keys[wanted]

    def _staged_through_ns(self, session: int, source: int) -> int:
        stage = self.session(session).sources.get(source)
        return stage.through_ns if stage else 0

    def _write(self, physicals: TrackNumbers, payload: memoryview) -> Unwritten | None:
        """Write payload; returns what the device did not take. On any other failure the tracks are free again."""
        try:
            return self._writer.write(physicals, payload)
        except BaseException:
            self._parts.state.allocator.give_back(physicals)
            raise

    def _part(
        self, records: RecordArray, physicals: TrackNumbers, unwritten: Unwritten
    ) -> tuple[RecordArray, TrackNumbers, Unstored]:
        """Return what can be staged, and what cannot: every entry of a track of which one could not be written."""
        has_data = entries_with_data(records)
        failed = np.zeros(len(has_data), np.bool_)
        failed[has_data] = unwritten.failed
        keys = entry_keys(records)
        waits = np.isin(keys, keys[failed])
        self._parts.state.allocator.give_back(physicals[waits[has_data]])
        unstored = Unstored(waits, int(entry_times(records)[waits][0]), str(unwritten.error))
        return select(records, ~waits), physicals[~waits[has_data]], unstored

    def _forget_pages(self) -> None:
        """Entries have gone: now and then, find out which pages the rest may create."""
        if not self._state.staged_record_count:
            self._reserved.clear()
        elif len(self._reserved) > self._reserved_count_max:
            self.recount_pages()
            self._reserved_count_max = max(_RESERVED_COUNT_MIN, 2 * len(self._reserved))


def _covered(first: NDArray[np.int64], counts: NDArray[np.uint32], page_count: int) -> NDArray[np.bool_]:
    """Return which of the first `page_count` pages of a volume are under runs of tracks."""
    change = np.zeros(page_count + 1, np.int32)
    last = (first + counts - 1) >> PAGE_SHIFT
    np.add.at(change, np.minimum(first >> PAGE_SHIFT, page_count), np.int32(1))
    np.add.at(change, np.minimum(last + 1, page_count), np.int32(-1))
    covered: NDArray[np.bool_] = np.cumsum(change[:-1]) > 0
    return covered


def _page_keys(records: RecordArray) -> NDArray[np.int64]:
    """Return volume << 32 | page index of all pages under `records`, ascending."""
    first = records["track"].astype(np.int64) >> PAGE_SHIFT
    last = (records["track"].astype(np.int64) + records["track_count"] - 1) >> PAGE_SHIFT
    keys: NDArray[np.int64] = np.unique(
        expand((records["volume"].astype(np.int64) << _KEY_PAGE_BITS) | first, last - first + 1)
    )
    return keys


def check_u64(**values: int) -> None:
    """Raise RefusedError when a value is not an unsigned 64-bit number."""
    for name, value in values.items():
        if not 0 <= value <= _TIME_NS_MAX:
            raise RefusedError(f"{name} {value} is not an unsigned 64-bit number", **{name: value})


def _refused(session: int, source: int, what: str) -> RefusedError:
    return RefusedError(
        f"session {session}, source {source}: {what}: nothing was staged; resend from what is staged",
        session=session,
        source=source,
    )
