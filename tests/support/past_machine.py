"""The store's state machine with histories: images of any instant, rewinds, the oldest given up, records that come late."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from isochrone.model.volume_kind import VolumeKind
from isochrone.testing.store_model_copies import Documents
from support.busy_machine import SESSION, SOURCE, BusyMachine
from support.copies_machine import DOCUMENTS, documents_now
from support.history_world import HistoryWorld
from support.store_machine import PICKS, SHAPES, Shape
from support.store_world import SESSIONS, TRACK

TIMES = st.integers(0, 40)


class PastMachine(BusyMachine):
    """What a BusyMachine does, and histories, of a few volumes from the start."""

    world: HistoryWorld

    def make_world(self, seed: int) -> HistoryWorld:
        world = HistoryWorld(seed)
        for name in ("second", "third"):
            world.create_volume(name, 12 * TRACK)
        world.history_begin(SESSIONS[0], [1, 2], {})
        return world

    def has_histories(self) -> bool:
        return bool(self.world.model.state.histories)

    def history(self, index: int) -> int:
        """A session with a past."""
        sessions = sorted(self.world.model.state.histories)
        return sessions[index % len(sessions)]

    def time(self, session: int, index: int) -> int:
        """A time at, between, before or behind what is kept."""
        history = self.world.model.state.histories[session]
        times = {history.first_ns - 1, history.first_ns, history.through_ns, history.through_ns + 1}
        for stay in history.stays:
            times |= {stay.from_ns, stay.until_ns or 0, *(entry.time_ns for entry in stay.entries)}
            times |= {entry.time_ns - 1 for entry in stay.entries}
        choices = sorted(time_ns for time_ns in times if time_ns >= 0)
        return choices[index % len(choices)]

    @precondition(BusyMachine.has_volumes)
    @rule(
        session=SESSION,
        indexes=st.sets(PICKS, min_size=1, max_size=3),
        how=st.sampled_from(["begin", "begin", "end", "drop"]),
        documents=DOCUMENTS,
    )
    def members(self, session: int, indexes: set[int], how: str, documents: Documents) -> None:
        """Volumes join, or one leaves, or all that was kept is given up."""
        world, state = self.world, self.world.model.state
        history = state.histories.get(session)
        if how == "begin" and (session in state.sessions or history is None):
            numbers = sorted({self.pick(index) for index in indexes})
            world.history_begin(session, numbers, documents_now(world, documents))
        elif how == "end" and history is not None:
            present = [stay.number for stay in history.stays if stay.until_ns is None]
            if present:
                world.history_end(session, present[min(indexes) % len(present)])
        elif how == "drop":
            world.history_drop(session, documents_now(world, documents))

    @precondition(has_histories)
    @rule(index=PICKS, time=TIMES)
    def history_release(self, index: int, time: int) -> None:
        session = self.history(index)
        self.world.history_release(session, self.time(session, time // 4))

    @precondition(has_histories)
    @rule(
        index=PICKS,
        time=TIMES,
        kind=st.sampled_from([VolumeKind.IMAGE, VolumeKind.SNAPSHOT]),
        is_whole=st.booleans(),
        documents=DOCUMENTS,
    )
    def image(self, index: int, time: int, kind: VolumeKind, is_whole: bool, documents: Documents) -> None:
        session = self.history(index)
        at_ns = self.time(session, time)
        history = self.world.model.state.histories[session]
        stays = [stay for stay in history.stays if history.covering(stay.number, at_ns)] or history.stays
        mark = "~" if kind is VolumeKind.IMAGE else "@"
        names = {stay.number: f"n{stay.number}{mark}i" for stay in stays}
        if len(self.world.numbers()) < 10:
            self.world.begin_image(session, at_ns, names, kind, documents_now(self.world, documents))
        if is_whole:
            self.world.whole_making()

    @precondition(has_histories)
    @rule(index=PICKS, time=TIMES, is_whole=st.booleans())
    def rewind(self, index: int, time: int, is_whole: bool) -> None:
        session = self.history(index)
        at_ns = self.time(session, time)
        if session in self.world.model.state.sessions and not self.world.is_making:
            life = self.world.open_count
            self.world.discard(session, at_ns)
            if self.world.open_count == life:
                self.world.begin_rewind(session, at_ns)
        if is_whole:
            self.world.whole_making()

    @rule(is_whole=st.booleans())
    def go_on_making(self, is_whole: bool) -> None:
        if is_whole:
            self.world.whole_making()
        else:
            self.world.step_making()

    @precondition(has_histories)
    @rule(
        index=PICKS, tracks=st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=6), commit=PICKS
    )
    def live_on(self, index: int, tracks: list[tuple[int, bool]], commit: int) -> None:
        """A volume whose past is kept is written at its primary, and some of it is committed."""
        session, world = self.history(index), self.world
        stays = world.model.state.histories[session].stays
        present = [s for s in stays if s.until_ns is None and s.number in world.model.state.volumes]
        if present:
            number = present[index % len(present)].number
            count = self.track_count(number)
            life = world.open_count
            world.stage(session, number % 2, [(number, at % count, 1, is_zero) for at, is_zero in tracks])
            if world.open_count == life and session in world.model.state.sessions:
                world.commit(session, self.staged_time(session, commit + 1))

    @precondition(BusyMachine.has_volumes)
    @rule(
        session=SESSION,
        source=SOURCE,
        shapes=st.lists(SHAPES, min_size=1, max_size=4),
        late=PICKS,
        commit=st.booleans(),
    )
    def stage_late(self, session: int, source: int, shapes: list[Shape], late: int, commit: bool) -> None:
        rows = self.rows(source, shapes)
        if rows:
            self.world.stage_late(session, source, rows, late, commit=commit)
