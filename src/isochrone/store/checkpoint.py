"""A checkpoint: the state at one moment made durable beside the last one, while the pool goes on.

Situation: the log cannot grow for ever, and replaying it takes time; but the tables of a big pool are too big
to write at once, and writes must not wait. So a checkpoint copies in memory what changed since the last one
(a snapshot, the only part that stops the pool), moves the log to its other segment, and leaves the rest to
blocking steps that may run in a thread while the pool goes on:

1. tracks durable: the root must not point at data that a power loss can take away;
2. changed pages to free slots, durable;
3. history of which there is much to a file of its own, durable with its name;
4. the root with everything else to `root.new`, durable, renamed to `root`, the name durable;
5. files of history that nobody wants removed;
6. room for the next `root.new`.

A crash before the rename is durable leaves the old root with both log segments, after it the new root with
the second. Steps run once each, whoever comes first: when the log fills up before a checkpoint has finished,
the pool runs what is left of it inline, waiting for a step that is under way in the thread.

Everything up to the rename is written aside. So where the file system has no room for it, nothing is lost and nothing
has failed: the old root and both segments say all there is, the step is not done, and the whole of it may be made again
later. That is so for writes alone. A datasync that fails, and a rename, leave it open what is stored: they end writing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import PoolFullError
from isochrone.store.arena import PAGE_ENTRY_COUNT
from isochrone.store.disk import Disk, File
from isochrone.store.health import Health
from isochrone.store.history import History
from isochrone.store.history_files import HistoryFiles
from isochrone.store.kept_entries import KeptEntries
from isochrone.store.page_slots import PAGE_SIZE_BYTES, PageSlots
from isochrone.store.root import (
    ROOT_NAME,
    ROOT_NEW_NAME,
    PieceRun,
    Root,
    RootEntries,
    RootHistory,
    RootVolume,
    encode_root,
)
from isochrone.store.runs import neighbours
from isochrone.store.staging import SessionStage, SourceStage
from isochrone.store.state import PoolState
from isochrone.store.superblock import Superblock

_ROOT_SIZE_MIN_BYTES: Final = 64 << 10
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files that a checkpoint writes."""

    disk: Disk
    tracks: File
    pages: File
    history: HistoryFiles


class Checkpoint:
    """One checkpoint under way.

    Attributes:
        first_sequence: log records before it are part of the checkpoint.
        steps: blocking calls, to be made in order; each does its work once, however often it is called. PoolFullError
            from one: there is no room; it is not done, nothing else has changed, and it may be called again.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        superblock: Superblock,
        health: Health,
        state: PoolState,
        slots: PageSlots,
        *,
        generation: int,
        first_sequence: int,
        is_clean: bool,
    ) -> None:
        """Take the snapshot. `generation` and `first_sequence` say where the log goes on behind it."""
        self._files = files
        self._superblock = superblock
        self._health = health
        self._slots = slots
        self.first_sequence = first_sequence
        arena = state.arena
        live = arena.live()
        self._pages = np.flatnonzero(live & (arena.dirty[: arena.top] != 0))
        self._entries = arena.pages(self._pages)
        arena.dirty[: arena.top] = 0
        self._new_slots = slots.take(len(self._pages))
        self._new_checksums = np.zeros(len(self._pages), np.uint64)
        self._retired = slots.retired(live)
        self._live = np.flatnonzero(live).astype(np.uint32)
        self._directory = slots.directory(arena.top)
        self._sealing = files.history.seal(state)
        self._named_files = dict(files.history.known)
        self._root = snapshot_root(state, generation, first_sequence, is_clean=is_clean)
        self._log_file: File | None = None
        self._lock = Lock()
        self._done = 0
        sealing = self._sealing
        work = [
            self._sync_tracks,
            self._write_pages,
            *([self._write_history] if sealing.new else []),
            self._write_root,
            *([self._remove_history] if sealing.gone else []),
            self._reserve_root,
        ]
        self.steps = [partial(self._once, index, call) for index, call in enumerate(work)]
        self.root_size_bytes = 0

    @property
    def page_count(self) -> int:
        """Pages that it writes."""
        return len(self._pages)

    def run(self) -> None:
        """Make all steps that are not done yet."""
        for step in self.steps:
            step()

    def go_on_behind(self, first_sequence: int, log_file: File) -> None:
        """Records before `first_sequence`, in `log_file`, are part of the snapshot although they were written after it.

        They must be durable before a root says so: the log is then read from them on.
        """
        self.first_sequence = first_sequence
        self._root = replace(self._root, first_sequence=first_sequence)
        self._log_file = log_file

    def finish(self) -> None:
        """All steps are done: slots of the old root are free, the new ones known, and sealed history leaves memory."""
        self._files.history.finish(self._sealing)
        self._slots.finish(self._pages, self._new_slots, self._new_checksums, self._retired, len(self._live))

    def _once(self, index: int, call: Callable[[], None]) -> None:
        with self._lock:
            if self._done != index:
                return
            self._health.check()
            try:
                call()
            except PoolFullError:
                raise
            except Exception as error:
                self._health.fail("the checkpoint", error)
                raise
            self._done = index + 1

    def _sync_tracks(self) -> None:
        self._health.datasync(self._files.tracks, "making tracks durable")

    def _write_pages(self) -> None:
        data = self._entries.astype("<u4", copy=False).reshape(-1).data.cast("B")
        for index in range(len(self._pages)):
            start = index * PAGE_SIZE_BYTES
            self._new_checksums[index] = xxh3_64_intdigest(data[start : start + PAGE_SIZE_BYTES])
        for start, stop in neighbours(self._new_slots):
            piece = data[start * PAGE_SIZE_BYTES : stop * PAGE_SIZE_BYTES]
            with _needing_room("table pages"):
                self._files.pages.pwrite(piece, int(self._new_slots[start]) * PAGE_SIZE_BYTES)
        if len(data):
            self._health.datasync(self._files.pages, "making table pages durable")
        self._entries = np.empty((0, PAGE_ENTRY_COUNT), np.uint32)

    def _write_history(self) -> None:
        """Write what was sealed; the root names it."""
        for sealed, pieces in self._sealing.new:
            with _needing_room("sealed history"):
                file = self._files.history.create(sealed)
            try:
                with _needing_room("sealed history"):
                    sealed.write(file, [piece.chunk for piece in pieces])
                self._health.datasync(file, "making sealed history durable")
            finally:
                file.close()
        self._health.make_durable("making the names of sealed history durable", self._files.disk.sync)

    def _remove_history(self) -> None:
        """Remove files of history that no root names any more."""
        self._files.history.remove(self._sealing)

    def _write_root(self) -> None:
        disk = self._files.disk
        data = encode_root(self._with_directory(), self._superblock.uuid)
        if self._log_file is not None:
            self._health.datasync(self._log_file, "making the log durable")
        with _needing_room("the root"):
            file = disk.open(ROOT_NEW_NAME, create=True)
        try:
            with _needing_room("the root"):
                file.pwrite(data, 0)
            self._health.make_durable("making the root durable", file.datasync)
        finally:
            file.close()
        disk.rename(ROOT_NEW_NAME, ROOT_NAME)
        self._health.make_durable("making the root's name durable", disk.sync)
        self.root_size_bytes = len(data)

    def _reserve_root(self) -> None:
        """Have room for the next root; where there is none, that one waits for it as any write of a checkpoint does."""
        if self._superblock.preallocate:
            with suppress(PoolFullError), _needing_room("the next root"):
                reserve_root(self._files.disk, self.root_size_bytes)

    def _with_directory(self) -> Root:
        slots, checksums = self._directory
        slots[self._pages] = self._new_slots
        checksums[self._pages] = self._new_checksums
        root = self._root
        return Root(
            root.generation,
            root.first_sequence,
            root.is_clean,
            root.volume_number_next,
            root.volumes,
            self._live,
            slots[self._live],
            checksums[self._live],
            root.documents,
            root.sessions,
            root.histories,
            root.given_up,
            root.unfinished,
            [(number, file.checksum) for number, file in sorted(self._named_files.items())],
        )


@contextmanager
def _needing_room(what: str) -> Iterator[None]:
    """Turn an error that says that the file system is full into PoolFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise PoolFullError(
            f"the file system below the pool has no room for {what} of a checkpoint ({error}): make room there"
        ) from error


def snapshot_root(state: PoolState, generation: int, first_sequence: int, *, is_clean: bool) -> Root:
    """Return what a root says of `state` now, but for the page directory."""
    volumes = []
    for table in state.volumes.values():
        used = table.used()
        volumes.append(
            RootVolume(
                table.number,
                table.name,
                table.size_bytes,
                table.kind,
                table.repeat_count_max,
                used.indexes,
                used.numbers,
            )
        )
    sessions = {
        session: SessionStage(
            stage.committed_through_ns,
            {
                key: SourceStage(source.through_ns, list(source.chunks))
                for key, source in stage.sources.items()
            },
        )
        for session, stage in state.sessions.items()
    }
    none: NDArray[np.uint32] = np.empty(0, np.uint32)
    return Root(
        generation,
        first_sequence,
        is_clean,
        state.volume_number_next,
        volumes,
        none,
        none,
        np.empty(0, np.uint64),
        dict(state.documents),
        sessions,
        [_root_history(session, history) for session, history in state.histories.items()],
        _root_entries(state.given_up),
        sorted(state.unfinished),
        [],
    )


def _root_history(session: int, history: History) -> RootHistory:
    stays = [replace(stay) for stay in history.volumes]
    entries = _root_entries(history.entries)
    return RootHistory(session, history.first_ns, history.through_ns, history.rewound_ns, stays, entries)


def _root_entries(entries: KeptEntries) -> RootEntries:
    """Return places of sealed pieces as runs, and the others as they are; what is in memory is not copied."""
    items: RootEntries = []
    for piece in entries.pieces:
        if piece.place is None:
            items.append(piece.chunk)
            continue
        file, place = piece.place[0].number, piece.place[1]
        last = items[-1] if items else None
        if isinstance(last, PieceRun) and (last.file, last.first + last.piece_count) == (file, place):
            items[-1] = last._replace(piece_count=last.piece_count + 1)
        else:
            items.append(PieceRun(file, place, 1))
    return items


def reserve_root(disk: Disk, root_size_bytes: int) -> None:
    """Give `root.new` real space for twice the present root."""
    file = disk.open(ROOT_NEW_NAME, create=True)
    try:
        file.allocate(max(_ROOT_SIZE_MIN_BYTES, 2 * root_size_bytes))
    finally:
        file.close()
