"""The deciding cores on simulated disks, driven call by call: a primary site, a secondary site, and a wire between them.

Nothing here stands in for a class of the product: pools, cores and messages are the real ones. What a shell does with
sockets and threads is done at once and in order, and time moves only when a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np

from isochrone.capture.actions import CloseLink as PrimaryCloseLink
from isochrone.capture.actions import ReleaseHeld
from isochrone.capture.links import PrimaryLinks
from isochrone.capture.own_marks import OwnMarks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import (
    PROTOCOL_VERSION,
    Ack,
    Compare,
    Compared,
    Configure,
    Hello,
    Message,
    RecordSet,
    WantedVolume,
)
from isochrone.model.choices import Compression, MarkPolicy, OverflowPolicy
from isochrone.model.errors import IsochroneError
from isochrone.model.policy import SessionPolicy
from isochrone.model.records import RECORD_DTYPE, RecordBatch, RecordKind
from isochrone.mover.mover import Mover, ReceivedSet
from isochrone.mover.settings import MoverSettings
from isochrone.session.actions import CloseLink, Dial, Harden, Rewind, SendMessage
from isochrone.session.document import (
    DOCUMENT_PREFIX,
    PairDocument,
    SessionDocument,
    SourceDocument,
    load_document,
)
from isochrone.session.links import SessionLinks
from isochrone.session.session import Session
from isochrone.session.settings import SessionSettings
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk
from support.history import finish
from support.store import TRACK, new_pool, records, run, tracks

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
WINDOW_OPEN = 1 << 40

SESSION_ID = "5e" * 16
MOVER_ID = "40" * 16
PRIMARY_IDS = ("a1" * 16, "a2" * 16)


class Clock:
    """Host time that moves by a nanosecond with every look, and by more when told."""

    def __init__(self) -> None:
        self.ns = SECOND_NS

    def __call__(self) -> int:
        self.ns += 1
        return self.ns

    def advance(self, ns: int) -> None:
        self.ns += ns


def identities() -> Callable[[], str]:
    """Fresh identities, one after the other."""
    drawn = 0

    def draw() -> str:
        nonlocal drawn
        drawn += 1
        return f"{drawn:032x}"

    return draw


def batch(
    time_ns: int, *tags: int, volume: int = 1, track: int = 0, last_time_ns: int | None = None
) -> RecordBatch:
    """One captured batch of whole tracks, each filled with its tag."""
    headers = records((time_ns, volume, track, len(tags), RecordKind.DATA)).tobytes()
    return RecordBatch(volume, time_ns, last_time_ns or time_ns, 1, headers, tracks(*tags))


def hello(
    *,
    session_id: str = SESSION_ID,
    session_name: str = "s",
    epoch: int = 1,
    mover_id: str = MOVER_ID,
    controller_id: str = "",
    protocol_version: int = PROTOCOL_VERSION,
    track_size_bytes: int = TRACK,
    incarnation: str = "",
    received_through_ns: int = 0,
) -> Hello:
    """What a mover says first."""
    return Hello(
        protocol_version,
        session_id,
        session_name,
        epoch,
        mover_id,
        "mover",
        controller_id,
        track_size_bytes,
        Compression.OFF,
        incarnation,
        received_through_ns,
    )


class Replica:
    """The naive receiver: applies record sets in order and refuses what breaks a promise."""

    def __init__(self) -> None:
        self.tracks: dict[tuple[int, int], int] = {}
        self.through_ns = 0
        self.record_count = 0
        self.track_count = 0

    def receive(self, record_set: RecordSet) -> None:
        """Take one set; every record must be later than the last promise and not past the new one."""
        payload = bytes(record_set.payload)
        assert record_set.through_ns >= self.through_ns
        for time_ns, volume, track, track_count, kind in np.frombuffer(
            record_set.headers, RECORD_DTYPE
        ).tolist():
            assert self.through_ns < time_ns <= record_set.through_ns
            self.record_count += 1
            self.track_count += track_count
            for number in range(track, track + track_count):
                tag = 0
                if kind & RecordKind.DATA:
                    tag, payload = payload[0], payload[TRACK:]
                self.tracks[volume, number] = tag
        assert not payload
        self.through_ns = record_set.through_ns

    def tags(self, volume: int, count: int) -> list[int]:
        """First byte of each track."""
        return [self.tracks.get((volume, track), 0) for track in range(count)]


class PrimarySite:
    """A primary controller's capture cores over a real pool.

    Attributes:
        outbox: messages sent, by link, until taken.
        closed: why links were closed, by link.
        released_count: how often what waited for room was let go.
        refusals: why volumes cannot be primaries, by name.
        moved_here: sessions whose mover is at this site now.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        volumes: dict[str, int] | None = None,
        settings: CaptureSettings | None = None,
        pool_tracks: int = 256,
        identity: str = PRIMARY_IDS[0],
        name: str = "p1",
    ) -> None:
        self.clock = clock or Clock()
        self.settings = settings or CaptureSettings()
        self.identity = identity
        self.name = name
        self.disk = SimDisk(seed=1)
        self.outbox: dict[int, list[Message]] = {}
        self.closed: dict[int, str] = {}
        self.released_count = 0
        self.refusals: dict[str, str] = {}
        self.moved_here: set[str] = set()
        self._new_identity = identities()
        Pool.create(self.disk, size_bytes=pool_tracks * TRACK)
        self.start()
        for volume, track_count in (volumes or {"a": 16}).items():
            self.pool.create_volume(volume, track_count * TRACK)

    def start(self) -> None:
        """Open the pool and restore the cores, as a controller does."""
        self.pool = Pool.open(self.disk)
        self.primary = Primary(self.pool, self.disk, self.clock, self.settings, self.clock())
        self.links = PrimaryLinks(
            self.primary,
            self.identity,
            self.name,
            TRACK,
            self._new_identity,
            lambda name: self.refusals.get(name, ""),
            lambda session_id: session_id in self.moved_here,
        )

    def restart(self) -> None:
        """kill -9, and start again."""
        self.disk.kill()
        self.start()

    # Applications

    def write(self, volume: str, track: int, *tags: int) -> int:
        """Write whole tracks as one batch; returns how long its reply is held."""
        self.primary.write(self.pool.volumes[volume], track * TRACK, tracks(*tags))
        return self.primary.end_batch(self.pool.volumes[volume].number)

    def trim(self, volume: str, track: int, count: int) -> None:
        self.primary.zero(self.pool.volumes[volume], track * TRACK, count * TRACK, allocate=False)
        self.primary.end_batch(1)

    # Links

    def say(self, link: int, message: Message) -> list[Message]:
        """Deliver `message` on `link`; returns what is answered on it."""
        self.links.link_received(link, message)
        return self.take(link)

    def take(self, link: int) -> list[Message]:
        """Return and forget what was sent on `link`."""
        for action in self.primary.take_actions():
            if isinstance(action, PrimaryCloseLink):
                self.closed[action.link] = action.reason
            elif isinstance(action, ReleaseHeld):
                self.released_count += 1
            else:
                self.outbox.setdefault(action.link, []).append(action.message)
        return self.outbox.pop(link, [])

    def tick(self, link: int = 1, advance_ns: int = 10 * MILLISECOND_NS) -> list[Message]:
        """Let time pass and the cores work; the link is idle. Returns what is sent on `link`."""
        self.clock.advance(advance_ns)
        self.links.link_pending_bytes(link, 0)
        self.primary.tick()
        self.work_on_spill()
        return self.take(link)

    def work_on_spill(self) -> None:
        """Make the spill's blocking calls until there are none."""
        while (job := self.primary.next_spill_job()) is not None:
            job.run()
            self.primary.spill_job_done(job)

    def sets(self, link: int = 1, ticks: int = 1) -> list[RecordSet]:
        """Return the record sets that some ticks send."""
        return [m for _ in range(ticks) for m in self.tick(link) if isinstance(m, RecordSet)]

    def open_stream(
        self,
        volumes: Iterable[str] = ("a",),
        *,
        link: int = 1,
        greeting: Hello | None = None,
        not_empty: Collection[str] = (),
        window_bytes: int = WINDOW_OPEN,
        policy: OverflowPolicy = OverflowPolicy.PACE,
        pace_delay_ns_max: int = 0,
        marks: MarkPolicy = MarkPolicy.MEMORY,
    ) -> SessionStream:
        """Go through the handshake of one session on `link` and return its stream."""
        greeting = greeting or hello()
        self.links.link_opened(link)
        self.say(link, greeting)
        wanted = SessionPolicy(overflow_policy=policy, pace_delay_ns_max=pace_delay_ns_max, mark_policy=marks)
        self.say(link, Configure(1, [WantedVolume(name, name in not_empty) for name in volumes], wanted))
        self.say(link, Ack(0, window_bytes, 0))
        return self.primary.streams[greeting.session_id]

    def copied(self, link: int = 1, replica: Replica | None = None) -> Replica:
        """Tick until nothing is left to be copied or sent; returns what a receiver then has.

        Whatever is compared is said to differ.
        """
        replica = replica or Replica()
        for _ in range(100):
            for message in self.tick(link):
                if isinstance(message, RecordSet):
                    replica.receive(message)
                elif isinstance(message, Compare):
                    self.say(link, Compared(message.number, (True,) * message.track_count))
            busy = any(s.is_copying or s.backlog.unsent_bytes for s in self.primary.streams.values())
            if not busy:
                return replica
        raise AssertionError("the copy does not end")

    def marked(self, volume: str = "a", session_id: str = SESSION_ID) -> set[int]:
        """Tracks marked in the session's change map."""
        number = self.pool.volumes[volume].number
        return set(
            np.flatnonzero(self.primary.streams[session_id].volumes[number].change_map.marked()).tolist()
        )


IDLE_LOG = MoverSettings(idle_log_interval_ns=SECOND_NS)


def mover_of(*sources: int, settings: MoverSettings = IDLE_LOG, pool_tracks: int = 64) -> tuple[Mover, Pool]:
    """A mover of some primaries over a pool with volume "a" (number 1) of 16 tracks."""
    _, pool = new_pool(SimDisk(seed=1), track_count=pool_tracks)
    pool.create_volume("a", 16 * TRACK)
    mover = Mover(pool, 1, settings)
    for source in sources:
        mover.add_source(source)
    return mover, pool


def data(time_ns: int, track: int, *tags: int, through_ns: int | None = None) -> ReceivedSet:
    """A received record set of one write."""
    rows = records((time_ns, 1, track, len(tags), RecordKind.DATA))
    return ReceivedSet(through_ns or time_ns, rows, tracks(*tags))


def heartbeat(through_ns: int) -> ReceivedSet:
    """A received record set that only promises."""
    return ReceivedSet(through_ns, np.empty(0, RECORD_DTYPE), b"")


def form_and_harden(mover: Mover, pool: Pool, now_ns: int) -> bool:
    """Form a group and run the sync it asks for; returns whether it asked for one."""
    due = mover.form(now_ns)
    if due:
        run(pool.sync())
        mover.hardened()
    return due


def new_document(
    *,
    primaries: Iterable[str] = ("p1",),
    pairs: Iterable[tuple[int, str, str]] = ((0, "a", "a"),),
) -> SessionDocument:
    """A new session's document; pairs are (source number, primary volume, secondary volume)."""
    return SessionDocument(
        session_id=SESSION_ID,
        name="s",
        number=1,
        group_interval_ns=10 * MILLISECOND_NS,
        sources=tuple(SourceDocument(name=name, address=f"unix:/{name}") for name in primaries),
        pairs=tuple(
            PairDocument(source=source, primary_volume=volume, secondary_volume=secondary)
            for source, volume, secondary in pairs
        ),
    )


class SecondarySite:
    """A secondary controller's session and mover over a real pool.

    Attributes:
        outbox: messages sent, by source, until taken.
        dialled: sources to connect to, until taken.
        closed: why links were closed, by source, in order.
        hardens_due: how often the pool's sync was asked for and not yet run.
        rewinds_due: times that the volumes are to go back to.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        document: SessionDocument | None = None,
        settings: SessionSettings | None = None,
        pool_tracks: int = 256,
    ) -> None:
        self.clock = clock or Clock()
        self.settings = settings or SessionSettings()
        self.disk = SimDisk(seed=2)
        Pool.create(self.disk, size_bytes=pool_tracks * TRACK)
        self._open_pool()
        self._open_session(document or new_document())
        self.session.remember(self.session.document)

    def _open_pool(self) -> None:
        self.pool = Pool.open(self.disk)
        self.primary = Primary(self.pool, self.disk, self.clock, CaptureSettings(), self.clock())

    def _open_session(self, document: SessionDocument) -> None:
        self.outbox: dict[int, list[Message]] = {}
        self.dialled: list[int] = []
        self.closed: list[tuple[int, str]] = []
        self.hardens_due = 0
        self.rewinds_due: list[int] = []
        self.session = Session(
            self.pool,
            document,
            self.clock,
            lambda: 0.0,
            self.settings,
            OwnMarks(self.primary, MOVER_ID, "mover"),
        )
        self.links = SessionLinks(self.session, self.pool, MOVER_ID, "mover")

    def restart(self) -> None:
        """kill -9, and start again, as a controller does."""
        self.disk.kill()
        self.reopen()

    def reopen(self) -> None:
        """Start the cores from what the disk holds."""
        self._open_pool()
        for key, value in self.pool.documents.items():
            if key.startswith(DOCUMENT_PREFIX):
                self._open_session(load_document(key, value))
                self.session.continue_recovery()
                self.collect()

    def collect(self) -> None:
        """Sort out what the session wants."""
        for action in self.session.take_actions():
            match action:
                case SendMessage(source, message):
                    self.outbox.setdefault(source, []).append(message)
                case CloseLink(source, reason):
                    self.closed.append((source, reason))
                case Dial(source, _):
                    self.dialled.append(source)
                case Harden():
                    self.hardens_due += 1
                case Rewind(at_ns):
                    self.rewinds_due.append(at_ns)

    def take(self, source: int = 0) -> list[Message]:
        """Return and forget what was sent to `source`."""
        self.collect()
        return self.outbox.pop(source, [])

    def say(self, message: Message, source: int = 0) -> list[Message]:
        """Deliver a message of `source`; returns what is answered."""
        self.links.link_received(source, message)
        return self.take(source)

    def tick(self, advance_ns: int = 10 * MILLISECOND_NS) -> None:
        """Let time pass and the session work; syncs are left due."""
        self.clock.advance(advance_ns)
        self.session.tick()
        self.collect()

    def harden(self) -> None:
        """Run every sync that was asked for to its end, and tell the session."""
        self.collect()
        while self.hardens_due:
            self.hardens_due -= 1
            run(self.pool.sync())
            self.session.hardened()
            self.collect()
            self.rewind()

    def rewind(self) -> None:
        """Take the volumes back if that was asked for, and tell the session."""
        while self.rewinds_due:
            at_ns = self.rewinds_due.pop()
            try:
                changed = finish(self.pool.history_rewind(self.session.document.number, at_ns))
            except (IsochroneError, OSError) as error:
                self.session.recovery.rewind_failed(error)
            else:
                self.session.recovery.rewound(changed)
            self.collect()

    def greet(self, source: int = 0) -> list[Message]:
        """Open the link to `source` as the shell does; returns the greeting."""
        self.links.link_opened(source)
        return self.take(source)


class Wire:
    """Carries messages between one secondary and its primaries, at once and in order.

    Attributes:
        links: the open link of each source.
        refuses: sources that cannot be reached.
    """

    def __init__(self, secondary: SecondarySite, *primaries: PrimarySite) -> None:
        self.secondary = secondary
        self.primaries = primaries
        self.links: dict[int, int] = {}
        self.refuses: set[int] = set()
        self._next_link = 1

    def cut(self, source: int = 0) -> None:
        """Break the link; both ends learn it."""
        link = self.links.pop(source, None)
        if link is not None:
            self.primaries[source].links.link_lost(link)
            self.secondary.links.link_lost(source, "cut")

    def restart_primary(self, source: int = 0) -> None:
        """kill -9 of a primary."""
        self.primaries[source].restart()
        if self.links.pop(source, None) is not None:
            self.secondary.links.link_lost(source, "the primary died")

    def restart_secondary(self) -> None:
        """kill -9 of the secondary."""
        for source, link in self.links.items():
            self.primaries[source].links.link_lost(link)
        self.links.clear()
        self.secondary.restart()

    def _dial(self, source: int) -> None:
        if source in self.refuses:
            self.secondary.links.link_lost(source, "nobody answers")
            return
        self.links[source] = self._next_link
        self._next_link += 1
        self.primaries[source].links.link_opened(self.links[source])
        self.secondary.links.link_opened(source)

    def deliver(self) -> bool:
        """Carry what is on its way one step; returns whether anything was."""
        self.secondary.collect()
        moved = bool(self.secondary.dialled)
        for source in self.secondary.dialled:
            self._dial(source)
        self.secondary.dialled.clear()
        self.secondary.collect()
        for source, primary in enumerate(self.primaries):
            for message in self.secondary.take(source):
                if source in self.links:
                    primary.links.link_received(self.links[source], message)
                    moved = True
        for source, _ in self.secondary.closed:
            if (link := self.links.pop(source, None)) is not None:
                self.primaries[source].links.link_lost(link)
        self.secondary.closed.clear()
        for source, primary in enumerate(self.primaries):
            link = self.links.get(source, 0)
            for message in primary.take(link):
                moved = True
                if self.links.get(source) == link:
                    self.secondary.links.link_received(source, message)
            if link in primary.closed and self.links.get(source) == link:
                self.cut(source)
        return moved

    def step(self, advance_ns: int = 10 * MILLISECOND_NS) -> None:
        """A tick of every site, everything delivered, every sync run."""
        self.secondary.clock.advance(advance_ns)
        for source, primary in enumerate(self.primaries):
            primary.links.link_pending_bytes(self.links.get(source, 0), 0)
            primary.primary.tick()
            primary.work_on_spill()
        self.secondary.session.tick()
        while self.deliver():
            pass
        self.secondary.harden()
        while self.deliver():
            pass

    def run_until(self, condition: Callable[[], bool], steps_max: int = 200) -> None:
        """Step until `condition` holds."""
        for _ in range(steps_max):
            if condition():
                return
            self.step()
        raise AssertionError("the condition does not come true")

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()


def images_equal(primary: PrimarySite, secondary: SecondarySite, *volumes: str) -> bool:
    """Whether the volumes read the same at both sites."""
    return all(
        primary.pool.volumes[name].read(0, primary.pool.volumes[name].size_bytes)
        == secondary.pool.volumes[name].read(0, secondary.pool.volumes[name].size_bytes)
        for name in volumes
    )
