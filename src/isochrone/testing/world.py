"""The simulated world: primaries, a secondary, applications, faults, and the checks after each (design section 9).

One seed decides everything: how many controllers and volumes, what the applications write, how slow the links are, what
breaks and when. The code under test is what ships: store, capture, link framing, mover and session. The world plays
the shells (virtual time, network, syncs in steps) and the operator, and asks the oracle.

    while the session runs   applications write; links break, stall and corrupt; processes die at any event or disk
                             operation; hosts lose power; side files and pools fill; the operator suspends and resumes
    checked meanwhile        the committed image is exactly the writes up to C; every write that is not hardened is marked;
                             stamps follow acknowledgements
    at the end, one of       disaster: the primaries die for good, the secondary recovers, perhaps with crashes on the way;
                             calm: faults stop, everything becomes DUPLEX and equal; switchover: drained, nothing lost
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from isochrone.capture.settings import CaptureSettings
from isochrone.model.choices import Compression, OverflowPolicy
from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument
from isochrone.session.explain import blocked_on, pair_state
from isochrone.session.session import Session
from isochrone.session.settings import SessionSettings
from isochrone.session.transitions import with_pairs_added
from isochrone.store.pool import Pool
from isochrone.testing.application import Application, settle_after_restart, volume_key
from isochrone.testing.events import MILLISECOND_NS, SECOND_NS, Events
from isochrone.testing.history import ZERO_TOKEN, History
from isochrone.testing.network import SimConnection
from isochrone.testing.node import Node
from isochrone.testing.oracle import Oracle, OracleError
from isochrone.testing.sim_disk import SimDisk, crash_nth
from isochrone.testing.sim_primary import PrimaryNode
from isochrone.testing.sim_secondary import SecondaryNode

TRACK_SIZE_BYTES: Final = 4096
RUN_NS_MAX: Final = 2 * SECOND_NS
SETTLE_NS_MAX: Final = 20 * SECOND_NS
"""Virtual time within which a calm world must be DUPLEX and equal."""


@dataclass(slots=True)
class Odds:
    """How rough one world is, drawn from its seed: chances per fault event."""

    cut: float = 0.2
    stall: float = 0.1
    kill: float = 0.15
    crash_in_disk: float = 0.15
    power: float = 0.1
    operator: float = 0.15
    corruption: float = 0.0


@dataclass(slots=True)
class Tally:
    """What happened in one run, for the log and for tests that want to know that faults were met."""

    writes: int = 0
    refused_commands: int = 0
    image_checks: int = 0
    mark_checks: int = 0
    crashes: int = 0
    cuts: int = 0
    suspensions: int = 0
    resyncs_held: int = 0
    ending: str = ""
    lost_writes: int = 0


def secondary_name(node: PrimaryNode, volume: str) -> str:
    """Return the name of a pair's secondary volume."""
    return f"{node.name}-{volume}"


class World:
    """One run. `run()` raises OracleError when a promise is broken."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.events = Events()
        self.history = History(track_size_bytes=TRACK_SIZE_BYTES)
        self.oracle = Oracle(self.history)
        self.tally = Tally()
        self.applications: list[Application] = []
        self.dead: set[Node] = set()
        self.odds = self._draw_odds()
        self.volume_tracks = self.rng.choice((24, 64, 150))
        self.primaries = [self._make_primary(number) for number in range(self.rng.choice((1, 2, 2, 3)))]
        self.secondary = self._make_secondary()
        self._faults_on = True
        self._checking = True

    def _draw_odds(self) -> Odds:
        rng = self.rng
        if rng.random() < 0.15:
            return Odds(cut=0, stall=0, kill=0, crash_in_disk=0, power=0, operator=0)
        return Odds(corruption=rng.choice((0.0, 0.0, 0.002)), power=rng.choice((0.0, 0.1)))

    def _make_primary(self, number: int) -> PrimaryNode:
        settings = CaptureSettings(
            side_file_bytes_max=self.rng.choice((64, 300, 4000)) * 4096,
            record_set_bytes_max=self.rng.choice((8192, 65536)),
            copy_ahead_bytes_max=self.rng.choice((8, 64)) * 4096,
            copy_step_tracks_max=self.rng.choice((3, 16, 256)),
            heartbeat_interval_ns=10 * MILLISECOND_NS,
            prune_interval_ns=self.rng.choice((20, 200)) * MILLISECOND_NS,
        )
        disk = SimDisk(seed=self.rng.getrandbits(32))
        volumes = self.rng.choice((1, 2, 3))
        Pool.create(
            disk, size_bytes=(volumes + 1) * 2 * self.volume_tracks * TRACK_SIZE_BYTES, preallocate=True
        )
        name, identity = f"p{number}", f"{number + 1:032x}"
        return PrimaryNode(name, identity, self.events, self._fork(), disk, settings, volumes)

    def _make_secondary(self) -> SecondaryNode:
        disk = SimDisk(seed=self.rng.getrandbits(32))
        tracks = len(self.primaries) * 3 * self.volume_tracks * self.rng.choice((4, 6)) + 1000
        Pool.create(disk, size_bytes=tracks * TRACK_SIZE_BYTES, preallocate=True)
        settings = SessionSettings(
            redial_ns_min=5 * MILLISECOND_NS,
            redial_ns_max=50 * MILLISECOND_NS,
            silence_ns_max=300 * MILLISECOND_NS,
        )
        return SecondaryNode("s", "f" * 32, self.events, self._fork(), disk, settings, self._dial)

    def _fork(self) -> Random:
        return Random(self.rng.getrandbits(64))

    # The network

    def _dial(self, secondary: SecondaryNode, source: int, address: str) -> SimConnection | None:
        primary = next(node for node in self.primaries if node.name == address)
        if not primary.is_up:
            return None
        link, to_primary = primary.accept()
        connection = SimConnection(
            self.events,
            self.rng,
            TRACK_SIZE_BYTES,
            self.odds.corruption if self._faults_on else 0.0,
            to_primary,
            lambda message: secondary.received(source, connection, message),
        )
        primary.connections[link] = connection
        connection.on_cut.append(lambda _reason: primary.link_cut(link))
        connection.on_cut.append(lambda reason: secondary.link_cut(source, connection, reason))
        return connection

    # Setting up

    def _begin(self) -> None:
        """Start the controllers, create volumes with some content, create the session, start the applications."""
        for node in self.primaries:
            node.start()
            for number in range(node.volume_count):
                name = f"v{number}"
                node.pool.create_volume(name, self.volume_tracks * TRACK_SIZE_BYTES)
                self.history.add_volume(volume_key(node, name), self.volume_tracks)
                node.volume_names.append(name)
            node.sync_now()
        every = [(node, name) for node in self.primaries for name in node.volume_names]
        self.applications = [
            Application(self.events, self._fork(), self.history, every)
            for _ in range(self.rng.choice((1, 2, 4)))
        ]
        self.events.run_until(self.events.now_ns() + self.rng.choice((0, 50, 300)) * MILLISECOND_NS)
        self.secondary.start()
        self.secondary.create_session(self._session_document())
        self.secondary.sync_now()
        self._schedule_fault()
        self._schedule_check()

    def _session_document(self) -> SessionDocument:
        document = SessionDocument(
            session_id="a" * 32,
            name="pay",
            number=1,
            group_interval_ns=self.rng.choice((5, 10, 50)) * MILLISECOND_NS,
            compression=Compression.OFF,
            overflow_policy=self.rng.choice((OverflowPolicy.PACE, OverflowPolicy.SUSPEND)),
            pace_delay_ns_max=20 * MILLISECOND_NS,
        )
        sources = [SourceDocument(name=node.name, address=node.name) for node in self.primaries]
        pairs = [(n.name, v, secondary_name(n, v)) for n in self.primaries for v in n.volume_names]
        later = self.rng.random() < 0.3 and len(pairs) > 1
        if later:
            extra = [pairs.pop()]
            self.events.after(self.rng.randrange(SECOND_NS), lambda: self._add_pairs(extra))
        return with_pairs_added(document, sources, pairs)

    def _add_pairs(self, pairs: list[tuple[str, str, str]]) -> None:
        """The operator adds a pair to the running session."""
        self._operate(lambda session: session.add_pairs([], pairs))
        if not self.secondary.is_up:
            self.events.after(100 * MILLISECOND_NS, lambda: self._add_pairs(pairs))

    # Faults

    def _schedule_fault(self) -> None:
        if self._faults_on:
            self.events.after(self.rng.randrange(10, 250) * MILLISECOND_NS, self._fault)

    def _fault(self) -> None:
        if not self._faults_on:
            return
        rng, odds = self.rng, self.odds
        nodes: list[PrimaryNode | SecondaryNode] = [*self.primaries, self.secondary]
        node = rng.choice(nodes)
        kinds: list[tuple[float, Callable[[], None]]] = [
            (odds.cut, self._cut_a_link),
            (odds.stall, self._stall_a_link),
            (odds.kill, lambda: self._crash(node, node.kill)),
            (odds.power, lambda: self._crash(node, node.lose_power)),
            (odds.crash_in_disk, lambda: self._crash_in_disk(node)),
            (odds.operator, self._operator),
        ]
        chance = rng.random()
        for odd, fault in kinds:
            if chance < odd:
                fault()
                break
            chance -= odd
        self._schedule_fault()

    def _connections(self) -> list[SimConnection]:
        return [c for c in self.secondary.connections.values() if c.is_open]

    def _cut_a_link(self) -> None:
        connections = self._connections()
        if connections:
            self.tally.cuts += 1
            self.rng.choice(connections).cut("cut by the world")

    def _stall_a_link(self) -> None:
        connections = self._connections()
        if connections:
            self.rng.choice(connections).is_stalled = True

    def _crash(self, node: PrimaryNode | SecondaryNode, how: Callable[[], None]) -> None:
        if node.is_up:
            how()
            self._came_down(node)

    def _crash_in_disk(self, node: PrimaryNode | SecondaryNode) -> None:
        """Die at a disk operation to come, in the middle of whatever it belongs to."""
        if node.is_up:
            node.on_death = lambda: self._came_down(node)
            node.disk.hook = crash_nth(node.disk.operation_count + self.rng.randrange(1, 60))

    def _came_down(self, node: PrimaryNode | SecondaryNode) -> None:
        node.disk.hook = None
        node.on_death = None
        self.tally.crashes += 1
        self.events.after(self.rng.randrange(1, 300) * MILLISECOND_NS, lambda: self._restart(node))

    def _restart(self, node: PrimaryNode | SecondaryNode) -> None:
        if node.is_up or node in self.dead:
            return
        if self._faults_on and self.rng.random() < 0.1:
            node.on_death = lambda: self._came_down(node)
            node.disk.hook = crash_nth(node.disk.operation_count + self.rng.randrange(1, 30))
        node.start()
        if node.has_died():
            return
        if isinstance(node, PrimaryNode):
            node.guarded(lambda: settle_after_restart(self.history, self.oracle, node, node.volume_names))()
        else:
            self.check_committed_image()

    def _operate(self, command: Callable[[Session], None]) -> None:
        """Give the session a command as an operator would; what is refused is refused."""
        session = self.secondary.session
        if not self.secondary.is_up or session is None:
            return

        def run() -> None:
            try:
                command(session)
            except ConflictError:
                self.tally.refused_commands += 1
            self.secondary.act()

        self.secondary.guarded(run)()

    def _operator(self) -> None:
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return
        if session.document.state is SessionState.SUSPENDED:
            self._operate(lambda s: s.resume())
        elif self.rng.random() < 0.3:
            self._operate(lambda s: s.suspend("by the operator"))

    # Checks

    def _schedule_check(self) -> None:
        self.events.after(self.rng.randrange(80, 400) * MILLISECOND_NS, self._check)

    def _check(self) -> None:
        if self._checking:
            self.check_committed_image()
            self.check_marks()
            self._resume_if_suspended_long()
            self._schedule_check()

    def _resume_if_suspended_long(self) -> None:
        session = self.secondary.session
        if session and session.document.state is SessionState.SUSPENDED:
            self.tally.suspensions += 1
            if self.rng.random() < 0.5:
                self._operate(lambda s: s.resume())

    def check_committed_image(self) -> None:
        """Every pair that was ever complete holds exactly the writes up to C (promises 1, 3 and 5)."""
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return
        # A pair that is complete but not DUPLEX is in a resync; the hold must keep its image true all the same.
        complete = [pair for pair in session.document.pairs if pair.complete]
        if complete:
            self.tally.image_checks += 1
            self.tally.resyncs_held += session.document.hold_floor_ns is not None
            self._check_volumes(complete, session.mover.consistency_ns)

    def _check_volumes(self, pairs: list[PairDocument], through_ns: int) -> None:
        image: dict[str, list[bytes]] = {}
        for pair in pairs:
            key = volume_key(self.primaries[pair.source], pair.primary_volume)
            image[key] = self.history.split_tracks(self._read(pair.secondary_volume))
        self.oracle.check_image(image, through_ns, volumes=list(image))

    def check_marks(self) -> None:
        """Whatever has changed since what is surely hardened is marked (promise 2, P3.1)."""
        session = self.secondary.session
        if session is None:
            return
        held = self.history.state_at(None)
        hardened = self.history.state_at(self.secondary.journal_seen_ns)
        for pair in session.document.pairs:
            node = self.primaries[pair.source]
            if not (pair.complete and node.is_up) or session.document.is_over:
                continue
            stream = node.primary.streams.get(session.document.session_id)
            if stream is None and node.pool.reopened_after_loss:
                continue  # the registration was not flushed; the mover will have everything copied
            if stream is None:
                raise OracleError("a primary has forgotten the session:", [node.name])
            captured = next(c for c in stream.volumes.values() if c.volume.name == pair.primary_volume)
            marked = captured.change_map.marked()
            key = volume_key(node, pair.primary_volume)
            self.tally.mark_checks += 1
            forgotten = [
                f"{key} track {track}"
                for track in range(self.volume_tracks)
                if held.get((key, track), ZERO_TOKEN) != hardened.get((key, track), ZERO_TOKEN)
                and not marked[track]
            ]
            if forgotten:
                raise OracleError("tracks changed since the hardened time are not marked:", forgotten)

    # The run and its endings

    def run(self) -> Tally:
        """Live through it. Raises OracleError when a promise is broken."""
        self._begin()
        self.events.run_until(self.events.now_ns() + self.rng.randrange(RUN_NS_MAX // 4, RUN_NS_MAX))
        ending = self.rng.choice(
            (self._end_in_disaster, self._end_in_disaster, self._end_in_calm, self._switch_over)
        )
        self.tally.ending = ending.__name__.strip("_")
        ending()
        self.oracle.check_dependencies()
        self.tally.writes = sum(application.write_count for application in self.applications)
        return self.tally

    def _stop_faults(self) -> None:
        self._faults_on = False
        for node in (*self.primaries, self.secondary):
            node.disk.hook = None
        for application in self.applications:
            # The slowest link must keep up with a side file of the smallest size.
            application.pause_ns = max(application.pause_ns, 60 * MILLISECOND_NS)
        for connection in self._connections():
            if connection.is_stalled:
                connection.cut("the stall ends")

    def _stop_writing(self) -> None:
        for application in self.applications:
            application.is_writing = False
        self.events.run_until(self.events.now_ns() + SECOND_NS)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        if not self.events.run_until(self.events.now_ns() + SETTLE_NS_MAX, condition):
            raise OracleError(f"nothing is wrong any more, but {what} does not come:", [self._picture()])

    def _picture(self) -> str:
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return "the secondary is down"
        pairs = [f"{pair.secondary_volume} {pair_state(session, pair)}" for pair in session.document.pairs]
        mover = session.mover
        return (
            f"{session.document.state}, blocked on: {blocked_on(session, self.events.now_ns()) or 'nothing'}; "
            f"F {mover.form_ns} J {mover.journal_ns} C {mover.consistency_ns}, hold {session.document.hold_floor_ns}; "
            + ", ".join(pairs)
        )

    def _is_duplex(self) -> bool:
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return False
        if session.document.state is SessionState.SUSPENDED:
            self._operate(lambda s: s.resume())
            return False
        return bool(session.document.pairs) and all(pair.duplex for pair in session.document.pairs)

    def _end_in_calm(self) -> None:
        """Faults stop: everything becomes DUPLEX, and with writes stopped too, equal (P2.1)."""
        self._stop_faults()
        self._wait(self._is_duplex, "DUPLEX while applications write")
        self._stop_writing()
        self._wait(self._is_duplex, "DUPLEX")
        last_ns = self.history.stamped()[-1].time_ns or 0
        self._wait(lambda: self._is_duplex() and self._consistency_ns() >= last_ns, "C past the last write")
        self._checking = False
        self.check_committed_image()
        self.tally.lost_writes = 0

    def _consistency_ns(self) -> int:
        session = self.secondary.session
        return session.mover.consistency_ns if session else 0

    def _end_in_disaster(self) -> None:
        """The primary site dies in mid-write; the secondary recovers, perhaps dying on the way, and nobody goes back."""
        self._checking = False
        for node in self.primaries:
            self.dead.add(node)
            if node.is_up:
                self.rng.choice((node.kill, node.lose_power))()
        self._faults_on = self.rng.random() < 0.5
        if not self._faults_on:
            self._stop_faults()
        seen_ns = self._consistency_ns() if self.secondary.is_up else 0
        self._recover(drain=False)
        if not self._is_recovered():
            return
        recovered_ns = self._check_recovered()
        if recovered_ns < seen_ns:
            raise OracleError(
                "recovery went back behind the consistency time:", [f"{recovered_ns} < {seen_ns}"]
            )
        self.tally.lost_writes = sum(
            1
            for w in self.history.stamped()
            if (w.time_ns or 0) > recovered_ns and w.acknowledged_at is not None
        )
        self._stop_faults()
        self._return_of_the_primaries()

    def _switch_over(self) -> None:
        """A planned switchover loses nothing: writes are refused at the primaries before the last one is here."""
        self._stop_faults()
        self._wait(self._is_duplex, "DUPLEX while applications write")
        self._checking = False
        self._recover(drain=True)
        recovered_ns = self._check_recovered()
        session = self.secondary.session
        pairs = session.document.pairs if session else ()
        volumes = {volume_key(self.primaries[pair.source], pair.primary_volume) for pair in pairs}
        late = [
            str(write)
            for write in self.history.stamped()
            if (write.time_ns or 0) > recovered_ns
            and write.acknowledged_at is not None
            and write.volume in volumes
        ]
        if late:
            raise OracleError("acknowledged writes are missing after a planned switchover:", late)
        self._return_of_the_primaries()

    def _recover(self, *, drain: bool) -> None:
        """Ask for recovery until it is done, as an operator would, through every crash of the secondary."""
        deadline_ns = self.events.now_ns() + SETTLE_NS_MAX
        while self.events.now_ns() < deadline_ns and not self._is_recovered():
            session = self.secondary.session
            if self.secondary.is_up and session is not None:
                if not session.document.is_image_complete:
                    self._expect_refusal(session)
                    if not drain:
                        return
                if drain and session.document.state is SessionState.SUSPENDED:
                    self._operate(lambda s: s.resume())
                elif not session.is_draining and session.document.is_image_complete:
                    self._operate(lambda s: s.recover(drain=drain, allow_incomplete=False))
            self.events.run_until(self.events.now_ns() + 50 * MILLISECOND_NS, self._is_recovered)
        if not self._is_recovered():
            raise OracleError("the recovery does not end:", [self._picture()])

    def _expect_refusal(self, session: Session) -> None:
        """Without a complete image, recovery is refused and changes nothing (promise 3)."""
        before = session.document
        try:
            session.recover(drain=False, allow_incomplete=False)
        except ConflictError:
            if session.document == before:
                return
        raise OracleError("an incomplete image was recovered without a word:", [self._picture()])

    def _is_recovered(self) -> bool:
        session = self.secondary.session
        return self.secondary.is_up and session is not None and session.document.state is SessionState.ENDED

    def _check_recovered(self) -> int:
        session = self.secondary.session
        assert session is not None
        self._check_volumes(list(session.document.pairs), session.document.recovered_ns)
        self.tally.image_checks += 1
        if self.secondary.pool.staged_count(session.document.number):
            raise OracleError("staged entries are left after recovery:", [self._picture()])
        return session.document.recovered_ns

    def _return_of_the_primaries(self) -> None:
        """The old primaries come back: they are told of the new epoch, refuse writes, and change nothing here."""
        session = self.secondary.session
        assert session is not None
        before = {pair.secondary_volume: self._read(pair.secondary_volume) for pair in session.document.pairs}
        self.dead.clear()
        for node in self.primaries:
            self._restart(node)
        self._wait(self._all_are_fenced, "the fence at every primary")
        for name, content in before.items():
            if self._read(name) != content:
                raise OracleError("a returning primary changed a recovered volume:", [name])
        for node in self.primaries:
            for name in node.volume_names:
                if self._is_paired(node, name) and not node.primary.write_refusal(
                    node.pool.volumes[name].number
                ):
                    raise OracleError("a fenced primary accepts writes:", [f"{node.name}/{name}"])

    def _is_paired(self, node: PrimaryNode, name: str) -> bool:
        session = self.secondary.session
        return session is not None and any(
            pair.primary_volume == name and self.primaries[pair.source] is node and pair.is_confirmed
            for pair in session.document.pairs
        )

    def _all_are_fenced(self) -> bool:
        session = self.secondary.session
        return session is not None and all(source.fenced for source in session.document.sources)

    def _read(self, name: str) -> bytes:
        volume = self.secondary.pool.volumes[name]
        with self.secondary.unharmed():
            return volume.read(0, volume.size_bytes)


def run_world(seed: int) -> Tally:
    """Run the world of one seed."""
    return World(seed).run()
