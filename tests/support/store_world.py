"""A pool on a simulated disk beside its model: every operation on both, crashes anywhere.

`StoreWorld` performs operations. Its disk may be told to crash at its n-th operation from now on, wherever
that falls: in a write, a log write, a sync, a checkpoint; or to fail its n-th operation of some kind.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from errno import EIO, ENOSPC
from random import Random
from typing import TypeVar

import numpy as np

from isochrone.model.errors import NotFoundError, PoolFullError, PoolReadOnlyError
from isochrone.model.records import RECORD_DTYPE, RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.check import check_pool
from isochrone.store.page_slots import PAGES_NAME
from isochrone.store.pool import Pool
from isochrone.store.root import ROOT_NEW_NAME
from isochrone.testing.sim_disk import Hook, Operation, SimDisk, SimulatedCrash, crash_nth, fail_nth
from isochrone.testing.store_model import StoreModel
from isochrone.testing.store_states import HistoryPicture, Picture, SessionPicture, VolumePicture

TRACK = 4096
POOL_TRACK_COUNT = 24
"""Few, so that tracks are soon used again and the pool is now and then full."""
SESSIONS = (1, 2)
SOURCES = (0, 1)
"""A volume's records come from source `volume number % 2`: a volume has one primary."""

ERRORS = {"datasync": EIO, "sync": EIO, "write": EIO, "allocate": ENOSPC}
"""What the device may fail, and how."""

T = TypeVar("T")
Durable = Generator[Callable[[], None], None, None]


def picture_of(pool: Pool) -> Picture:
    """What the pool shows through its public methods."""
    return Picture(
        volumes={
            volume.number: VolumePicture(
                name,
                volume.size_bytes,
                frozenset(np.flatnonzero(volume.mapped()).tolist()),
                volume.read(0, volume.size_bytes),
                volume.kind,
            )
            for name, volume in pool.volumes.items()
        },
        documents={key: bytes(value) for key, value in pool.documents.items()},
        sessions={
            session: SessionPicture(
                pool.staged_count(session),
                {source: pool.staged_through_ns(session, source) for source in SOURCES},
                pool.committed_through_ns(session),
            )
            for session in SESSIONS
        },
        used_track_count=pool.used_track_count,
        histories={session: picture_of_history(pool, session) for session in pool.histories},
    )


def picture_of_history(pool: Pool, session: int) -> HistoryPicture:
    """What the pool shows of the past of a session."""
    stats = pool.history(session)
    assert stats is not None
    stays = tuple((stay.number, stay.from_ns, stay.until_ns) for stay in stats.volumes)
    return HistoryPicture(
        stats.first_ns, stats.through_ns, stats.rewound_ns, stays, stats.entry_count, stats.track_count
    )


class StoreWorld:
    """One pool through many lives."""

    pool_track_count = POOL_TRACK_COUNT

    def __init__(self, seed: int = 0) -> None:
        self.disk = SimDisk(seed=seed)
        self.rng = Random(seed)
        self.model = self._make_model()
        self.tag = 0
        self.time_ns = 0
        self.crash_is_power_loss = False
        self.open_count = 0
        self.full_count = 0
        self.no_room_count = 0
        self.crash_count = 0
        self.error_count = 0
        self._creating: tuple[list[str], Callable[[list[int]], None]] | None = None
        self._is_closing = False
        self._datasync_failed = False
        self._sync: Durable | None = None
        self._sync_call: Callable[[], None] | None = None
        self._checkpoint: Durable | None = None
        self._checkpoint_call: Callable[[], None] | None = None
        Pool.create(self.disk, size_bytes=self.pool_track_count * TRACK)
        self._open()

    def _make_model(self) -> StoreModel:
        return StoreModel(TRACK)

    # Operations

    def numbers(self) -> list[int]:
        """Numbers of the volumes there are."""
        return sorted(self.model.state.volumes)

    def writable_numbers(self) -> list[int]:
        """Numbers of the volumes that take writes."""
        volumes = self.model.state.volumes
        return [number for number in self.numbers() if volumes[number].kind is not VolumeKind.SNAPSHOT]

    def new_bytes(self, length: int) -> bytes:
        """Bytes that were never written before and differ in every sector."""
        self.tag += 1
        words = np.arange(length // 4 + 1, dtype="<u4") + np.uint32(self.tag << 16)
        return words.tobytes()[:length]

    def create_volume(self, name: str, size_bytes: int) -> None:
        self._create(
            [name],
            lambda numbers: self.model.create_volume(numbers[0], name, size_bytes),
            lambda: [self.pool.create_volume(name, size_bytes).number],
        )

    def copy_volume(self, source: int, name: str) -> None:
        origin = self.model.state.volumes[source].name
        self._create(
            [name],
            lambda numbers: self.model.copy_volume(source, numbers[0], name),
            lambda: [self.pool.copy_volume(origin, name).number],
        )

    def _create(
        self, names: list[str], change_model: Callable[[list[int]], None], call: Callable[[], list[int]]
    ) -> None:
        """Only the pool knows the numbers of new volumes: the model is told afterwards, if need be by their names."""
        self._creating = names, change_model
        sync_count = self.pool.stats().sync_count
        try:
            numbers = call()
        except PoolFullError:
            self._creating = None
            self._tell_inline_sync(sync_count, None)
            self.full_count += 1
        except SimulatedCrash:
            self._tell_inline_sync(sync_count, None)
            self._crashed()
        except (OSError, PoolReadOnlyError):
            self._tell_inline_sync(sync_count, None)
            self._turned_read_only()
        else:
            self._tell_inline_sync(sync_count, None)
            self._creating = None
            change_model(numbers)
            self.model.logged()

    def delete_volume(self, number: int) -> None:
        name = self.model.state.volumes[number].name
        if self._do(lambda: self.model.delete_volume(number), lambda: self.pool.delete_volume(name)):
            self.model.logged()

    def resize_volume(self, number: int, size_bytes: int) -> None:
        name = self.model.state.volumes[number].name
        done = self._do(
            lambda: self.model.resize_volume(number, size_bytes),
            lambda: self.pool.resize_volume(name, size_bytes),
        )
        if done:
            self.model.logged()

    def write(self, number: int, offset: int, length: int) -> None:
        data = self.new_bytes(length)
        image = b""

        def model() -> None:
            nonlocal image
            image = self.model.write(number, offset, data)

        done = self._do(model, lambda: self.pool.volume_by_number(number).write(offset, data), volume=number)
        if done:
            (result,) = done
            assert (result[0], result[1], bytes(result[2])) == (offset // TRACK, len(image) // TRACK, image)
            assert self.pool.volume_by_number(number).read(offset, length) == data

    def zero(self, number: int, offset: int, length: int, *, allocate: bool) -> None:
        volume = self.pool.volume_by_number(number)
        mapped_before = volume.mapped()
        done = self._do(
            lambda: self.model.zero(number, offset, length, allocate=allocate),
            lambda: self.pool.volume_by_number(number).zero(offset, length, allocate=allocate),
            volume=number,
        )
        if done:
            (result,) = done
            assert volume.read(offset, length) == bytes(length)
            told = {track for track, count, _ in result.edges for track in range(track, track + count)}
            told |= {track for track, count in result.runs for track in range(track, track + count)}
            touched = np.arange(offset // TRACK, -(-(offset + length) // TRACK))
            assert told <= set(touched.tolist())
            assert set(touched[mapped_before[touched]].tolist()) <= told, "a changed track was not told"
            for track, count, image in result.edges:
                assert (
                    volume.read(track * TRACK, count * TRACK)
                    == bytes(image)[: volume.size_bytes - track * TRACK]
                )

    def put_document(self, key: str, value: bytes) -> None:
        self._do(lambda: self.model.put_document(key, value), lambda: self.pool.put_document(key, value))

    def delete_document(self, key: str) -> None:
        self._do(lambda: self.model.delete_document(key), lambda: self.pool.delete_document(key))

    def stage(self, session: int, source: int, shapes: list[tuple[int, int, int, bool]]) -> None:
        """Stage records given as (volume, track, track count, is zero), each with the next time."""
        records = np.zeros(len(shapes), RECORD_DTYPE)
        payload = b""
        entries: list[tuple[int, int, int, bytes | None]] = []
        for index, (volume, track, count, is_zero) in enumerate(shapes):
            self.time_ns += 10
            kind = RecordKind.ZERO if is_zero else RecordKind.DATA
            records[index] = (self.time_ns, volume, track, count, kind)
            data = b"" if is_zero else self.new_bytes(count * TRACK)
            payload += data
            entries += [
                (self.time_ns, volume, track + i, None if is_zero else data[i * TRACK : (i + 1) * TRACK])
                for i in range(count)
            ]
        self.time_ns += 10
        through_ns = self.time_ns
        done = self._do(
            lambda: self.model.stage(session, source, through_ns, entries),
            lambda: self.pool.stage(session, source, through_ns, records, payload),
        )
        if done:
            assert done[0].track_count == len(payload) // TRACK

    def commit(self, session: int, through_ns: int) -> None:
        self._do(
            lambda: self.model.commit(session, through_ns), lambda: self.pool.commit(session, through_ns)
        )
        self.check_now()

    def discard(self, session: int, after_ns: int) -> None:
        self._do(lambda: self.model.discard(session, after_ns), lambda: self.pool.discard(session, after_ns))

    def end_session(self, session: int) -> None:
        self._do(lambda: self.model.end_session(session), lambda: self.pool.end_session(session))

    def log_write(self) -> None:
        if self._guard(lambda: self.pool.log_write()):
            self.model.logged()

    # Durability, step by step

    @property
    def sync_is_running(self) -> bool:
        return self._sync is not None

    @property
    def checkpoint_is_running(self) -> bool:
        return self._checkpoint is not None

    def step_sync(self) -> None:
        """Begin a sync, or make its blocking call, or go on to the next: a thread may end at any of them."""
        if self._sync is None:
            self._sync = self.pool.sync()
            self.model.sync_started()
        self._guard(self._advance_sync)

    def step_checkpoint(self) -> None:
        """Begin a checkpoint, or make its blocking call, or go on to the next."""
        if self._checkpoint is None:
            self._checkpoint = self.pool.checkpoint()
        try:
            self._guard(self._advance_checkpoint)
        except PoolFullError:
            self._checkpoint = self._checkpoint_call = None
            self.no_room_count += 1
            self.disk.hook = None
            assert self.pool.checkpoint_waits_because
            assert self.pool.read_only_reason is None
            self.check_now()

    def whole_sync(self) -> None:
        """Begin a sync and complete it."""
        life = self.open_count
        self.step_sync()
        while self.sync_is_running and self.open_count == life:
            self.step_sync()

    def whole_checkpoint(self) -> None:
        """Begin a checkpoint and complete it."""
        life = self.open_count
        self.step_checkpoint()
        while self.checkpoint_is_running and self.open_count == life:
            self.step_checkpoint()

    def _advance_sync(self) -> None:
        assert self._sync is not None
        if self._sync_call is not None:
            call, self._sync_call = self._sync_call, None
            _make(call, self._sync)
            return
        self._sync_call = next(self._sync, None)
        if self._sync_call is None:
            self._sync = None
            self.model.sync_completed()

    def _advance_checkpoint(self) -> None:
        assert self._checkpoint is not None
        if self._checkpoint_call is not None:
            call, self._checkpoint_call = self._checkpoint_call, None
            _make(call, self._checkpoint)
            return
        self._checkpoint_call = next(self._checkpoint, None)
        if self._checkpoint_call is None:
            self._checkpoint = None

    # Crashes and faults

    def arm_crash(self, operation_count: int, *, power_loss: bool) -> None:
        """Let the process (or the machine) die at its n-th disk operation from now; reads do not count."""
        crash = crash_nth(operation_count)
        self.disk.hook = lambda operation: None if operation.kind == "read" else crash(operation)
        self.crash_is_power_loss = power_loss

    def arm_error(self, operation_count: int, kind: str) -> None:
        """Let the device fail its n-th operation of a kind from now, once."""
        self.disk.hook = self._noting(fail_nth(operation_count, ERRORS[kind], kind=kind))

    def arm_no_room(self, operation_count: int) -> None:
        """Let the file system be full at the n-th write of a checkpoint from now, once."""
        left = operation_count

        def hook(operation: Operation) -> None:
            nonlocal left
            if operation.kind == "write" and operation.name in (PAGES_NAME, ROOT_NEW_NAME):
                left -= 1
                if left == 0:
                    raise OSError(ENOSPC, "simulated full file system")

        self.disk.hook = hook

    def _noting(self, fail: Hook) -> Hook:
        """Return `fail`, remembering whether what it failed was to make something durable."""

        def hook(operation: Operation) -> None:
            try:
                fail(operation)
            except OSError:
                self._datasync_failed |= operation.kind in ("datasync", "sync")
                raise

        return hook

    def crash(self, *, power_loss: bool, crash_in_open: int = 0, error_in_open: str = "") -> None:
        """Die now, and if wanted again at the n-th disk operation of opening; then open and check.

        With `error_in_open`, the first operation of that kind fails in opening, and the process ends there. The
        page cache may drop what is clean while nobody runs.
        """
        power_loss |= self._die(power_loss=power_loss)
        self._forget_generators()
        if crash_in_open or error_in_open:
            fault = fail_nth(1, ERRORS[error_in_open], kind=error_in_open) if error_in_open else None
            self.disk.hook = self._noting(fault or crash_nth(crash_in_open))
            with suppress(SimulatedCrash, OSError, PoolFullError):
                Pool.open(self.disk)
                self.crash_count -= 1
            self.crash_count += 1
            power_loss |= self._die(power_loss=self.rng.random() < 0.5)
        is_loss = power_loss or self._datasync_failed
        self._open()
        told_loss = self.pool.reopened_after_loss
        is_closed = self._is_closing and not self._datasync_failed and not told_loss
        assert told_loss == is_loss or is_closed, "the pool does not tell whether it lost what was not synced"
        self.pool.settle_loss()
        self._is_closing = self._datasync_failed = False
        self._find_new_volumes()
        self.model.reopened(picture_of(self.pool), power_loss=is_loss)
        self.check_metadata()

    def _die(self, *, power_loss: bool) -> bool:
        if power_loss:
            self.disk.power_loss(self.rng)
        else:
            self.disk.kill()
            if self.rng.random() < 0.5:
                self.disk.evict()
        return power_loss

    def close_and_open(self) -> None:
        """Stop cleanly and start again: nothing is lost."""
        self._finish_generators()
        life = self.open_count
        self._is_closing = True
        self.model.sync_started()
        if self._guard(lambda: self.pool.close()) and life == self.open_count:
            self.model.sync_completed()
            self.model.logged()
            self.disk.hook = None
            self._is_closing = False
            self._open()
            self.check_now()

    def fail_next_datasync(self) -> None:
        """The device fails a datasync: the pool turns read-only and says so, and is started again."""
        self._finish_generators()
        error_count = self.error_count
        self.arm_error(1, "datasync")
        self.whole_sync()
        assert self.error_count > error_count

    def check_now(self) -> None:
        """Everything the pool shows is the newest state."""
        self.model.check_now(picture_of(self.pool))
        self.check_metadata()

    def check_metadata(self) -> None:
        """Counts, free map, tables and staged entries agree with each other and with the model."""
        self.pool.verify()
        cells = self.model.state.cells()
        stats = self.pool.stats()
        parts = (
            stats.used_track_count,
            stats.free_track_count,
            stats.pending_free_count,
            stats.quarantined_track_count,
        )
        assert stats.used_track_count == len(cells)
        assert sum(parts) == stats.track_count, f"{parts} tracks do not make {stats.track_count}"

    def check_offline(self) -> None:
        """`pool check` on a killed process's files finds nothing."""
        self.disk.kill()
        self._forget_generators()
        assert not check_pool(self.disk)
        self.crash(power_loss=False)

    def _forget_generators(self) -> None:
        for generator in (self._sync, self._checkpoint):
            if generator is not None:
                with suppress(SimulatedCrash):
                    generator.close()
        self._sync = self._checkpoint = self._sync_call = self._checkpoint_call = None
        self.model.sync_abandoned()

    def _finish_generators(self) -> None:
        if self.sync_is_running:
            self.whole_sync()
        if self.checkpoint_is_running:
            self.whole_checkpoint()

    def _find_new_volumes(self) -> None:
        """Tell the model of volumes whose creation the process did not live to report: all of them, or none."""
        if self._creating is not None:
            names, change_model = self._creating
            self._creating = None
            found = [name for name in names if name in self.pool.volumes]
            assert found in ([], names), f"of {names} only {found} were created"
            if found:
                change_model([self.pool.volumes[name].number for name in names])

    def _open(self) -> None:
        self.pool = Pool.open(self.disk)
        self.open_count += 1

    def _do(
        self, change_model: Callable[[], None], call: Callable[[], T], *, volume: int = 0
    ) -> tuple[T] | None:
        """Perform one operation on both; None when the pool was full, turned read-only, or the process died in it.

        An error of the device that leaves the pool writable harms nothing but what is written to `volume`, and the
        operation made again does what it would have done.
        """
        change_model()
        sync_count = self.pool.stats().sync_count
        try:
            try:
                result = call()
            except OSError:
                if self.pool.read_only_reason:
                    raise
                self.error_count += 1
                self.pool.verify()
                self.model.check_others(picture_of(self.pool), volume)
                result = call()
        except PoolFullError:
            self.model.undo()
            self._tell_inline_sync(sync_count, None)
            self.full_count += 1
        except SimulatedCrash:
            self._tell_inline_sync(sync_count, change_model)
            self.model.crashed_inside_operation()
            self._crashed()
        except (OSError, PoolReadOnlyError):
            self._tell_inline_sync(sync_count, change_model)
            self.model.crashed_inside_operation()
            self._turned_read_only()
        else:
            self._tell_inline_sync(sync_count, change_model)
            return (result,)
        return None

    def _tell_inline_sync(self, sync_count: int, change_model: Callable[[], None] | None) -> None:
        """If the operation made a sync of its own, before it changed anything, let the model live through both."""
        if self.pool.stats().sync_count == sync_count:
            return
        if change_model is not None:
            self.model.undo()
        self.model.synced()
        if change_model is not None:
            change_model()

    def _guard(self, call: Callable[[], None]) -> bool:
        """Make a call that changes no state; False when the process died in it, or the pool turned read-only."""
        try:
            call()
        except SimulatedCrash:
            self._crashed()
            return False
        except (OSError, PoolReadOnlyError):
            self._turned_read_only()
            return False
        return True

    def _turned_read_only(self) -> None:
        """The device failed where the store cannot go on: it says so, takes no write, and is started again."""
        self.error_count += 1
        assert self.pool.read_only_reason
        self.disk.hook = None
        for number in self.writable_numbers()[:1]:
            try:
                self.pool.volume_by_number(number).write(0, bytes(TRACK))
            except (PoolReadOnlyError, NotFoundError):
                continue
            raise AssertionError("a read-only pool took a write")
        self.crash(power_loss=False)

    def _crashed(self) -> None:
        self.crash_count += 1
        self.crash(power_loss=self.crash_is_power_loss)


def _make(call: Callable[[], None], steps: Durable) -> None:
    """Make a blocking call as a driver does: what it raises is thrown in, and comes out again."""
    try:
        call()
    except (OSError, PoolFullError) as error:
        steps.throw(error)
