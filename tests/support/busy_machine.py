"""The commonest operations on a pool, each kind in one rule, so that crashes do not crowd out what they are to meet."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from support.recount import check_counts
from support.store_machine import PICKS, SHAPES, TRACKS, VOLUME_SIZES, PoolMachine, Shape, byte_ranges
from support.store_world import ERRORS, SESSIONS, SOURCES, TRACK

SESSION = st.sampled_from([*SESSIONS, SESSIONS[0]])
SOURCE = st.sampled_from(SOURCES)
PROGRESS = ("log_write", "step_sync", "step_sync", "whole_sync", "step_checkpoint", "whole_checkpoint")
FAILURES = (
    *("kill later",) * 3,
    *("power loss later",) * 3,
    "kill",
    "power loss",
    "stop",
    "trouble",
    "no room",
    "check",
)


class BusyMachine(PoolMachine):
    """Writes, trims, commits, ways to make them durable, and now and then a crash; everything counted after each step."""

    @rule(index=PICKS, name=st.none() | st.sampled_from(["a", "b"]), size_bytes=VOLUME_SIZES)
    def shape(self, index: int, name: str | None, size_bytes: int) -> None:
        """A new volume, or another size of one."""
        if name is None and self.has_volumes():
            self.world.resize_volume(self.pick(index), size_bytes)
        elif name and all(volume.name != name for volume in self.world.model.state.volumes.values()):
            self.world.create_volume(name, size_bytes)

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, span=byte_ranges(), is_logged=st.booleans())
    def write(self, index: int, span: tuple[int, int], is_logged: bool) -> None:
        number = self.pick(index)
        self.world.write(number, *self.clip(number, span))
        if is_logged:
            self.world.log_write()

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, track=TRACKS, count=st.integers(1, 3))
    def write_tracks(self, index: int, track: int, count: int) -> None:
        number = self.pick(index)
        self.world.write(number, *self.clip(number, (track * TRACK, count * TRACK)))

    @precondition(PoolMachine.has_volumes)
    @rule(index=PICKS, span=byte_ranges(), allocate=st.booleans())
    def zero(self, index: int, span: tuple[int, int], allocate: bool) -> None:
        number = self.pick(index)
        self.world.zero(number, *self.clip(number, span), allocate=allocate)

    @precondition(PoolMachine.has_volumes)
    @rule(session=SESSION, source=SOURCE, shapes=st.lists(SHAPES, max_size=4), commit=st.none() | PICKS)
    def replicate(self, session: int, source: int, shapes: list[Shape], commit: int | None) -> None:
        """Records arrive, and perhaps some of what has arrived is committed."""
        life = self.world.open_count
        self.world.stage(session, source, self.rows(source, shapes))
        known = session in self.world.model.state.sessions
        if commit is not None and known and self.world.open_count == life:
            self.world.commit(session, self.staged_time(session, commit))

    @rule(session=SESSION, index=PICKS, ends=st.booleans())
    def discard(self, session: int, index: int, ends: bool) -> None:
        if session in self.world.model.state.sessions:
            if ends:
                self.world.end_session(session)
            else:
                self.world.discard(session, self.staged_time(session, index))

    @rule(how=st.sampled_from(PROGRESS))
    def make_durable(self, how: str) -> None:
        getattr(self.world, how)()

    @rule(
        how=st.sampled_from(FAILURES),
        operation_count=st.integers(1, 12),
        kind=st.sampled_from(sorted(ERRORS)),
    )
    def fail(self, how: str, operation_count: int, kind: str) -> None:
        """Now, or at some operation of the disk to come."""
        world = self.world
        match how:
            case "kill" | "power loss":
                world.crash(power_loss=how == "power loss", crash_in_open=operation_count % 3)
            case "kill later" | "power loss later":
                world.arm_crash(operation_count, power_loss=how == "power loss later")
            case "stop":
                world.close_and_open()
            case "trouble":
                world.arm_error(operation_count, kind)
            case "no room":
                world.arm_no_room(operation_count)
            case _:
                world.check_offline()

    @invariant()
    def counts_add_up(self) -> None:
        """After every step, whatever it was, all that is kept by adding up is counted anew."""
        if hasattr(self, "world"):
            self.world.check_metadata()
            check_counts(self.world.pool)
