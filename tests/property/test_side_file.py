"""The side file and its backlogs against lists: what each session is sent, keeps and resends, and the bytes of all."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isochrone.capture.backlog import Backlog
from isochrone.capture.side_file import SideFile
from isochrone.model.records import RecordBatch

SESSIONS = 3
BYTES_MAX = 300

sessions = st.integers(0, SESSIONS - 1)


class SideFileMachine(RuleBasedStateMachine):
    """Each session's model is the list of (batch, is image) it holds and how many of them were sent."""

    def __init__(self) -> None:
        super().__init__()
        self.side_file = SideFile(BYTES_MAX)
        self.backlogs = [Backlog(self.side_file) for _ in range(SESSIONS)]
        self.held: list[list[tuple[RecordBatch, bool]]] = [[] for _ in range(SESSIONS)]
        self.sent = [0] * SESSIONS
        self.dropped_ns = [0] * SESSIONS
        self.now_ns = 0

    @rule(
        holders=st.sets(sessions, min_size=1),
        size=st.integers(0, 90),
        span=st.integers(0, 3),
        image=st.booleans(),
    )
    def enter(self, holders: set[int], size: int, span: int, image: bool) -> None:
        first_ns, self.now_ns = self.now_ns + 1, self.now_ns + 1 + span
        batch = RecordBatch(1, first_ns, self.now_ns, 1, bytes(24), bytes(size))
        self.side_file.enter(batch, tuple(self.backlogs[h] for h in holders), is_image=image)
        for holder in holders:
            self.held[holder].append((batch, image))

    @rule(session=sessions, bytes_max=st.integers(0, 250))
    def take_unsent(self, session: int, bytes_max: int) -> None:
        taken = self.backlogs[session].take_unsent(bytes_max)
        expected: list[RecordBatch] = []
        for batch, _ in self.held[session][self.sent[session] :]:
            if expected and sum(b.size_bytes for b in expected) + batch.size_bytes > bytes_max:
                break
            expected.append(batch)
        assert [id(batch) for batch in taken] == [id(batch) for batch in expected]
        self.sent[session] += len(taken)

    @rule(session=sessions, lag=st.integers(-2, 12))
    def drop_hardened(self, session: int, lag: int) -> None:
        hardened_ns = self.now_ns - lag
        self.backlogs[session].drop_hardened(hardened_ns)
        held = self.held[session]
        while self.sent[session] and held[0][0].last_time_ns <= hardened_ns:
            self.dropped_ns[session] = held.pop(0)[0].last_time_ns
            self.sent[session] -= 1

    @rule(session=sessions, lag=st.integers(-2, 12))
    def rewind(self, session: int, lag: int) -> None:
        received_ns = self.now_ns - lag
        self.backlogs[session].rewind(received_ns)
        self.sent[session] = sum(batch.last_time_ns <= received_ns for batch, _ in self.held[session])

    @rule(session=sessions)
    def clear(self, session: int) -> None:
        self.backlogs[session].clear()
        self.held[session].clear()
        self.sent[session] = self.dropped_ns[session] = 0

    @invariant()
    def each_batch_is_counted_once(self) -> None:
        distinct = {id(batch): batch for held in self.held for batch, _ in held}
        assert self.side_file.used_bytes == sum(batch.size_bytes for batch in distinct.values())
        assert self.side_file.is_full is (self.side_file.used_bytes > BYTES_MAX)

    @invariant()
    def every_backlog_counts_what_it_holds(self) -> None:
        for backlog, held, sent, dropped_ns in zip(
            self.backlogs, self.held, self.sent, self.dropped_ns, strict=True
        ):
            assert len(backlog) == len(held)
            assert backlog.sent_count == sent
            assert backlog.held_bytes == sum(batch.size_bytes for batch, _ in held)
            assert backlog.image_bytes == sum(batch.size_bytes for batch, image in held if image)
            assert backlog.unsent_bytes == sum(batch.size_bytes for batch, _ in held[sent:])
            assert backlog.dropped_through_ns == dropped_ns


TestSideFile = SideFileMachine.TestCase
TestSideFile.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
