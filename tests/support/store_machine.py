"""The store's state machine: hypothesis chooses operations, syncs, checkpoints and crashes of a `StoreWorld`."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from support.store_world import ERRORS, SESSIONS, SOURCES, TRACK, StoreWorld

VOLUME_SIZES = st.sampled_from([TRACK, 5 * TRACK, 24 * TRACK, 1026 * TRACK, 2050 * TRACK])
TRACKS = st.one_of(st.integers(0, 12), st.integers(1020, 1030), st.integers(2044, 2049))
PICKS = st.integers(0, 5)
Shape = tuple[int, int, int, bool]
"""Volume (a pick, or a number), track, track count, is zero."""
SHAPES = st.tuples(PICKS, TRACKS, st.integers(1, 3), st.booleans())


@st.composite
def byte_ranges(draw: st.DrawFn) -> tuple[int, int]:
    """An offset and a length in bytes, often aligned to tracks, to sectors or to nothing."""
    track = draw(TRACKS)
    shift = draw(st.sampled_from([0, 0, 0, 512, 1024, TRACK - 512, 1, 777]))
    length = draw(
        st.one_of(
            st.sampled_from([TRACK, TRACK, 2 * TRACK, 7 * TRACK, 512, 1024, 3, TRACK - shift or TRACK]),
            st.integers(1, 3 * TRACK),
        )
    )
    return track * TRACK + shift, length


class PoolMachine(RuleBasedStateMachine):
    """What every machine over a `StoreWorld` needs: a pool with one volume, and ways to pick from what there is."""

    world: StoreWorld

    @initialize(seed=st.integers(0, 1 << 16), size_bytes=VOLUME_SIZES)
    def create(self, seed: int, size_bytes: int) -> None:
        self.world = self.make_world(seed)
        self.world.create_volume("first", size_bytes)

    def make_world(self, seed: int) -> StoreWorld:
        """The pool and its model."""
        return StoreWorld(seed)

    def pick(self, index: int) -> int:
        """Number of a volume that takes writes."""
        numbers = self.world.writable_numbers()
        return numbers[index % len(numbers)]

    def has_volumes(self) -> bool:
        return bool(self.world.writable_numbers())

    def track_count(self, number: int) -> int:
        """Tracks of a volume."""
        return self.world.model.state.volumes[number].size_bytes // TRACK

    def clip(self, number: int, span: tuple[int, int]) -> tuple[int, int]:
        """Move a range into a volume."""
        size_bytes = self.world.model.state.volumes[number].size_bytes
        offset = span[0] % size_bytes
        return offset, min(span[1], size_bytes - offset)

    def rows(self, source: int, shapes: list[Shape]) -> list[Shape]:
        """Move records to be staged into volumes of a source; none when it has no volume."""
        mine = [number for number in self.world.writable_numbers() if number % 2 == source]
        rows = []
        for index, track, count, is_zero in shapes if mine else ():
            number = mine[index % len(mine)]
            first = track % self.track_count(number)
            rows.append((number, first, min(count, self.track_count(number) - first), is_zero))
        return rows

    def staged_time(self, session: int, index: int) -> int:
        """A time at, between, or past the staged entries of a session."""
        staged = self.world.model.state.sessions[session].staged
        times = sorted({entry.time_ns for entry in staged})
        choices = [times[0] - 1, *times, self.world.time_ns] if times else [self.world.time_ns]
        return choices[index % len(choices)]

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.crash(power_loss=False)
            self.world.crash(power_loss=True)


class StoreMachine(PoolMachine):
    """Operations, syncs and checkpoints in any order, with crashes of process and machine anywhere."""

    @rule(name=st.sampled_from(["a", "b"]), size_bytes=VOLUME_SIZES)
    def create_volume(self, name: str, size_bytes: int) -> None:
        if all(volume.name != name for volume in self.world.model.state.volumes.values()):
            self.world.create_volume(name, size_bytes)

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, name=st.sampled_from(["c", "d"]))
    def copy_volume(self, index: int, name: str) -> None:
        if all(volume.name != name for volume in self.world.model.state.volumes.values()):
            self.world.copy_volume(self.pick(index), name)

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS)
    def delete_volume(self, index: int) -> None:
        self.world.delete_volume(self.pick(index))

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, size_bytes=VOLUME_SIZES)
    def resize_volume(self, index: int, size_bytes: int) -> None:
        self.world.resize_volume(self.pick(index), size_bytes)

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, span=byte_ranges())
    def write(self, index: int, span: tuple[int, int]) -> None:
        number = self.pick(index)
        self.world.write(number, *self.clip(number, span))

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, span=byte_ranges())
    def write_and_log(self, index: int, span: tuple[int, int]) -> None:
        self.write(index, span)
        self.world.log_write()

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, span=byte_ranges(), allocate=st.booleans())
    def zero(self, index: int, span: tuple[int, int], allocate: bool) -> None:
        number = self.pick(index)
        self.world.zero(number, *self.clip(number, span), allocate=allocate)

    @precondition(PoolMachine.has_volumes)
    @rule(
        session=st.sampled_from(SESSIONS),
        source=st.sampled_from(SOURCES),
        shapes=st.lists(SHAPES, max_size=4),
    )
    def stage(self, session: int, source: int, shapes: list[Shape]) -> None:
        self.world.stage(session, source, self.rows(source, shapes))

    @rule(session=st.sampled_from(SESSIONS), index=PICKS)
    def commit(self, session: int, index: int) -> None:
        if session in self.world.model.state.sessions:
            self.world.commit(session, self.staged_time(session, index))

    @rule(session=st.sampled_from(SESSIONS), index=PICKS)
    def discard(self, session: int, index: int) -> None:
        if session in self.world.model.state.sessions:
            self.world.discard(session, self.staged_time(session, index))

    @rule(session=st.sampled_from(SESSIONS))
    def end_session(self, session: int) -> None:
        if session in self.world.model.state.sessions:
            self.world.end_session(session)

    @rule(key=st.sampled_from(["x", "y"]), value=st.binary(max_size=40))
    def put_document(self, key: str, value: bytes) -> None:
        self.world.put_document(key, value)

    @rule(key=st.sampled_from(["x", "y", "z"]), kib=st.integers(100, 400))
    def put_big_document(self, key: str, kib: int) -> None:
        """Fills a log segment of 1 MiB soon."""
        self.world.put_document(key, self.world.new_bytes(4) * (kib * 256))

    @rule(key=st.sampled_from(["x", "y", "z"]))
    def delete_document(self, key: str) -> None:
        if key in self.world.model.state.documents:
            self.world.delete_document(key)

    @rule()
    def log_write(self) -> None:
        self.world.log_write()

    @rule()
    def step_sync(self) -> None:
        self.world.step_sync()

    @rule()
    def whole_sync(self) -> None:
        self.world.whole_sync()

    @rule()
    def step_checkpoint(self) -> None:
        self.world.step_checkpoint()

    @rule()
    def whole_checkpoint(self) -> None:
        self.world.whole_checkpoint()

    @rule(operation_count=st.integers(1, 12), power_loss=st.booleans())
    def arm_crash(self, operation_count: int, power_loss: bool) -> None:
        self.world.arm_crash(operation_count, power_loss=power_loss)

    @rule(power_loss=st.booleans(), crash_in_open=st.sampled_from([0, 0, 1, 2, 4, 8, 16]))
    def crash(self, power_loss: bool, crash_in_open: int) -> None:
        self.world.crash(power_loss=power_loss, crash_in_open=crash_in_open)

    @rule(operation_count=st.integers(1, 6), kind=st.sampled_from(sorted(ERRORS)))
    def arm_error(self, operation_count: int, kind: str) -> None:
        self.world.arm_error(operation_count, kind)

    @rule(operation_count=st.integers(1, 4))
    def arm_no_room(self, operation_count: int) -> None:
        self.world.arm_no_room(operation_count)

    @rule(power_loss=st.booleans(), kind=st.sampled_from(sorted(ERRORS)))
    def error_in_open(self, power_loss: bool, kind: str) -> None:
        self.world.crash(power_loss=power_loss, error_in_open=kind)

    @rule()
    def close_and_open(self) -> None:
        self.world.close_and_open()

    @rule()
    def fail_next_datasync(self) -> None:
        self.world.fail_next_datasync()

    @rule()
    def check_now(self) -> None:
        self.world.check_now()

    @rule()
    def check_offline(self) -> None:
        self.world.check_offline()
