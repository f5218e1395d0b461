"""A pool on a simulated disk beside its model: every operation on both, crashes anywhere.

`StoreWorld` performs operations. Its disk may be told to crash at its n-th operation from now on, wherever
that falls: in a write, a log write, a sync, a checkpoint. `walk` is a fast seeded run of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from random import Random
from typing import TypeVar

import numpy as np

from isochrone.model.errors import PoolFullError, PoolReadOnlyError
from isochrone.model.records import RECORD_DTYPE, RecordKind
from isochrone.store.check import check_pool
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash, crash_nth, fail_nth
from isochrone.testing.store_model import Picture, SessionPicture, StoreModel, VolumePicture

TRACK = 4096
POOL_TRACK_COUNT = 24
"""Few, so that tracks are soon used again and the pool is now and then full."""
SESSIONS = (1, 2)
SOURCES = (0, 1)
"""A volume's records come from source `volume number % 2`: a volume has one primary."""

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
    )


class StoreWorld:
    """One pool through many lives."""

    def __init__(self, seed: int = 0) -> None:
        self.disk = SimDisk(seed=seed)
        self.rng = Random(seed)
        self.model = StoreModel(TRACK)
        self.tag = 0
        self.time_ns = 0
        self.crash_is_power_loss = False
        self.open_count = 0
        self.full_count = 0
        self.crash_count = 0
        self._creating: tuple[str, Callable[[int], None]] | None = None
        self._is_closing = False
        self._sync: Durable | None = None
        self._sync_call: Callable[[], None] | None = None
        self._checkpoint: Durable | None = None
        self._checkpoint_call: Callable[[], None] | None = None
        Pool.create(self.disk, size_bytes=POOL_TRACK_COUNT * TRACK)
        self._open()

    # Operations

    def numbers(self) -> list[int]:
        """Numbers of the volumes there are."""
        return sorted(self.model.state.volumes)

    def new_bytes(self, length: int) -> bytes:
        """Bytes that were never written before and differ in every sector."""
        self.tag += 1
        words = np.arange(length // 4 + 1, dtype="<u4") + np.uint32(self.tag << 16)
        return words.tobytes()[:length]

    def create_volume(self, name: str, size_bytes: int) -> None:
        self._create(
            name,
            lambda number: self.model.create_volume(number, name, size_bytes),
            lambda: self.pool.create_volume(name, size_bytes).number,
        )

    def copy_volume(self, source: int, name: str) -> None:
        origin = self.model.state.volumes[source].name
        self._create(
            name,
            lambda number: self.model.copy_volume(source, number, name),
            lambda: self.pool.copy_volume(origin, name).number,
        )

    def _create(self, name: str, change_model: Callable[[int], None], call: Callable[[], int]) -> None:
        """Only the pool knows the number of a new volume: the model is told afterwards, if need be by its name."""
        self._creating = name, change_model
        try:
            number = call()
        except PoolFullError:
            self._creating = None
            self.full_count += 1
        except SimulatedCrash:
            self._crashed()
        else:
            self._creating = None
            change_model(number)
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

        done = self._do(model, lambda: self.pool.volume_by_number(number).write(offset, data))
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
            assert done == (len(payload) // TRACK,)

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
        self._guard(self._advance_checkpoint)

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
            call()
            return
        self._sync_call = next(self._sync, None)
        if self._sync_call is None:
            self._sync = None
            self.model.sync_completed()

    def _advance_checkpoint(self) -> None:
        assert self._checkpoint is not None
        if self._checkpoint_call is not None:
            call, self._checkpoint_call = self._checkpoint_call, None
            call()
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

    def crash(self, *, power_loss: bool, crash_in_open: int = 0) -> None:
        """Die now, and if wanted again at the n-th disk operation of opening; then open and check."""
        if power_loss:
            self.disk.power_loss(self.rng)
        else:
            self.disk.kill()
        self._forget_generators()
        if crash_in_open:
            self.disk.hook = crash_nth(crash_in_open)
            try:
                Pool.open(self.disk)
            except SimulatedCrash:
                self.crash_count += 1
            if self.rng.random() < 0.5:
                self.disk.kill()
            else:
                self.disk.power_loss(self.rng)
                power_loss = True
        self._open()
        told_loss = self.pool.reopened_after_power_loss
        assert told_loss == power_loss or crash_in_open or (self._is_closing and not told_loss)
        self._is_closing = False
        self._find_new_volume()
        self.model.reopened(picture_of(self.pool), power_loss=power_loss)
        self.check_metadata()

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
        """The device fails a datasync: the pool turns read-only and says so; the machine is restarted."""
        self._finish_generators()
        self.disk.hook = fail_nth(1, kind="datasync")
        sync = self.pool.sync()
        with suppress(OSError):
            for call in sync:
                try:
                    call()
                except OSError as error:
                    sync.throw(error)
        assert self.pool.read_only_reason
        for number in self.numbers()[:1]:
            try:
                self.pool.volume_by_number(number).write(0, bytes(TRACK))
            except PoolReadOnlyError:
                pass
            else:
                raise AssertionError("a pool whose datasync failed took a write")
        self.crash(power_loss=True)

    def check_now(self) -> None:
        """Everything the pool shows is the newest state."""
        self.model.check_now(picture_of(self.pool))
        self.check_metadata()

    def check_metadata(self) -> None:
        """Counts, free map, tables and staged entries agree with each other and with the model."""
        self.pool.verify()
        cells = self.model.state.cells()
        total = self.pool.used_track_count + self.pool.free_track_count + self.pool.pending_free_count
        assert self.pool.used_track_count == len(cells)
        assert total == self.pool.track_count

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

    def _find_new_volume(self) -> None:
        """Tell the model of a volume whose creation the process did not live to report."""
        if self._creating is not None:
            name, change_model = self._creating
            self._creating = None
            if name in self.pool.volumes:
                change_model(self.pool.volumes[name].number)

    def _open(self) -> None:
        self.pool = Pool.open(self.disk)
        self.open_count += 1

    def _do(self, change_model: Callable[[], None], call: Callable[[], T]) -> tuple[T] | None:
        """Perform one operation on both; None when the pool was full or the process died in it."""
        change_model()
        try:
            return (call(),)
        except PoolFullError:
            self.model.undo()
            self.full_count += 1
        except SimulatedCrash:
            self.model.crashed_inside_operation()
            self._crashed()
        return None

    def _guard(self, call: Callable[[], None]) -> bool:
        """Make a call that changes no state; False when the process died in it."""
        try:
            call()
        except SimulatedCrash:
            self._crashed()
            return False
        return True

    def _crashed(self) -> None:
        self.crash_count += 1
        self.crash(power_loss=self.crash_is_power_loss)


def sync_while_the_log_switches(seed: int) -> None:
    """The log's datasync has ended in its thread; before the pool hears of it, records follow and the log switches.

    Then a second sync, and power loss: AssertionError unless all is there.
    """
    world = StoreWorld(seed)
    world.create_volume("a", 30 * TRACK)
    world.whole_sync()
    world.write(1, 0, TRACK)
    world.log_write()
    for _ in range(4):  # begin; make the tracks durable; write the barrier; make the log durable
        world.step_sync()
    world.write(1, 2 * TRACK, TRACK)
    world.log_write()
    world.step_checkpoint()
    world.write(1, 4 * TRACK, TRACK)
    world.log_write()
    world.step_sync()
    assert not world.sync_is_running
    world.whole_sync()
    world.crash(power_loss=True)


def walk(seed: int, step_count: int = 60) -> None:
    """A seeded run of the commonest operations on small volumes, ending in both crashes; no hypothesis: fast."""
    world, rng = StoreWorld(seed), Random(seed)
    world.create_volume("a", 12 * TRACK)
    world.create_volume("b", 12 * TRACK)
    world.whole_sync()
    for step in range(step_count):
        number = rng.choice(world.numbers())
        track_count = world.model.state.volumes[number].size_bytes // TRACK
        track = rng.randrange(track_count)
        count = min(rng.choice([1, 1, 2, 4]), track_count - track)
        session = rng.choice(SESSIONS)
        known = session in world.model.state.sessions
        match rng.choice(WALK):
            case "write":
                world.write(number, track * TRACK, count * TRACK)
            case "trim":
                world.zero(number, track * TRACK, count * TRACK, allocate=False)
            case "stage":
                world.stage(session, number % 2, [(number, track, count, False)])
            case "commit" if known:
                world.commit(session, world.time_ns - rng.choice([0, 10, 20]))
            case "discard" if known:
                world.discard(session, world.time_ns - rng.choice([0, 10, 20]))
            case "resize":
                world.resize_volume(number, rng.choice([4, 8, 12]) * TRACK)
            case "copy" if len(world.numbers()) < 3:
                world.copy_volume(number, f"copy{step}")
            case "delete" if len(world.numbers()) > 2:
                world.delete_volume(number)
            case "document":
                world.put_document("x", world.new_bytes(40))
            case "log":
                world.log_write()
            case "sync":
                world.whole_sync()
            case "step":
                world.step_sync()
            case "checkpoint":
                world.step_checkpoint()
            case "kill" | "power" as crash:
                world.crash(power_loss=crash == "power")
    world.crash(power_loss=seed % 2 == 0)
    world.crash(power_loss=True)


WALK = (
    *("write",) * 6, *("trim",) * 3, *("stage",) * 3, *("log",) * 4, *("commit",) * 2, *("sync",) * 2, *("step",) * 3,
    "discard", "resize", "copy", "delete", "document", "checkpoint", "kill", "power",
)  # fmt: skip
