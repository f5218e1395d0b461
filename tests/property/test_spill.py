"""The side file with a spill against plain lists: order and content of every stream, exact bytes, no file left behind."""

from __future__ import annotations

import errno

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isochrone.capture.backlog import Backlog
from isochrone.capture.selection import NEVER_NS, select_records
from isochrone.capture.side_file import ENTRY_BYTES, SideFile
from isochrone.capture.spill import Spill, SpillJob
from isochrone.model.records import MIXED_VOLUMES, RECORD_STRUCT, RecordBatch, RecordKind
from isochrone.testing.sim_disk import SimDisk, fail_nth

SESSIONS = 2
VOLUMES = 3
TRACK = 512
MEMORY_MAX = 8 * TRACK
SEGMENT = 8 * TRACK
PIECE_MAX = 6 * TRACK
SPILL_MAX = 10 * SEGMENT
REST_NS = 10_000_000_000

sessions = st.integers(0, SESSIONS - 1)


class SpillMachine(RuleBasedStateMachine):
    """Each session's model is the list of all batches of its stream, and how far they were sent and hardened."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(seed=1)
        self.disk.open("spill-00000007", create=True)  # of an earlier life
        self.spill = Spill(self.disk, SPILL_MAX, SEGMENT)
        self.side_file = SideFile(MEMORY_MAX, self.spill, piece_bytes_max=PIECE_MAX)
        self.backlogs = [Backlog(self.side_file) for _ in range(SESSIONS)]
        self.streams: list[list[RecordBatch]] = [[] for _ in range(SESSIONS)]
        self.sent_through_ns = [0] * SESSIONS
        self.hardened_ns = [0] * SESSIONS
        self.now_ns = 0
        self.clock_ns = 0
        self.job: SpillJob | None = None

    # The application and the sessions

    @rule(
        holders=st.sampled_from([{0}, {0}, {1}, {0, 1}]),
        volume=st.integers(0, VOLUMES - 1),
        spans=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=3),
        repeat=st.integers(1, 8),
    )
    def capture(self, holders: set[int], volume: int, spans: list[tuple[int, bool]], repeat: int) -> None:
        for _ in range(repeat):
            first_ns = self.now_ns + 1
            headers, payload = b"", b""
            for count, is_data in spans:
                self.now_ns += 1
                kind = RecordKind.DATA if is_data else RecordKind.ZERO
                headers += RECORD_STRUCT.pack(self.now_ns, volume, 0, count, kind)
                payload += bytes([self.now_ns % 251]) * count * TRACK if is_data else b""
            batch = RecordBatch(volume, first_ns, self.now_ns, len(spans), headers, payload)
            self.side_file.enter(batch, tuple(self.backlogs[h] for h in sorted(holders)))
            for holder in holders:
                self.streams[holder].append(batch)

    @rule(session=sessions, ahead=st.sampled_from([0, TRACK, 3 * TRACK]))
    def link_changes(self, session: int, ahead: int) -> None:
        self.backlogs[session].ahead_bytes = ahead

    @rule(session=sessions, bytes_max=st.integers(0, 5 * TRACK))
    def send(self, session: int, bytes_max: int) -> None:
        """What is sent is what comes next, whole batches of it."""
        taken = self.backlogs[session].take_unsent(bytes_max)
        through_ns = self.sent_through_ns[session]
        parts = [part for batch in taken if (part := self._part(batch, through_ns)) is not None]
        if taken:
            self.sent_through_ns[session] = taken[-1].last_time_ns
        expected = [
            batch
            for batch in self.streams[session]
            if through_ns < batch.last_time_ns <= self.sent_through_ns[session]
        ]
        assert b"".join(part.headers for part in parts) == b"".join(b.headers for b in expected)
        assert b"".join(part.payload for part in parts) == b"".join(b.payload for b in expected)

    @staticmethod
    def _part(batch: RecordBatch, through_ns: int) -> RecordBatch | None:
        if batch.volume == MIXED_VOLUMES:
            return select_records(batch, dict.fromkeys(range(VOLUMES), (0, NEVER_NS)), through_ns, TRACK)
        return batch if batch.first_time_ns > through_ns else None

    @rule(session=sessions, share=st.floats(0, 1))
    def harden(self, session: int, share: float) -> None:
        span_ns = self.sent_through_ns[session] - self.hardened_ns[session]
        if span_ns > 0:
            self.hardened_ns[session] += int(span_ns * share)
        self.backlogs[session].drop_hardened(self.hardened_ns[session])

    @rule(session=sessions, share=st.floats(0, 1))
    def connect_anew(self, session: int, share: float) -> None:
        """The peer has some of what was sent, and all that it has hardened: a whole number of batches."""
        low, high = self.hardened_ns[session], self.sent_through_ns[session]
        ends = [batch.last_time_ns for batch in self.streams[session] if low <= batch.last_time_ns <= high]
        received_ns = ends[int(share * (len(ends) - 1))] if ends else high
        self.backlogs[session].rewind(received_ns)
        self.sent_through_ns[session] = received_ns

    @rule(session=sessions, share=st.floats(0, 1), count=st.integers(1, 6))
    def outage(self, session: int, share: float, count: int) -> None:
        """The link is lost with sets under way; what was sent may go to the spill before the peer is back."""
        self.send(session, 5 * TRACK)
        self.link_changes(session, 0)
        self.capture({session}, 0, [(2, True)], 2)
        self.work(count)
        self.connect_anew(session, share)
        self.link_changes(session, 3 * TRACK)

    @rule(session=sessions, chance=st.integers(0, 3))
    def suspend_now_and_then(self, session: int, chance: int) -> None:
        if chance == 0:
            self.suspend(session)

    def suspend(self, session: int) -> None:
        self.backlogs[session].clear()
        self.streams[session].clear()
        self.sent_through_ns[session] = self.hardened_ns[session] = self.now_ns

    # The disk

    @rule(count=st.integers(1, 6))
    def work(self, count: int) -> None:
        for _ in range(count):
            self.side_file.spill_excess(self.backlogs, self.clock_ns)
            self.begin_job()
            self.end_job()

    @rule()
    def begin_job(self) -> None:
        self.side_file.spill_excess(self.backlogs, self.clock_ns)
        if self.job is None:
            self.job = self.spill.next_job()
        assert self.job is None or self.spill.next_job() is None

    @rule()
    def end_job(self) -> None:
        if self.job is None:
            return
        job, self.job = self.job, None
        job.run()
        lost = self.side_file.finished(job, self.backlogs, self.clock_ns)
        for session, backlog in enumerate(self.backlogs):
            if any(entry in lost for entry in backlog):
                self.suspend(session)

    @rule(kind=st.sampled_from(["write", "read", "allocate", "open", "remove"]), chance=st.integers(0, 3))
    def disk_fails(self, kind: str, chance: int) -> None:
        if chance == 0:
            self.disk.hook = fail_nth(1, errno.EIO, kind=kind)

    @rule()
    def time_passes(self) -> None:
        self.clock_ns += REST_NS

    # What must always hold

    @invariant()
    def every_backlog_is_the_unhardened_end_of_its_stream(self) -> None:
        for backlog, stream, hardened_ns in zip(self.backlogs, self.streams, self.hardened_ns, strict=True):
            held = b"".join(entry.packed_records for entry in backlog)
            captured = b"".join(batch.headers for batch in stream)
            assert captured.endswith(held)
            owed = sum(len(batch.headers) for batch in stream if batch.last_time_ns > hardened_ns)
            assert len(held) >= owed
            assert backlog.held_bytes == sum(entry.size_bytes for entry in backlog)

    @invariant()
    def what_is_unsent_is_counted(self) -> None:
        for backlog in self.backlogs:
            entries = list(backlog)
            assert len(entries) == len(backlog)
            assert backlog.unsent_bytes == sum(entry.size_bytes for entry in entries[backlog.sent_count :])

    @invariant()
    def bytes_are_exact(self) -> None:
        entries = {id(entry): entry for backlog in self.backlogs for entry in backlog}.values()
        assert self.side_file.used_bytes == sum(entry.size_bytes for entry in entries)
        memory_bytes = sum(
            entry.size_bytes
            if entry.content is not None or entry.is_reading or entry.loss
            else min(entry.size_bytes, len(entry.headers) + ENTRY_BYTES)
            for entry in entries
        )
        assert self.side_file.memory_bytes == memory_bytes
        assert self.spill.reserved_bytes <= SPILL_MAX
        for entry in entries:
            assert entry.holders == sum(any(e is entry for e in backlog) for backlog in self.backlogs)

    def teardown(self) -> None:
        """Everything can be caught up; then nothing is left in the folder."""
        self.disk.hook = None
        for session, backlog in enumerate(self.backlogs):
            backlog.ahead_bytes = 2 * TRACK
            self.clock_ns += REST_NS
            while backlog.unsent_bytes:
                before = backlog.unsent_bytes
                self.send(session, 3 * TRACK)
                if backlog.unsent_bytes == before:
                    if self.job is None:
                        self.job = self.spill.next_job()
                    assert self.job is not None, "nothing is under way, and nothing can be sent"
                    self.end_job()
            backlog.drop_hardened(self.now_ns)
            assert not list(backlog)
        while self.job is not None or (job := self.spill.next_job()) is not None:
            self.job = self.job or job
            self.end_job()
        assert (self.side_file.used_bytes, self.side_file.memory_bytes) == (0, 0)
        assert (self.spill.reserved_bytes, self.spill.queued_bytes) == (0, 0)
        self.spill.close()


TestSpill = SpillMachine.TestCase
TestSpill.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
