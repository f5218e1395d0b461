"""Copying with comparison against the plainest secondary: equal at the end (P2.1), and nothing sent that need not be (P2.6).

A volume is copied while an application writes and trims anywhere, tracks become unreadable and heal, the link breaks with
queries and answers on it, and the session is suspended and begun anew. Records and queries travel in one queue, in order;
the secondary is a list of tags that answers from what it holds. Which tracks truly differ is known here alone.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from xxhash import xxh3_128_digest

from isochrone.capture.change_map import ChangeMap
from isochrone.capture.comparing import Comparing, Suspects
from isochrone.capture.copier import REREAD_NS_MAX, Copier
from isochrone.link.messages import TRACK_HASH_BYTES, Compare, Compared
from isochrone.model.records import RECORD_DTYPE, RecordBatch, RecordKind
from isochrone.testing.sim_disk import SimDisk
from support.store import TRACK, new_pool, tags, tracks

TRACK_COUNT = 10
VOLUME = 1

some_tracks = st.sets(st.integers(0, TRACK_COUNT - 1))
runs = st.integers(0, TRACK_COUNT - 1).flatmap(
    lambda track: st.tuples(st.just(track), st.integers(1, min(3, TRACK_COUNT - track)))
)
tag = st.integers(1, 3)  # few, so that both sides are often equal by chance


class CompareMachine(RuleBasedStateMachine):
    """One volume, one copier at a time, and a secondary made of tags."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(seed=1)
        _, self.pool = new_pool(self.disk, track_count=32)
        self.volume = self.pool.create_volume("a", TRACK_COUNT * TRACK)
        self.map = ChangeMap(self.disk, "changes-x-1", VOLUME, TRACK_COUNT)
        self.remote = [0] * TRACK_COUNT
        self.wire: deque[RecordBatch | Compare] = deque()
        self.answers: deque[Compared] = deque()
        self.now_ns = 0
        self.comparing = Comparing(TRACK)
        self.copier: Copier
        self.may_be_sent: set[int] = set()

    @initialize(
        local=st.lists(st.integers(0, 3), min_size=TRACK_COUNT, max_size=TRACK_COUNT), lost=some_tracks
    )
    def begin(self, local: list[int], lost: set[int]) -> None:
        """The power went: what `lost` holds over there is anything, and nothing is known of any track."""
        for track, content in enumerate(local):
            if content:
                self.volume.write(track * TRACK, tracks(content))
        self.remote = [0xEE if track in lost else content for track, content in enumerate(local)]
        self.map.suspect_all()
        self.start_copy()

    def start_copy(self) -> None:
        marked, suspected = self.map.marked(), self.map.suspected()
        self.copier = Copier(self.volume, marked, TRACK, suspected)
        self.may_be_sent = set(np.flatnonzero(marked & ~suspected).tolist())

    def tick(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def readable(self, track: int) -> bool:
        try:
            self.volume.read(track * TRACK, TRACK)
        except OSError:
            return False
        return True

    # The application

    @rule(run=runs, content=tag)
    def write(self, run: tuple[int, int], content: int) -> None:
        self.map.mark(*run)
        self.volume.write(run[0] * TRACK, tracks(content) * run[1])
        self.capture(run)

    @rule(run=runs)
    def trim(self, run: tuple[int, int]) -> None:
        self.map.mark(*run)
        self.volume.zero(run[0] * TRACK, run[1] * TRACK, allocate=False)
        self.capture(run)

    def capture(self, run: tuple[int, int]) -> None:
        self.may_be_sent |= set(range(run[0], run[0] + run[1]))
        for first, count in self.copier.sendable_runs(*run):
            payload = self.volume.read(first * TRACK, count * TRACK)
            time_ns = self.tick()
            header = np.array([(time_ns, VOLUME, first, count, int(RecordKind.DATA))], RECORD_DTYPE)
            self.wire.append(RecordBatch(VOLUME, time_ns, time_ns, 1, header.tobytes(), payload))

    # The device

    @rule(track=st.integers(0, TRACK_COUNT - 1))
    def spoil(self, track: int) -> None:
        self.disk.spoil_track(self.volume, track)

    @rule()
    def heal(self) -> None:
        self.disk.bad_sectors.heal()

    # The copier

    @rule(tracks_max=st.integers(1, TRACK_COUNT))
    def step(self, tracks_max: int) -> None:
        self.put_on_the_wire(self.copier.step(self.tick(), tracks_max))

    @rule()
    def reread(self) -> None:
        self.now_ns += REREAD_NS_MAX
        self.may_be_sent |= {
            track for first, count in self.copier.unreadable_runs(99) for track in range(first, first + count)
        }
        self.put_on_the_wire(self.copier.reread(self.now_ns))

    def put_on_the_wire(self, batch: RecordBatch | None) -> None:
        if batch is not None:
            headers = np.frombuffer(batch.headers, RECORD_DTYPE)
            for first, count in zip(headers["track"].tolist(), headers["track_count"].tolist(), strict=True):
                # P2.6: what is sent was written, was certain, could not be compared, or truly differed.
                assert set(range(first, first + count)) <= self.may_be_sent
            self.wire.append(batch)

    @precondition(lambda self: self.comparing.has_room)
    @rule(tracks_max=st.integers(1, TRACK_COUNT), arrives=st.booleans())
    def ask(self, tracks_max: int, arrives: bool) -> None:
        if self.copier.has_suspects:
            suspects = Suspects(self.copier, VOLUME, 0)
            query = self.comparing.ask(suspects, self.tick(), tracks_max)
            if query is not None:
                self.wire.append(query)
        while arrives and self.wire:
            self.deliver()

    # The link and the secondary

    @rule()
    def deliver(self) -> None:
        if not self.wire:
            return
        message = self.wire.popleft()
        if isinstance(message, Compare):
            self.answer(message)
            return
        payload = message.payload
        for _, _, track, count, kind in np.frombuffer(message.headers, RECORD_DTYPE).tolist():
            for number in range(track, track + count):
                self.remote[number] = 0
                if kind & RecordKind.DATA:
                    self.remote[number], payload = payload[0], payload[TRACK:]
        assert not payload

    def answer(self, query: Compare) -> None:
        asked = [track for first, count in query.runs for track in range(first, first + count)]
        differs = []
        for index, track in enumerate(asked):
            mine = xxh3_128_digest(tracks(self.remote[track]), seed=query.seed)
            differs.append(mine != query.hashes[index * TRACK_HASH_BYTES : (index + 1) * TRACK_HASH_BYTES])
        self.may_be_sent |= {track for track, other in zip(asked, differs, strict=True) if other}
        self.answers.append(Compared(query.number, tuple(differs)))

    @rule()
    def take_answer(self) -> None:
        if self.answers:
            self.comparing.answered(self.answers.popleft())

    @rule()
    def lose_the_link(self) -> None:
        """Records are sent again, in order; queries and answers are gone."""
        self.wire = deque(message for message in self.wire if not isinstance(message, Compare))
        self.answers.clear()
        self.comparing.lost()

    @rule(again=some_tracks)
    def suspend_and_resume(self, again: set[int]) -> None:
        """Captured records are dropped; the marks remember them. Some tracks may come under suspicion on the way."""
        self.lose_the_link()
        self.wire.clear()
        flags = np.zeros(TRACK_COUNT, np.bool_)
        flags[list(again)] = True
        self.map.suspect_where(flags)
        self.start_copy()

    @invariant()
    def p2_1_a_track_that_is_done_is_equal_once_what_was_sent_has_arrived(self) -> None:
        remote, sent = list(self.remote), [m for m in self.wire if isinstance(m, RecordBatch)]
        for batch in sent:
            payload = batch.payload
            for _, _, track, count, kind in np.frombuffer(batch.headers, RECORD_DTYPE).tolist():
                for number in range(track, track + count):
                    remote[number] = 0
                    if kind & RecordKind.DATA:
                        remote[number], payload = payload[0], payload[TRACK:]
        for track, state in enumerate(self.copier.to_copy):
            if state == 0 and self.readable(track):
                assert remote[track] == tags(self.pool, "a", 1, track)[0]

    @invariant()
    def the_counts_are_those_of_the_states(self) -> None:
        states = self.copier.to_copy
        assert self.copier.remaining == sum(state != 0 for state in states)
        named = {t for first, count in self.copier.unreadable_runs(99) for t in range(first, first + count)}
        assert named == {track for track, state in enumerate(states) if state == 4}
        assert self.copier.unreadable_count == len(named)

    def teardown(self) -> None:
        """The device heals, nobody writes, and the copy ends with both sides equal (P2.1, P2.5)."""
        if not hasattr(self, "copier"):
            return
        self.heal()
        for _ in range(5 * TRACK_COUNT):
            self.step(3)
            self.reread()
            if self.comparing.has_room:
                self.ask(4, False)
            self.deliver()
            self.deliver()
            self.take_answer()
        while self.wire:
            self.deliver()
        assert self.copier.remaining == 0
        assert self.remote == tags(self.pool, "a", TRACK_COUNT)


TestCompare = CompareMachine.TestCase
TestCompare.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
