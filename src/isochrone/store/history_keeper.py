"""The histories of an open pool: checks at the edge, changes in memory, and the log.

Each change is one record, or several of which a crash leaves all or none. A history is given up in bounded steps, oldest
first: by its window, as time goes by, and by whoever needs the space.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import ConflictError, NotFoundError, PoolFullError, RefusedError
from isochrone.model.records import RecordArray
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.arena import PAGE_SHIFT
from isochrone.store.documents import Documents
from isochrone.store.history import History, HistoryStats, KeptVolume
from isochrone.store.history_changes import (
    begin_history,
    changed_tracks,
    drop_history,
    end_volume,
    give_back,
    held_by_bases,
    release_history,
    rewind,
)
from isochrone.store.image_build import ImageBuild
from isochrone.store.log_records import (
    COUNT,
    SESSION,
    SESSION_TIME,
    SESSION_VOLUME,
    VOLUME_COPY,
    Part,
    RecordType,
    pack_pairs,
)
from isochrone.store.stager import Stager, check_u64
from isochrone.store.tables import VolumeTable
from isochrone.store.volume import Volume, VolumeParts
from isochrone.store.volume_set import VolumeSet, check_writable
from isochrone.store.written_since import Tracks, WrittenSince

HISTORY_STEP_RECORD_COUNT_MAX: Final = 1 << 15
"""Records that one step gives up, but for more of one time: about 15 ms."""
HISTORY_GIVE_UP_PART: Final = 8
"""When the pool is full, a step gives up at most this part of a history, so that no small need costs all of it."""
HISTORY_ENTRY_BYTES: Final = 24
HISTORY_TRACK_BYTES: Final = 4

VolumeImages = Generator[Callable[[], None], None, list[Volume]]
"""Blocking calls, as `Pool.sync` yields them; its result is the volumes made, in the order of their names' mapping."""
ChangedTracks = Mapping[int, NDArray[np.int64]]
"""By number of the volume: ascending tracks."""
Rewinding = Generator[Callable[[], None], None, ChangedTracks]


@dataclass(frozen=True, slots=True)
class HistoryReleased:
    """What a release gave up.

    Attributes:
        first_ns: the history begins here now.
        record_count: records that went.
        freed_track_count: tracks that nothing refers to any more, reusable after the next sync.
        is_done: everything asked for went; otherwise call again, soon when `record_count` is not 0, and else later: an image
            is being made of it.
    """

    first_ns: int
    record_count: int
    freed_track_count: int
    is_done: bool


@dataclass(frozen=True, slots=True)
class HistoryGivenUp:
    """History that went because the pool was full.

    Attributes:
        first_ns: the history began here.
        new_first_ns: it begins here now; None when all of it went.
        record_count: records that went.
    """

    session: int
    first_ns: int
    new_first_ns: int | None
    record_count: int


class HistoryKeeper:
    """Histories of one pool.

    Attributes:
        on_given_up: called when history had to go because the pool was full.
        given_up_record_count: records that went so.
    """

    def __init__(self, parts: VolumeParts, documents: Documents, stager: Stager, volumes: VolumeSet) -> None:
        self._parts = parts
        self._state = parts.state
        self._documents = documents
        self._volumes = volumes
        self._stager = stager
        self.on_given_up: Callable[[HistoryGivenUp], None] = _ignore
        self.given_up_record_count = 0

    def begin(self, session: int, numbers: Sequence[int], documents: Mapping[str, bytes | None]) -> None:
        """Keep what is committed of some volumes from now on; see `Pool.history_begin`."""
        self._parts.health.check()
        check_u64(session=session)
        history = self._state.histories.get(session)
        wanted = [n for n in dict.fromkeys(numbers) if history is None or history.current(n) is None]
        volumes = [self._volumes.volume(number) for number in wanted]
        for volume in volumes:
            check_writable(volume, "kept a history of")
        self._volumes.check_new([(volume.name, VolumeKind.BASE) for volume in volumes])
        self._volumes.check_sizes([(volume.size_bytes, 0) for volume in volumes])
        self._volumes.check_shared(wanted)
        self._documents.check(documents)
        self._volumes.reserve_shared(set(wanted))
        pairs = []
        parts: list[Part] = []
        for volume in volumes:
            base = self._state.volume_number_next
            self._volumes.add(self._state.copy_volume(volume.number, base, volume.name, VolumeKind.BASE))
            pairs.append((volume.number, base))
            parts.append(_copy(volume.number, base, VolumeKind.BASE, volume.name))
        if pairs:
            begin_history(self._state, session, pairs)
            parts.append((RecordType.HISTORY_BEGIN, SESSION.pack(session) + pack_pairs(pairs)))
        self._volumes.log_together(parts + self._documents.change(documents))

    def end(self, session: int, number: int) -> None:
        """A volume leaves; see `Pool.history_end`."""
        self._parts.health.check()
        history = self._state.histories.get(session)
        if history is not None and history.current(number) is not None:
            self._gone(end_volume(self._state, session, number))
            self._volumes.log_together([(RecordType.HISTORY_END, SESSION_VOLUME.pack(session, number))])

    def drop(self, session: int, documents: Mapping[str, bytes | None]) -> None:
        """Give a history up; see `Pool.history_drop`."""
        self._parts.health.check()
        self._documents.check(documents)
        parts: list[Part] = []
        if session in self._state.histories:
            self._gone(drop_history(self._state, session))
            parts.append((RecordType.HISTORY_DROP, SESSION.pack(session)))
        self._volumes.log_together(parts + self._documents.change(documents))

    def sessions(self) -> tuple[int, ...]:
        """Return the sessions that have a history."""
        return tuple(self._state.histories)

    def stats(self, session: int) -> HistoryStats | None:
        """Return a history in numbers; see `Pool.history`."""
        history = self._state.histories.get(session)
        if history is None:
            return None
        entries = history.entries
        return HistoryStats(
            history.first_ns,
            history.through_ns,
            entries.record_count,
            entries.entry_count,
            entries.track_count,
            entries.track_count * self._state.track_size_bytes,
            entries.record_count * HISTORY_ENTRY_BYTES + entries.track_count * HISTORY_TRACK_BYTES,
            tuple(replace(stay) for stay in history.volumes),
            history.rewound_ns,
        )

    def release(self, session: int, through_ns: int) -> HistoryReleased:
        """Give up the oldest history; see `Pool.history_release`."""
        self._parts.health.check()
        check_u64(session=session, through_ns=through_ns)
        history = self._history(session)
        through_ns = min(through_ns, history.through_ns)
        if history.pin_count:
            return HistoryReleased(history.first_ns, 0, 0, through_ns <= history.first_ns)
        reached_ns = _step_ns(history, through_ns, HISTORY_STEP_RECORD_COUNT_MAX)
        return replace(self._release(session, history, reached_ns), is_done=reached_ns == through_ns)

    def give_up_oldest(self) -> bool:
        """The pool is full: give up some of what was given up before, else of the history that begins first.

        Images that are being made of it fail. False when nothing is left that holds tracks.
        """
        if self._state.given_up.record_count:
            self.give_back()
            return True
        histories = sorted(self._state.histories.items(), key=lambda item: item[1].first_ns)
        return any(self._give_up(session, history) for session, history in histories)

    def _give_up(self, session: int, history: History) -> bool:
        """Give up a part of a history, or what it holds beside what volumes show; False when that is nothing."""
        first_ns, record_count = history.first_ns, history.entries.record_count
        if record_count:
            count = min(HISTORY_STEP_RECORD_COUNT_MAX, -(-record_count // HISTORY_GIVE_UP_PART))
            try:
                self._release(session, history, _step_ns(history, history.through_ns, count))
            except PoolFullError:  # table pages, which have no room in the file system: dropping needs none
                self._drop(session)
        elif held_by_bases(self._state, history):
            self._drop(session)
        else:
            return False
        gone = record_count - history.entries.record_count
        self.given_up_record_count += gone
        new_first_ns = history.first_ns if session in self._state.histories else None
        self.on_given_up(HistoryGivenUp(session, first_ns, new_first_ns, gone))
        return True

    def _drop(self, session: int) -> None:
        self._gone(drop_history(self._state, session))
        self._parts.log.append(RecordType.HISTORY_DROP, SESSION.pack(session))

    def give_back(self) -> int:
        """Drop the tracks of some of what was given up; return how many of them nothing refers to any more."""
        self._parts.health.check()
        count = min(self._state.given_up.record_count, HISTORY_STEP_RECORD_COUNT_MAX)
        if not count:
            return 0
        freed = give_back(self._state, count)
        self._parts.log.append(RecordType.HISTORY_GIVE_BACK, COUNT.pack(count))
        return freed

    def image(
        self,
        session: int,
        at_ns: int,
        names: Mapping[int, str],
        kind: VolumeKind,
        documents: Mapping[str, bytes | None],
    ) -> VolumeImages:
        """Make volumes that read as those of a session did at a time; see `Pool.history_image`."""
        self._check_image(session, at_ns, names, kind, documents)
        return self._image(session, at_ns, names, kind, documents)

    def _image(
        self,
        session: int,
        at_ns: int,
        names: Mapping[int, str],
        kind: VolumeKind,
        documents: Mapping[str, bytes | None],
    ) -> VolumeImages:
        stays = self._check_image(session, at_ns, names, kind, documents)
        build = ImageBuild(self._state, self._parts.reserve, session, at_ns, stays)
        try:
            yield from build.steps()
            self._check_image(session, at_ns, names, kind, documents)
        except BaseException:
            build.forget()
            raise
        build.take()
        parts: list[Part] = []
        for number, name in names.items():
            table = build.tables[number]
            table.name, table.kind = name, kind
            parts.append(_copy(stays[number].base, table.number, kind, name))
        parts.append(_image(session, at_ns, build))
        self._volumes.log_together(parts + self._documents.change(documents))
        return [self._volumes.add(build.tables[number]) for number in names]

    def rewind(self, session: int, at_ns: int, documents: Mapping[str, bytes | None]) -> Rewinding:
        """Make the volumes of a session what they were at a time; see `Pool.history_rewind`."""
        self._check_rewind(session, at_ns, documents)
        return self._rewind(session, at_ns, documents)

    def _check_rewind(
        self, session: int, at_ns: int, documents: Mapping[str, bytes | None]
    ) -> dict[int, KeptVolume]:
        self._parts.health.check()
        stays = self._history(session).volumes
        present = [stay.number for stay in stays if stay.until_ns is None and stay.from_ns <= at_ns]
        self._documents.check(documents)
        return self._stays(session, at_ns, present)

    def _rewind(self, session: int, at_ns: int, documents: Mapping[str, bytes | None]) -> Rewinding:
        stays = self._check_rewind(session, at_ns, documents)
        history = self._history(session)
        numbers = {stay.base: stay.number for stay in history.volumes if stay.number in stays}
        written = WrittenSince(history.entries, at_ns, numbers)
        build = ImageBuild(self._state, self._parts.reserve, session, at_ns, stays)
        try:
            yield from build.steps()
            yield from written.steps(build.check_bases)
            if self._check_rewind(session, at_ns, documents) != stays:
                raise ConflictError(
                    "volumes left or joined while a session was being rewound: try again", session=session
                )
            self._volumes.reserve_shared(set(stays))
            changed = self._changed_since(written.found, build.tables)
        except BaseException:
            build.forget()
            raise
        build.take()
        parts = [
            _copy(stays[number].base, table.number, VolumeKind.BASE, "")
            for number, table in build.tables.items()
        ]
        parts.append(_image(session, at_ns, build))
        pairs = [(table.number, number) for number, table in build.tables.items()]
        parts.append((RecordType.HISTORY_REWIND, SESSION_TIME.pack(session, at_ns) + pack_pairs(pairs)))
        rewind(self._state, session, at_ns, pairs)
        for number in stays:
            self._volumes.volume(number).refresh()
        self._volumes.log_together(parts + self._documents.change(documents))
        return changed

    def _release(self, session: int, history: History, through_ns: int) -> HistoryReleased:
        record_count = history.entries.record_count
        pages = self._count_pages_to_own(history, through_ns)
        if pages:
            self._parts.reserve(0, pages)
        done, gone = release_history(self._state, session, through_ns)
        self._gone(gone)
        self._parts.log.append(RecordType.HISTORY_RELEASE, SESSION_TIME.pack(session, through_ns))
        return HistoryReleased(
            history.first_ns, record_count - history.entries.record_count, done.freed, is_done=True
        )

    def _count_pages_to_own(self, history: History, through_ns: int) -> int:
        """Return at most how many table pages linking up to a time into the bases makes."""
        pages: set[int] = set()
        for chunk in history.entries.through(through_ns):
            if self._may_create_pages(chunk.records):
                pages.update(self._stager.pages_to_create(chunk.records).tolist())
        return len(pages)

    def _may_create_pages(self, records: RecordArray) -> bool:
        """Whether linking may need pages: quickly, as a rule no."""
        counts = self._state.arena.counts
        bases = np.unique(records["volume"]).tolist()
        for base in bases:
            mine = records if len(bases) == 1 else records[records["volume"] == base]
            table = self._state.volumes.get(base)
            first = mine["track"] >> PAGE_SHIFT
            last = (mine["track"] + mine["track_count"] - 1) >> PAGE_SHIFT
            if table is None or int((last - first).max()) > 1:
                return True
            if (counts[table.pages[first]] != 1).any() or (counts[table.pages[last]] != 1).any():
                return True
        return False

    def _changed_since(
        self, written: Mapping[int, list[Tracks]], images: Mapping[int, VolumeTable]
    ) -> ChangedTracks:
        """Return the tracks that differ from the images, and those that history says were written since."""
        return {
            number: np.unique(
                np.concatenate(
                    [changed_tracks(self._state, self._state.volumes[number], image), *written[number]]
                )
            )
            for number, image in images.items()
        }

    def _check_image(
        self,
        session: int,
        at_ns: int,
        names: Mapping[int, str],
        kind: VolumeKind,
        documents: Mapping[str, bytes | None],
    ) -> dict[int, KeptVolume]:
        """Return the stays that are asked for; raise what `Pool.history_image` does."""
        self._parts.health.check()
        stays = self._stays(session, at_ns, names)
        self._volumes.check_new([(name, kind) for name in names.values()])
        bases = [stay.base for stay in stays.values()]
        self._volumes.check_sizes([(self._state.volumes[base].size_bytes, 0) for base in bases])
        self._volumes.check_shared(bases)
        self._documents.check(documents)
        return stays

    def _history(self, session: int) -> History:
        history = self._state.histories.get(session)
        if history is None:
            raise NotFoundError(f"session {session} has no history", session=session)
        return history

    def _stays(
        self, session: int, at_ns: int, numbers: Sequence[int] | Mapping[int, str]
    ) -> dict[int, KeptVolume]:
        """Return the stays that a time lies in; RefusedError when there is no image of it."""
        history = self._history(session)
        if not history.first_ns <= at_ns <= history.through_ns:
            raise RefusedError(
                f"there is no image of {at_ns}: the history goes from {history.first_ns} to {history.through_ns}",
                session=session,
                at_ns=at_ns,
                first_ns=history.first_ns,
                through_ns=history.through_ns,
            )
        stays = {number: history.covering(number, at_ns) for number in numbers}
        missing = [number for number, stay in stays.items() if stay is None]
        if missing:
            raise RefusedError(
                f"the history has no image of volume number {missing[0]} at {at_ns}: it was not kept then",
                session=session,
                at_ns=at_ns,
                number=missing[0],
            )
        return {number: stay for number, stay in stays.items() if stay is not None}

    def _gone(self, bases: Sequence[int]) -> None:
        for base in bases:
            self._volumes.forget(base)


def _step_ns(history: History, through_ns: int, record_count: int) -> int:
    """Return the time up to which a step goes: `record_count` records, or more of one time, none behind `through_ns`."""
    if history.entries.record_count <= record_count:
        return through_ns
    return min(through_ns, history.entries.time_of(record_count))


def _ignore(_: HistoryGivenUp) -> None:
    """Nobody wants to be told."""


def _copy(source: int, number: int, kind: VolumeKind, name: str) -> Part:
    return RecordType.VOLUME_COPY, VOLUME_COPY.pack(source, number, kind) + name.encode()


def _image(session: int, at_ns: int, build: ImageBuild) -> Part:
    payload = SESSION_TIME.pack(session, at_ns) + pack_pairs(build.targets.items())
    return RecordType.HISTORY_IMAGE, payload
