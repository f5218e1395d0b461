"""The pool: one folder of tracks and metadata, opened by one process.

Single-threaded and synchronous, but for the callables that `sync` and `checkpoint` yield: those block, and
may run in a thread while the pool goes on. Nothing in here knows the time or an event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from uuid import UUID

from isochrone.model.errors import DamagedError, PoolFullError
from isochrone.model.records import RecordArray
from isochrone.model.sizes import TRACK_SIZE_DEFAULT_BYTES
from isochrone.store.checkpoint import CheckpointFiles
from isochrone.store.checkpointer import Checkpointer
from isochrone.store.create import create_pool
from isochrone.store.disk import Buffer, Disk, File
from isochrone.store.documents import Documents
from isochrone.store.durability import Durability, Steps
from isochrone.store.head import Trouble
from isochrone.store.health import Health
from isochrone.store.history_keeper import HistoryKeeper
from isochrone.store.log import Log
from isochrone.store.page_slots import PAGES_NAME, PageSlots
from isochrone.store.parts import open_part
from isochrone.store.pool_copies import PoolCopies
from isochrone.store.pool_histories import PoolHistories
from isochrone.store.recovery import Recovered, recover
from isochrone.store.room import Room
from isochrone.store.stager import Stager
from isochrone.store.staging import Staged
from isochrone.store.state import CommitResult
from isochrone.store.stats import PoolStats
from isochrone.store.verify import verify_state
from isochrone.store.volume import Volume, VolumeParts
from isochrone.store.volume_set import VolumeSet


class Pool(PoolCopies, PoolHistories):
    """An open pool.

    Attributes:
        uuid: as text with dashes.
        track_count: physical tracks.
        reopened_after_loss: what was not synced may be gone: the machine was restarted while the pool was
            open, or the device had failed to make writes durable. Told at every open until `settle_loss`.
        opening_note: what an operator should know of how the pool was found, None when all is as it was left.
        replayed_count: log records applied when it was opened.
    """

    def __init__(self, disk: Disk, recovered: Recovered) -> None:
        """Use `Pool.open`."""
        superblock = recovered.superblock
        self._disk = disk
        self._superblock = superblock
        self._state = recovered.state
        self._tracks = open_part(disk, superblock.tracks_path)
        self._pages = open_part(disk, PAGES_NAME)
        self._slots = PageSlots(self._pages, preallocate=superblock.preallocate)
        self._slots.load(recovered.root.pages, recovered.root.slots, recovered.root.checksums)
        self._log = Log(disk, superblock)
        self._health = Health(self._log.head.note_failed_datasync)
        self._durability = Durability(self._log, self._tracks, self._state, self._health, self.log_write)
        self._room = Room(
            self._state,
            self._slots,
            self._durability,
            lambda: self.stager.reserved_page_count,
            lambda: self._histories.give_up_oldest(),
        )
        self._is_closed = False
        self._parts = VolumeParts(
            self._state,
            self._tracks,
            self._log,
            self._health,
            self._room.reserve,
            self._durability.sync_inline,
        )
        self._documents = Documents(self._state.documents, self._log)
        self.stager = Stager(self._parts)
        self._volumes = VolumeSet(self._parts, self._documents, self.stager, self.log_write)
        self._histories = HistoryKeeper(self._parts, self._documents, self.stager, self._volumes)
        self._checkpointer = Checkpointer(
            CheckpointFiles(disk, self._tracks, self._pages, recovered.history_files),
            superblock,
            self._health,
            self._state,
            self._slots,
            self._log,
            lambda: self.stager.reserved_page_count,
        )
        self.uuid = str(UUID(bytes=superblock.uuid))
        self.track_size_bytes = superblock.track_size_bytes
        self.track_count = superblock.track_count
        self.reopened_after_loss = recovered.loss is not None or Trouble.LOSS_UNTOLD in recovered.trouble
        self.opening_note = _opening_note(recovered)
        self.replayed_count = recovered.replayed_count

    @staticmethod
    def create(
        disk: Disk,
        *,
        size_bytes: int,
        track_size_bytes: int = TRACK_SIZE_DEFAULT_BYTES,
        preallocate: bool = True,
        tracks_path: str | None = None,
        log_segment_size_bytes: int | None = None,
    ) -> None:
        """Make an empty pool in the folder (see `create_pool`)."""
        create_pool(
            disk,
            size_bytes=size_bytes,
            track_size_bytes=track_size_bytes,
            preallocate=preallocate,
            tracks_path=tracks_path,
            log_segment_size_bytes=log_segment_size_bytes,
        )

    @staticmethod
    def open(disk: Disk) -> Pool:
        """Lock the folder, load root and log, and make what they say durable before anything else happens.

        A loss that is found stays on record until `settle_loss`, so that no kill in between can hide it. The
        record of a failed datasync is replaced by that when the recovered state is durable.

        Raises:
            BusyError: another process has it.
            NotFoundError, RefusedError, DamagedError: see `recover`.
            OSError: the disk failed.
        """
        disk.lock()
        recovered = recover(disk)
        pool = Pool(disk, recovered)
        head = pool._log.head
        try:
            if recovered.loss is not None:
                head.add_trouble(Trouble.LOSS_UNTOLD)
            pool._checkpointer.begin(recovered.next_generation, recovered.next_sequence)
            head.clear_trouble(Trouble.CACHE_LOST)
        except BaseException:
            pool._close_files()
            raise
        return pool

    def settle_loss(self) -> None:
        """The consequences of `reopened_after_loss` have been drawn, as surely as a store in shared memory is."""
        self._log.head.clear_trouble(Trouble.LOSS_UNTOLD)

    @property
    def volumes(self) -> Mapping[str, Volume]:
        """Volumes by name, but for hidden ones."""
        return MappingProxyType(self._volumes.by_name)

    def volume_by_number(self, number: int) -> Volume:
        """Return the volume with a number, also a hidden one; NotFoundError when there is none."""
        return self._volumes.volume(number)

    def create_volume(self, name: str, size_bytes: int) -> Volume:
        """Add an empty volume; a positive multiple of the track size. Logged and written at once.

        Raises:
            RefusedError: name or size is not usable.
            ConflictError: the name is taken.
            BusyError: a limit of the pool is reached.
        """
        return self._volumes.create(name, size_bytes)

    def resize_volume(self, name: str, size_bytes: int) -> None:
        """Give a volume another size; what lies beyond it is gone. Logged and written at once.

        Raises:
            NotFoundError, RefusedError, BusyError: as `create_volume`; a snapshot is refused.
            PoolFullError: a shared table page must be copied and there is no room.
        """
        self._volumes.resize(name, size_bytes)

    @property
    def documents(self) -> Mapping[str, bytes]:
        """Small named values."""
        return MappingProxyType(self._documents.values)

    def put_document(self, key: str, value: bytes) -> None:
        """Store a small value under a key, ordered with everything else in the log; durable as that is.

        Raises:
            RefusedError: key or value is too long, or the key is empty.
            BusyError: a limit of the pool is reached.
        """
        self._health.check()
        self._documents.put(key, value)

    def delete_document(self, key: str) -> None:
        """Remove a document; NotFoundError when there is none."""
        self._health.check()
        self._documents.delete(key)

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
        """Store records once, on fresh tracks, to be linked by `commit`; nothing is visible in a volume yet.

        Tracks that the device cannot write, anywhere, are told in the result; all others are staged, and the source
        counts as staged up to the time before the oldest that was not.

        Args:
            session: any unsigned 64-bit number.
            source: the controller they come from; volumes of different sources are different.
            through_ns: promise of the source: all its records up to it have been staged now, or wait.
            records: shape (n,), RECORD_DTYPE, `volume` a number of this pool, times non-decreasing and after what
                counts as staged; may be empty.
            payload: images of the DATA records' tracks, back to back.
            before_ns: time of the oldest record of the source that the caller keeps because it could not be staged.

        Raises:
            RefusedError: the records are not usable.
            PoolFullError: no room; BusyError: a limit is reached. In all cases nothing was changed.
        """
        return self.stager.stage(session, source, through_ns, records, payload, before_ns=before_ns)

    def staged_through_ns(self, session: int, source: int) -> int:
        """Return the last `through_ns` staged, 0 when there is none."""
        stage = self.stager.session(session).sources.get(source)
        return stage.through_ns if stage else 0

    def staged_count(self, session: int) -> int:
        """Return how many track entries wait for a commit."""
        return self.stager.session(session).entry_count

    def staged_bytes(self, session: int) -> int:
        """Return how many bytes of tracks they hold."""
        return self.stager.session(session).track_count * self.track_size_bytes

    def commit(self, session: int, through_ns: int) -> CommitResult:
        """Link all staged entries with time <= through_ns into the tables, at once; the last of a track wins.

        Replaced and superseded tracks are freed. Entries beyond a volume that was deleted or shrunk meanwhile
        are dropped. Needs no free space: `stage` has reserved it.
        """
        return self.stager.commit(session, through_ns)

    def committed_through_ns(self, session: int) -> int:
        """Return the last time committed, 0 when there is none."""
        return self.stager.session(session).committed_through_ns

    def discard(self, session: int, after_ns: int) -> int:
        """Drop staged entries with time > after_ns; no source has then staged more than that. Returns their
        number.
        """
        return self.stager.discard(session, after_ns)

    def discard_source(self, session: int, source: int, after_ns: int) -> int:
        """Drop what `source` has staged with time > after_ns: it will send that again. Returns their number."""
        return self.stager.discard_source(session, source, after_ns)

    def discard_volume(self, session: int, number: int) -> int:
        """Drop all staged entries of volume `number`: it leaves the session as it was committed. Returns their number."""
        return self.stager.discard_volume(session, number)

    def compact(self, session: int, after_ns: int, through_ns: int) -> int:
        """Drop staged entries that a later staged entry of the same track supersedes; return how many tracks.

        For a session whose next commit is surely past `through_ns`: no image between `after_ns` and then will be
        wanted. Entries up to `after_ns` stay as they are.
        """
        return self.stager.compact(session, after_ns, through_ns)

    def end_session(self, session: int) -> None:
        """Forget a session: staged entries, staged and committed times. Nothing happens when it is unknown."""
        self.stager.end_session(session)

    def log_write(self) -> None:
        """Bring everything logged so far to the log file: from then on it survives the death of the process.

        Raises:
            PoolReadOnlyError: the pool takes no writes.
            OSError: the device failed; the pool takes no writes from now on.
        """
        if not self._log.has_pending:
            return
        if self._log.fits():
            self._health.run("writing the log", self._log.write)
        else:
            self._health.check()
            self._checkpointer.make_room()

    def make_durable(self, file: File) -> None:
        """Make a file beside the pool durable, blocking, in any thread; when that fails the pool takes no more writes.

        Raises PoolReadOnlyError, or the OSError.
        """
        self._health.datasync(file, "making marks durable")

    def sync(self) -> Steps:
        """Yield blocking calls after which everything written and logged before the first is durable.

        The driver makes each call, in any thread, and throws into the generator what a call raises; the pool
        is then read-only. Tracks freed before the first call are free when the generator ends.
        """
        if self._health.reason is None:
            self._histories.give_back()
        return self._durability.sync()

    def checkpoint(self) -> Steps:
        """Yield blocking calls, as `sync` does, that write the state of now; the log before it is free after
        them.

        PoolFullError from a call, or from the generator: there is no room for it now. The pool goes on; try again later.
        """
        self._health.check()
        if self._checkpointer.running is None:
            self.log_write()
        yield from self._checkpointer.steps()

    @property
    def checkpoint_due(self) -> bool:
        """Whether the log is long enough for a checkpoint, and none is under way."""
        return self._checkpointer.running is None and self._log.is_checkpoint_due

    @property
    def checkpoint_waits_because(self) -> str | None:
        """Why a checkpoint waits for room, None when none does; `checkpoint` goes on with it."""
        return self._checkpointer.waits_because

    @property
    def read_only_reason(self) -> str | None:
        """Why the pool takes no writes, None while it does."""
        return self._health.reason

    @property
    def free_track_count(self) -> int:
        """Tracks that can be allocated at once."""
        return self._state.allocator.free_count

    @property
    def available_track_count(self) -> int:
        """Tracks that can be had: free or pending ones, and at most how many more by giving history up."""
        allocator = self._state.allocator
        return allocator.free_count + allocator.pending_count + self._state.kept_track_count

    @property
    def used_track_count(self) -> int:
        """Tracks that volumes, staged entries or histories refer to."""
        return self._state.allocator.used_count

    @property
    def pending_free_count(self) -> int:
        """Tracks that become free with the next sync, and at most how many more that were given up, with those after it."""
        return self._state.allocator.pending_count + self._state.given_up.track_count

    def stats(self) -> PoolStats:
        """Return the pool in numbers."""
        state = self._state
        return PoolStats(
            track_size_bytes=self.track_size_bytes,
            track_count=self.track_count,
            used_track_count=self.used_track_count,
            free_track_count=self.free_track_count,
            pending_free_count=state.allocator.pending_count,
            quarantined_track_count=state.allocator.quarantined_count,
            staged_track_count=state.staged_track_count,
            history_track_count=state.kept_track_count,
            history_record_count=sum(history.entries.record_count for history in state.histories.values()),
            history_given_up_record_count=self._histories.given_up_record_count,
            mapped_track_count=sum(table.mapped_track_count for table in state.volumes.values()),
            volume_count=sum(not table.kind.is_hidden for table in state.volumes.values()),
            table_page_count=state.arena.live_count,
            metadata_bytes=state.allocator.size_bytes() + state.arena.size_bytes(),
            log_segment_size_bytes=self._superblock.log_segment_size_bytes,
            log_used_bytes=self._log.used_bytes,
            sync_count=self._durability.count,
            checkpoint_count=self._checkpointer.count,
            read_only_reason=self.read_only_reason,
            checkpoint_waits_because=self.checkpoint_waits_because,
        )

    def verify(self) -> None:
        """Recompute all that is kept by adding up, and compare; DamagedError that names what differs."""
        findings = verify_state(self._state)
        if findings:
            raise DamagedError("the pool contradicts itself: " + "; ".join(findings), findings=findings)

    def reserve(self, track_count: int, page_count: int) -> None:
        """Make sure that tracks, and table pages beside those that staged entries need, can be taken now.

        When there are too few free tracks the oldest history is given up, in steps, and pending tracks are made free by a
        sync, inline.

        Raises:
            PoolFullError: there are not enough, also without any history; what volumes show was not changed.
        """
        self._room.reserve(track_count, page_count)

    def make_room(self, track_count: int) -> bool:
        """Give up the oldest history until so many tracks are free, or will be after a sync; False when that fails."""
        return self._room.make(track_count)

    def close(self) -> None:
        """Make everything durable, write a last checkpoint, and give folder and files back. May be called
        again.

        A pool that turned read-only is closed as it is; one that has no room for a checkpoint, without it. Raises
        what the last sync or checkpoint raises, after closing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._health.reason is None:
                self._durability.sync_inline()
                with suppress(PoolFullError):  # the log says it all, and the next open reads it
                    self._checkpointer.end()
        finally:
            self._close_files()
            self._disk.close()

    def _close_files(self) -> None:
        self._log.close()
        self._tracks.close()
        self._pages.close()


def _opening_note(recovered: Recovered) -> str | None:
    """Return in one sentence what was lost, and why; None when nothing was."""
    if recovered.loss is not None:
        cut = f"; left out: {recovered.cut}" if recovered.cut else ""
        return f"{recovered.loss}: writes that were not flushed may be gone{cut}"
    if Trouble.LOSS_UNTOLD in recovered.trouble:
        return "an earlier start found that writes which were not flushed may be gone, and was cut short"
    return None
