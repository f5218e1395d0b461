"""The mover of one session: from record sets to a committed image, in five steps.

    receive -> stage (payload once to fresh tracks, pointers to the log) -> form F -> harden J -> commit C

F is the minimum, over the primaries, of the promise each has given: everything up to it has come and is stored. J
follows when data and pointers of everything up to an earlier F are durable. A commit links staged tracks into the
volumes' tables up to a limit that the session gives (its gate), so that the committed image is always the set of all
writes up to one time.

Nothing here waits or does I/O but through the pool: `form` says that a harden is due, the shell runs the pool's sync and
calls `hardened`. Always C <= J <= F.

A track that the device does not take waits in memory and is tried again, while everything else goes on (see `waiting`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from isochrone.link.messages import Compare, Compared
from isochrone.model.errors import BusyError, PoolFullError, ProtocolError
from isochrone.model.records import RECORD_DTYPE, RecordArray, count_through
from isochrone.mover.comparing import Comparer
from isochrone.mover.settings import ROOM_KEPT_BYTES_MAX, ROOM_KEPT_PART, MoverSettings
from isochrone.mover.waiting import WaitingSummary, WaitingTracks, summary_of
from isochrone.store.disk import Buffer
from isochrone.store.pool import Pool
from isochrone.store.staging import data_track_counts

_NO_RECORDS: Final = np.empty(0, dtype=RECORD_DTYPE)


@dataclass(frozen=True, slots=True)
class ReceivedSet:
    """A record set with volume numbers of this pool."""

    through_ns: int
    records: RecordArray
    payload: Buffer

    @property
    def size_bytes(self) -> int:
        """What it counts against the window."""
        return self.records.nbytes + len(self.payload)

    def after(self, time_ns: int, track_size_bytes: int) -> ReceivedSet:
        """Return the part of it with times after `time_ns`."""
        at = count_through(self.records, time_ns)
        gone_bytes = int(data_track_counts(self.records[:at]).sum(dtype=np.int64)) * track_size_bytes
        return ReceivedSet(self.through_ns, self.records[at:], memoryview(self.payload)[gone_bytes:])


class Source:
    """What has come from one primary.

    Attributes:
        taken_ns: everything of this primary up to here has come, and is staged or among the waiting tracks.
        again_ns: records up to here that come on this link have come before: a primary sends whole batches again.
        waiting_tracks: what the device did not take yet.
        staged_bytes: payload and headers staged since the link was opened; opens the window.
        waiting: received, but the pool had no room; bounded by the window.
        is_kept_back: they wait because the last room is kept for primaries that are behind.
        joined_ns: J that was reached, or under way, without this primary when its first promise came; None before. F
            waits for it from then on, and once C is past joined_ns the image includes it exactly (S4, late joiner).
        comparer: answers what it asks for before it copies; None until it does.
    """

    __slots__ = (
        "again_ns",
        "comparer",
        "is_kept_back",
        "joined_ns",
        "logged_through_ns",
        "staged_bytes",
        "taken_ns",
        "waiting",
        "waiting_tracks",
    )

    def __init__(self, through_ns: int, track_size_bytes: int) -> None:
        self.taken_ns = through_ns
        self.again_ns = 0
        self.is_kept_back = False
        self.waiting_tracks = WaitingTracks(track_size_bytes)
        self.logged_through_ns = through_ns
        self.staged_bytes = 0
        self.waiting: deque[ReceivedSet] = deque()
        self.joined_ns: int | None = None
        self.comparer: Comparer | None = None

    @property
    def received_ns(self) -> int:
        """Everything of this primary up to here has come."""
        return self.waiting[-1].through_ns if self.waiting else self.taken_ns

    @property
    def through_ns(self) -> int:
        """Everything of this primary up to here is staged: the time before the oldest record that waits."""
        oldest_ns = self.waiting_tracks.oldest_ns
        return self.taken_ns if oldest_ns is None else min(self.taken_ns, oldest_ns - 1)


class Mover:
    """See the module's essay.

    Args:
        session: number of the session in the pool.

    Attributes:
        journal_ns: J.
        consistency_ns: C.
        groups_committed: commits that linked something.
        full_reason: why received record sets cannot be staged now, "" when they can.
        no_room_since_ns: host time since when none that waited for room could be staged; None while none waits, or
            while the last room is kept for others.
        retry_count: tries to store waiting tracks, since the controller started.
    """

    def __init__(self, pool: Pool, session: int, settings: MoverSettings) -> None:
        self.settings = settings
        self.sources: dict[int, Source] = {}
        self.consistency_ns = pool.committed_through_ns(session)
        self.journal_ns = self.consistency_ns
        self.full_reason = ""
        self.no_room_since_ns: int | None = None
        self.retry_count = 0
        self.records_received = 0
        self.bytes_received = 0
        self.groups_committed = 0
        self._pool = pool
        self._session = session
        self._hardening_ns: int | None = None
        self._unhardened = True
        self._newest_ns = 0  # no record that was staged has a later time
        self._staged_since_form_bytes = 0
        self._formed_at_ns = 0
        self._idle_logged_at_ns = 0
        self._compacted_ns = 0

    def restart(self) -> None:
        """Begin again at the committed image: whatever was staged beyond it has been discarded."""
        self.sources.clear()
        self.journal_ns = self.consistency_ns
        self.full_reason = ""
        self.no_room_since_ns = None
        self._hardening_ns = None
        self._unhardened = True
        self._newest_ns = 0
        self._staged_since_form_bytes = 0
        self._compacted_ns = 0

    def went_back(self, time_ns: int) -> None:
        """The committed image is of an earlier time now, and nothing later is staged."""
        self.forget_waiting()
        self.consistency_ns = self.journal_ns = time_ns
        self._newest_ns = min(self._newest_ns, time_ns)

    # Sources

    def add_source(self, source: int, *, is_new: bool = False, is_complete: bool = False) -> None:
        """Begin to count primary `source` into F: from its first promise on when it `is_new`, also to have left before
        and to come back; else from the last one that was staged. One with a pair that `is_complete` counts always:
        a restart may have forgotten its promises, if none came with records, and F waits for the next.

        What was staged beyond the last promise, beside records that waited then, is dropped: it is sent again.
        """
        if source not in self.sources:
            state = Source(self._pool.staged_through_ns(self._session, source), self._pool.track_size_bytes)
            self._pool.discard_source(self._session, source, state.through_ns)
            self.sources[source] = state
            self._newest_ns = max(self._newest_ns, state.through_ns)
            if is_complete or (state.through_ns and not is_new):
                self._join(state)

    def _join(self, state: Source) -> None:
        state.joined_ns = max(self.journal_ns, self._hardening_ns or 0)

    def has_interlocked(self, source: int) -> bool:
        """Whether the committed image includes `source` exactly up to C."""
        joined_ns = self.sources[source].joined_ns if source in self.sources else None
        return joined_ns is not None and self.consistency_ns > joined_ns

    def hardened_ns(self, source: int) -> int:
        """Everything of `source` up to here is durable: J once it counts the source, 0 before (S4, late joiner)."""
        joined_ns = self.sources[source].joined_ns
        return self.journal_ns if joined_ns is not None and self.journal_ns > joined_ns else 0

    def remove_source(self, source: int) -> None:
        """Primary `source` has no pair any more: F no longer waits for it."""
        self.sources.pop(source, None)

    def continue_stream(self, source: int) -> None:
        """The stream of `source` goes on, on a new link, after what was received."""
        state = self.sources.get(source)
        if state is not None:
            state.again_ns = state.taken_ns

    def begin_stream(self, source: int) -> None:
        """Records of `source` were lost on the way, and marked tracks will be copied: also those that wait, so they go.

        What is later than the promise goes too, whether staged beside tracks that wait or without room: a pair that is
        suspended is not copied now, and a commit would take its image past a gap. It is hardened nowhere, so it is marked.
        The session holds commits at an F of before, if there is an image to protect.
        """
        state = self.sources.get(source)
        if state is not None:
            if len(state.waiting_tracks):
                self._pool.discard_source(self._session, source, state.through_ns)
            state.taken_ns = state.through_ns
            state.again_ns = 0
            state.waiting_tracks.clear()
            state.staged_bytes += sum(received.size_bytes for received in state.waiting)
            state.waiting.clear()

    def forget_volume(self, number: int) -> None:
        """Volume `number` leaves the session: nothing of it is staged, nor waits."""
        self._pool.discard_volume(self._session, number)
        for state in self.sources.values():
            state.waiting_tracks.forget_volume(number)

    def restart_window(self, source: int) -> None:
        """A new link to `source`: the window counts from zero, and what was waiting will be sent again."""
        self.sources[source].staged_bytes = 0
        self.sources[source].waiting.clear()
        self.sources[source].comparer = None

    def drop_waiting(self, source: int) -> bool:
        """Forget what waits for room; returns whether anything did. The link must be opened anew then."""
        state = self.sources.get(source)
        if state is None or not state.waiting:
            return False
        state.waiting.clear()
        return True

    def window_bytes(self, source: int) -> int:
        """Return the total that `source` may have sent on its present link."""
        return self.sources[source].staged_bytes + self.settings.window_bytes

    # Receive and stage

    def receive(self, source: int, received: ReceivedSet) -> None:
        """Stage a record set, or keep it waiting while the pool is full."""
        self.records_received += len(received.records)
        self.bytes_received += received.size_bytes
        state = self.sources[source]
        if len(received.records) and int(received.records["time_ns"][0]) <= state.again_ns:
            received = received.after(state.again_ns, self._pool.track_size_bytes)
        if state.waiting or not self._stage(source, state, received):
            state.waiting.append(received)

    def stage_waiting(self) -> None:
        """Try again to stage what found the pool full."""
        for source, state in self.sources.items():
            while state.waiting and self._stage(source, state, state.waiting[0]):
                state.waiting.popleft()
                self.no_room_since_ns = None
        if not any(state.waiting for state in self.sources.values()):
            self.full_reason = ""

    # Waiting tracks

    def waiting_summary(self, without: Collection[int] = ()) -> WaitingSummary:
        """Return what waits because the device does not take it, of all sources but those in `without`."""
        return summary_of(s.waiting_tracks for source, s in self.sources.items() if source not in without)

    def restart_budget(self, now_ns: int) -> None:
        """What waits counts as waiting since now: somebody has decided that it is worth another try."""
        self.no_room_since_ns = None
        for state in self.sources.values():
            state.waiting_tracks.restart_age(now_ns)

    @property
    def waiting_ns(self) -> int | None:
        """Time of the oldest record that waits because the device does not take it; None when none does."""
        oldest_ns = (state.waiting_tracks.oldest_ns for state in self.sources.values())
        return min((time_ns for time_ns in oldest_ns if time_ns is not None), default=None)

    def forget_waiting(self) -> None:
        """Nothing that waits is wanted any more."""
        for state in self.sources.values():
            state.taken_ns = state.through_ns
            state.waiting_tracks.clear()

    def retry_waiting(self, now_ns: int) -> None:
        """Offer waiting tracks to the device again, when it is time; with every tick."""
        for source, state in self.sources.items():
            if state.waiting_tracks.is_due(now_ns):
                self._retry(source, state, state.waiting_tracks)
        if not any(state.waiting and not state.is_kept_back for state in self.sources.values()):
            self.no_room_since_ns = None
        elif self.no_room_since_ns is None:
            self.no_room_since_ns = now_ns

    def _retry(self, source: int, state: Source, waiting: WaitingTracks) -> None:
        self.retry_count += 1
        batch = waiting.next_batch()
        stored = batch.copy()
        reason = ""
        try:
            staged = self._pool.stage(
                self._session,
                source,
                state.taken_ns,
                waiting.records[batch],
                waiting.payload_of(batch),
                before_ns=waiting.oldest_of_ns(~batch),
            )
        except (PoolFullError, BusyError) as error:
            stored[:] = False
            reason = error.message
        else:
            if staged.unstored is not None:
                stored[np.flatnonzero(batch)[staged.unstored.entries]] = False
                reason = staged.unstored.reason
            state.logged_through_ns = staged.through_ns
            self._unhardened |= bool(stored.any())
        waiting.tried(stored, reason)

    def compact(self, hold_floor_ns: int) -> None:
        """While commits are held and the pool is full, give up staged entries that no commit will ever link.

        The commit that lifts the hold goes to a J at or past the present one, so of everything after the floor and up
        to J only the newest entry of each track is wanted.
        """
        if self.journal_ns > self._compacted_ns:
            self._compacted_ns = self.journal_ns
            self._pool.compact(self._session, hold_floor_ns, self.journal_ns)

    @property
    def tracks_kept(self) -> int:
        """Tracks of the pool that are kept for primaries that are behind."""
        pool = self._pool
        return min(ROOM_KEPT_BYTES_MAX // pool.track_size_bytes, pool.track_count // ROOM_KEPT_PART)

    def _must_leave_room(self, state: Source, received: ReceivedSet) -> bool:
        """Whether the pool's last room is kept from `state`: F waits for a primary that is behind it.

        What `state` sends cannot be committed before that primary has been heard; if it took all the room, the other
        one's records could not be staged, and neither would ever go on.
        """
        pool = self._pool
        kept = self.tracks_kept
        wanted = len(received.payload) // pool.track_size_bytes
        if pool.free_track_count + pool.pending_free_count - wanted >= kept or state.joined_ns is None:
            return False
        if state.through_ns <= min(o.through_ns for o in self.sources.values() if o.joined_ns is not None):
            return False
        return not pool.make_room(wanted + kept)

    def _stage(self, source: int, state: Source, received: ReceivedSet) -> bool:
        state.is_kept_back = False
        if len(received.records):
            if self._must_leave_room(state, received):
                state.is_kept_back = True
                self.full_reason = (
                    "the last room of the pool is kept for primaries that are behind: reconnect them, or delete or trim "
                    "volumes"
                )
                return False
            if not self._store(source, state, received):
                return False
            self._unhardened = True
            self._newest_ns = max(self._newest_ns, int(received.records["time_ns"][-1]))
            self._staged_since_form_bytes += received.size_bytes
        if state.joined_ns is None:
            self._join(state)
        state.taken_ns = max(state.taken_ns, received.through_ns)
        state.staged_bytes += received.size_bytes
        return True

    def _store(self, source: int, state: Source, received: ReceivedSet) -> bool:
        """Stage records; what the device does not take waits."""
        waiting = state.waiting_tracks
        if len(waiting) and self._waiting_bytes() >= self.settings.waiting_bytes_max:
            self.full_reason = f"too many tracks wait for the device: {waiting.reason}"
            return False
        try:
            staged = self._pool.stage(
                self._session,
                source,
                received.through_ns,
                received.records,
                received.payload,
                before_ns=waiting.oldest_ns,
            )
        except (PoolFullError, BusyError) as error:
            self.full_reason = error.message
            return False
        if staged.unstored is not None:
            waiting.add(received.records, received.payload, staged.unstored)
        state.logged_through_ns = staged.through_ns
        return True

    def _waiting_bytes(self) -> int:
        return sum(state.waiting_tracks.size_bytes for state in self.sources.values())

    # Compare

    def compare(self, source: int, query: Compare, number: int) -> None:
        """Take a query of `source` about volume `number`; `answers` gives the answer. Raises ProtocolError."""
        state = self.sources[source]
        if query.began_ns > state.received_ns:
            raise ProtocolError("a comparison came before the records that it is about; reconnect")
        if state.comparer is None:
            state.comparer = Comparer(self._pool, self._session, source)
        state.comparer.ask(query, number)

    def answers(self, clock: Callable[[], int]) -> list[tuple[int, Compared]]:
        """Return answers to queries, by source, as far as what came before them is staged and time allows."""
        return [
            (source, answer)
            for source, state in self.sources.items()
            if state.comparer is not None and not state.waiting and not len(state.waiting_tracks)
            for answer in state.comparer.answers(clock)
        ]

    # Form, harden, commit

    @property
    def form_ns(self) -> int:
        """F: everything up to it has been staged from every primary that has joined; J when none has."""
        joined: list[int] = [
            state.through_ns for state in self.sources.values() if state.joined_ns is not None
        ]
        return max(self.journal_ns, min(joined, default=0))

    def form(self, now_ns: int) -> bool:
        """Close a group if one is due. Returns whether the shell must run the pool's sync and then call `hardened`."""
        due = (
            now_ns - self._formed_at_ns >= self.settings.group_interval_ns
            or self._staged_since_form_bytes >= self.settings.group_bytes_max
        )
        if self._hardening_ns is not None or not due:
            return False
        self._formed_at_ns = now_ns
        form_ns = self.form_ns
        # With no record between J and F, time alone moves on, and is worth a sync only now and then. A durable record past J
        # is another matter: it can be recovered only when the promises of all others that reach it are too; while F stands
        # still, behind a primary or a track that waits, there is nothing to gain.
        is_idle = not self._unhardened and (self._newest_ns <= self.journal_ns or form_ns <= self.journal_ns)
        if is_idle:
            self.journal_ns = form_ns
            if now_ns - self._idle_logged_at_ns < self.settings.idle_log_interval_ns:
                return False
        if not self._log_through() and is_idle:
            return False
        self._idle_logged_at_ns = now_ns
        self._begin_harden(form_ns)
        return True

    def _begin_harden(self, form_ns: int) -> None:
        self._pool.log_write()
        self._hardening_ns = form_ns
        self._unhardened = False
        self._staged_since_form_bytes = 0

    def _log_through(self) -> bool:
        """Log promises that came without records, so that they survive; returns whether there was any."""
        news = False
        for source, state in self.sources.items():
            if state.through_ns > state.logged_through_ns:
                self._pool.stage(self._session, source, state.through_ns, _NO_RECORDS, b"")
                state.logged_through_ns = state.through_ns
                news = True
        return news

    def harden_all(self) -> None:
        """Begin a harden of everything staged, whatever the interval; `hardened` follows."""
        self._log_through()
        self._begin_harden(self.form_ns)

    def want_harden(self) -> None:
        """Harden with the next group, also when nothing has come."""
        self._unhardened = True

    @property
    def is_hardening(self) -> bool:
        """Whether a harden is under way."""
        return self._hardening_ns is not None

    def hardened(self) -> None:
        """The sync that `form` asked for has succeeded."""
        if self._hardening_ns is not None:
            self.journal_ns = max(self.journal_ns, self._hardening_ns)
            self._hardening_ns = None

    def harden_failed(self) -> None:
        """The sync failed: nothing of it counts; the pool takes no more writes."""
        self._hardening_ns = None
        self._unhardened = True

    def commit(self, limit_ns: int) -> None:
        """Move C to `limit_ns` (at most J): link everything staged up to it. Does nothing if C is there already."""
        limit_ns = min(limit_ns, self.journal_ns)
        if limit_ns <= self.consistency_ns:
            return
        if self._pool.staged_count(self._session):
            self._pool.commit(self._session, limit_ns)
            self._pool.log_write()
            self.groups_committed += 1
        self.consistency_ns = limit_ns
