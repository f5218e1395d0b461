"""The simulated world: primaries, a secondary, applications, faults, and the checks after each (design section 9).

One seed decides everything: how many controllers and volumes, what the applications write, how slow the links are, what
breaks and when. The code under test is what ships: store, capture, link framing, mover and session. The world plays
the shells (virtual time, network, syncs in steps) and the operator, and asks the oracle.

    while the session runs   applications write; links break, stall, crawl, corrupt, work one way, stay open at one end, are
                             out for long; processes die at any event or disk operation; hosts lose power; side files and
                             pools fill; the operator suspends and resumes; storms break off one resync after the other
    checked meanwhile        the committed image is exactly the writes up to C; every write that is not hardened is marked;
                             stamps follow acknowledgements
    at the end, one of       disaster: the primaries die for good, the secondary recovers, perhaps with crashes on the way;
                             calm: faults stop, everything becomes DUPLEX and equal; switchover: drained, nothing lost
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import Final

from isochrone.capture.settings import CaptureSettings
from isochrone.capture.spill import SPILL_PREFIX
from isochrone.model.choices import Compression, MarkPolicy, OverflowPolicy, PaceLevel
from isochrone.model.errors import RefusedError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState
from isochrone.session.document import SessionDocument, SourceDocument
from isochrone.session.session import Session
from isochrone.session.settings import SessionSettings
from isochrone.session.transitions import with_pairs_added
from isochrone.store.pool import Pool
from isochrone.store.superblock import TRACKS_NAME
from isochrone.testing.application import Application, settle_after_restart, volume_key
from isochrone.testing.device_trouble import ANY_KIND, draw_trouble
from isochrone.testing.events import MILLISECOND_NS, SECOND_NS, Events
from isochrone.testing.history import History
from isochrone.testing.judge import Judge, Tally
from isochrone.testing.link_troubles import LinkTroubles
from isochrone.testing.looking_back import LookingBack
from isochrone.testing.network import SimConnection
from isochrone.testing.node import Node
from isochrone.testing.operator import Operator
from isochrone.testing.renewal import Renewal
from isochrone.testing.roughness import Odds, draw_odds
from isochrone.testing.sim_disk import SimDisk, crash_nth, fail_nth
from isochrone.testing.sim_primary import PrimaryNode
from isochrone.testing.sim_secondary import SecondaryNode
from isochrone.testing.storm import Storm
from isochrone.testing.watch import PrimaryWatch

TRACK_SIZE_BYTES: Final = 4096
CHECKS_AFTER_RESTART: Final = 4
RUN_NS_MAX: Final = 1200 * MILLISECOND_NS


def secondary_name(node: PrimaryNode, volume: str, session: int) -> str:
    """Return the name of a pair's secondary volume in the n-th session."""
    return f"{node.name}-{volume}-s{session}"


class World:
    """One world before its ending (see `endings.run_world`).

    Args:
        odds: how rough it is; drawn from the seed when not given.
        keeps_history: whether its sessions do; drawn from the seed when not given.

    Attributes:
        faults_on: faults go on happening.
        checking: the judge goes on looking now and then.
        dead: nodes that do not come back.
    """

    def __init__(self, seed: int, odds: Odds | None = None, *, keeps_history: bool | None = None) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.events = Events()
        self.history = History(track_size_bytes=TRACK_SIZE_BYTES)
        self.tally = Tally()
        self.applications: list[Application] = []
        self.dead: set[Node] = set()
        drawn = draw_odds(self.rng, seed)
        self.odds = odds or drawn
        self.volume_tracks = self.rng.choice((24, 64, 150))
        self.primaries = [self._make_primary(number) for number in range(self.rng.choice((1, 2, 2, 3)))]
        self.past = LookingBack(self, keeps_history=keeps_history)
        self.secondary = self._make_secondary()
        self.judge = Judge(self.history, self.tally, self.primaries, self.secondary)
        for node in self.primaries:
            node.watch = PrimaryWatch(node, self.history, self.secondary.journal_seen_of)
        self.operator = Operator(self)
        self.troubles = LinkTroubles(self)
        self.storm = Storm(self)
        self.renewal = Renewal(self, "a" * 32)
        self.judge.is_renewing = lambda: self.renewal.is_under_way
        self.faults_on = True
        self.checking = True

    def _make_primary(self, number: int) -> PrimaryNode:
        spill_tracks = self.rng.choice((0, 100, 4000))
        settings = CaptureSettings(
            side_file_bytes_max=self.rng.choice((40, 40, 64, 300) if spill_tracks else (64, 64, 300, 4000))
            * 4096,
            spill_bytes_max=spill_tracks * 4096,
            spill_segment_bytes=self.rng.choice((20, 100)) * 4096,
            record_set_bytes_max=self.rng.choice((8192, 65536)),
            copy_ahead_bytes_max=self.rng.choice((8, 64)) * 4096,
            copy_step_tracks_max=self.rng.choice((3, 16, 256)),
            heartbeat_interval_ns=self.rng.choice((10, 20)) * MILLISECOND_NS,
            prune_interval_ns=(prune_interval_ns := self.rng.choice((20, 200)) * MILLISECOND_NS),
            discard_interval_ns=prune_interval_ns // 2,
            activity_region_bytes=4 * TRACK_SIZE_BYTES,
            activity_regions_max=2,
            activity_idle_ns=prune_interval_ns,
            activity_trim_interval_ns=10 * MILLISECOND_NS,
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
        tracks = len(self.primaries) * 3 * self.volume_tracks * self.rng.choice((3, 5)) + 500
        tracks += self.past.room_tracks
        Pool.create(disk, size_bytes=tracks * TRACK_SIZE_BYTES, preallocate=True)
        settings = SessionSettings(
            redial_ns_min=5 * MILLISECOND_NS,
            redial_ns_max=50 * MILLISECOND_NS,
            silence_ns_max=200 * MILLISECOND_NS,
            suspend_wait_ns_max=400 * MILLISECOND_NS,
            auto_resume_ns_min=50 * MILLISECOND_NS,
            auto_resume_ns_max=200 * MILLISECOND_NS,
            auto_resume_reset_ns=500 * MILLISECOND_NS,
            report_wait_ns=20 * MILLISECOND_NS,
        )
        return SecondaryNode("s", "f" * 32, self.events, self._fork(), disk, settings, self._dial)

    def _fork(self) -> Random:
        return Random(self.rng.getrandbits(64))

    # The network

    def _dial(self, secondary: SecondaryNode, source: int, address: str) -> SimConnection | None:
        primary = next(node for node in self.primaries if node.name == address)
        if not primary.is_up or primary in self.troubles.unreachable:
            return None
        link, to_primary = primary.accept()
        connection = SimConnection(
            self.events,
            self.rng,
            TRACK_SIZE_BYTES,
            self.odds.corruption if self.faults_on else 0.0,
            to_primary,
            lambda message: secondary.received(source, connection, message),
        )
        primary.connections[link] = connection
        connection.on_cut_at_primary = lambda _reason: primary.link_cut(link)
        connection.on_cut_at_mover = lambda reason: secondary.link_cut(source, connection, reason)
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
        self.create_session()
        self.secondary.sync_now()
        self._schedule_fault()
        self._schedule_check()
        self.past.begin()

    def create_session(self) -> None:
        """Create the session that the renewal wants, over all volumes of all primaries."""
        document = self._session_document(self.renewal.session_id, self.renewal.number)
        self.secondary.create_session(document)

    def _session_document(self, session_id: str, number: int) -> SessionDocument:
        document = SessionDocument(
            session_id=session_id,
            name="pay",
            number=number,
            group_interval_ns=self.rng.choice((5, 10, 50)) * MILLISECOND_NS,
            compression=Compression.OFF,
            retry_ns_max=self.rng.choice((60_000, 60_000, 100)) * MILLISECOND_NS,
            retry_tracks_max=self.rng.choice((1024, 1024, 5)),
            history_ns_max=self.past.window_ns,
            history_bytes_max=self.past.bytes_max,
            policy=SessionPolicy(
                overflow_policy=self.rng.choice(tuple(OverflowPolicy)),
                pace_level=self.rng.choice(tuple(PaceLevel)),
                pace_delay_ns_max=20 * MILLISECOND_NS,
                mark_policy=self._mark_policy(),
                hold_ns_max=self.rng.choice((5, 200)) * MILLISECOND_NS,
                auto_resume=self.seed % 3 != 0,
                link_timeout_ns=60 * MILLISECOND_NS if self.seed % 5 == 0 else 0,
            ),
        )
        sources = [SourceDocument(name=node.name, address=node.name) for node in self.primaries]
        pairs = [(n.name, v, secondary_name(n, v, number)) for n in self.primaries for v in n.volume_names]
        later = self.rng.random() < 0.3 and len(pairs) > 1
        if later:
            self.operator.add_later([pairs.pop()], self.rng.randrange(SECOND_NS))
        return with_pairs_added(document, sources, pairs)

    def _mark_policy(self) -> MarkPolicy:
        """Return whether marks are durable: in every other world, unless its odds say otherwise."""
        odds = self.odds.durable
        is_durable = bool(self.seed % 2) if odds is None else self.rng.random() < odds
        return MarkPolicy.DURABLE if is_durable else MarkPolicy.MEMORY

    # Faults

    def resume_faults(self) -> None:
        """After they were over."""
        self.faults_on = True
        self._schedule_fault()

    def _schedule_fault(self) -> None:
        if self.faults_on:
            self.events.after(self.rng.randrange(1, 140) * MILLISECOND_NS, self._fault)

    def _fault(self) -> None:
        if not self.faults_on:
            return
        rng, odds = self.rng, self.odds
        nodes: list[PrimaryNode | SecondaryNode] = [*self.primaries, self.secondary]
        node = rng.choice(nodes)
        kinds: list[tuple[float, Callable[[], None]]] = [
            (odds.cut, self.troubles.cut_one),
            (odds.stall, self.troubles.stall_one),
            (odds.link_trouble, self.troubles.do_something),
            (odds.storm, self.storm.begin),
            (odds.renewal, self.renewal.begin),
            (odds.kill, lambda: self.crash(node, node.kill)),
            (odds.power, lambda: self.crash(node, node.lose_power)),
            (odds.crash_in_disk, lambda: self._crash_in_disk(node)),
            (odds.operator, self.operator.do_something),
            (odds.stop, lambda: self._stop_cleanly(node)),
            (odds.device, lambda: self._fail_the_device(node)),
        ]
        chance = rng.random()
        for odd, fault in kinds:
            if chance < odd:
                fault()
                break
            chance -= odd
        self._schedule_fault()

    def connections(self) -> list[SimConnection]:
        """Return the open links."""
        return [c for c in self.secondary.connections.values() if c.is_open]

    def crash(self, node: PrimaryNode | SecondaryNode, how: Callable[[], None]) -> None:
        """Bring a node down; it starts again some time later."""
        if node.is_up:
            self.judge.check_marks()
            how()
            self._came_down(node)

    def _crash_in_disk(self, node: PrimaryNode | SecondaryNode) -> None:
        """Die at a disk operation to come, in the middle of whatever it belongs to."""
        if node.is_up:
            node.on_death = lambda: self._came_down(node)
            node.disk.hook = crash_nth(self.rng.randrange(1, 60))

    def _stop_cleanly(self, node: PrimaryNode | SecondaryNode) -> None:
        """The controller is stopped well; the power may go a moment later."""
        if node.is_up:
            node.stop()
            if self.rng.random() < 0.5:
                node.lose_power()
            self._came_down(node)

    def _fail_the_device(self, node: PrimaryNode | SecondaryNode) -> None:
        """The device reports an error once, or at the secondary for long; or a primary has sectors that cannot be read."""
        if self.rng.random() < 0.5:
            self.trouble_the_device(self.secondary)
        elif isinstance(node, PrimaryNode) and node.is_up and self.rng.random() < 0.5:
            self._spoil_tracks(node)
        elif node.is_up and node.disk.hook is None:
            kind, name = "write", TRACKS_NAME
            if isinstance(node, PrimaryNode):
                kind, name = self.rng.choice(
                    (("read", TRACKS_NAME), ("read", SPILL_PREFIX), ("write", SPILL_PREFIX))
                )
            node.disk.hook = fail_nth(self.rng.randrange(1, 5), errno.EIO, kind=kind, name=name)
            self.tally.device_errors += 1

    def _spoil_tracks(self, node: PrimaryNode) -> None:
        """Some tracks of a volume cannot be read for a while, unless they are written again."""
        volume = node.pool.volumes[self.rng.choice(node.volume_names)]
        for track in self.rng.sample(range(volume.track_count), k=volume.track_count // 3):
            self.tally.tracks_spoiled += node.disk.spoil_track(volume, track)
        self.events.after(self.rng.randrange(20, 600) * MILLISECOND_NS, node.disk.bad_sectors.heal)

    def trouble_the_device(self, node: SecondaryNode, kinds: tuple[str, ...] = ANY_KIND) -> None:
        """Some of the device cannot be written for a while, or from now on; or what was wrong is repaired."""
        if node.disk.trouble is not None:
            node.disk.trouble = None
        elif node.is_up:
            self.tally.device_troubles += 1
            node.disk.trouble = draw_trouble(
                self.rng, TRACKS_NAME, node.pool.track_count, TRACK_SIZE_BYTES, self.events.now_ns, kinds
            )

    def _came_down(self, node: PrimaryNode | SecondaryNode) -> None:
        node.disk.hook = None
        node.on_death = None
        self.tally.crashes += 1
        self.events.after(self.rng.randrange(1, 150) * MILLISECOND_NS, lambda: self.restart(node))

    def restart(self, node: PrimaryNode | SecondaryNode) -> None:
        """Start a node that is down, perhaps to die again; judge what it holds."""
        if node.is_up or node in self.dead:
            return
        if self.faults_on and self.rng.random() < 0.15:
            node.on_death = lambda: self._came_down(node)
            node.disk.hook = crash_nth(self.rng.randrange(1, 60))
        node.disk.bad_sectors.heal()  # else nobody could judge what it holds
        node.start()
        if node.has_died():
            return
        node.reopened_after_loss = node.lost_power
        self._count_power_loss(node)
        if isinstance(node, PrimaryNode):
            node.guarded(
                lambda: settle_after_restart(self.history, self.judge.oracle, node, node.volume_names)
            )()
            node.guarded(self._look_at_marks(node))()
        else:
            if node.lost_power:
                self.judge.secondary_lost_power()
            self.judge.check_hardened()
            self.judge.check_committed_image()
            self.past.secondary_restarted(power_lost=node.lost_power)
        self._came_up(node)
        # A resync is short here; look while it is at work.
        for _ in range(CHECKS_AFTER_RESTART):
            self.events.after(self.rng.randrange(100) * MILLISECOND_NS, self.look)

    def _count_power_loss(self, node: PrimaryNode | SecondaryNode) -> None:
        if node.lost_power:
            self.tally.power_losses += 1
            streams = node.primary.streams.values() if isinstance(node, PrimaryNode) else ()
            self.tally.power_losses_durable += any(
                stream.document.policy.mark_policy is MarkPolicy.DURABLE for stream in streams
            )

    def _look_at_marks(self, node: PrimaryNode) -> Callable[[], None]:
        def look() -> None:
            if node.watch is not None:
                node.watch.restarted()
            self.judge.check_marks()

        return look

    def look(self) -> None:
        """Judge the committed image now."""
        if self.checking:
            self.judge.check_committed_image()

    @staticmethod
    def _came_up(node: PrimaryNode | SecondaryNode) -> None:
        if node.is_up:
            node.lost_power = False

    def operate(self, command: Callable[[Session], None]) -> bool:
        """Give the session a command as an operator would; returns whether it was accepted."""
        session = self.secondary.session
        if not self.secondary.is_up or session is None:
            return False
        accepted = False

        def run() -> None:
            nonlocal accepted
            try:
                command(session)
                accepted = True
            except RefusedError:
                self.tally.refused_commands += 1
            self.secondary.act()

        self.secondary.guarded(run)()
        return accepted

    # Checks

    def _schedule_check(self) -> None:
        self.events.after(self.rng.randrange(80, 400) * MILLISECOND_NS, self._check)

    def _check(self) -> None:
        if self.checking:
            self.judge.check_committed_image()
            self.judge.check_marks()
            self._resume_if_suspended_long()
            self.renewal.clean_up()
            self._schedule_check()

    def _resume_if_suspended_long(self) -> None:
        session = self.secondary.session
        if session and session.document.state is SessionState.SUSPENDED:
            self.tally.suspensions += 1
            if self.rng.random() < 0.5:
                self.operate(lambda s: s.resume())

    # The run

    def live(self) -> None:
        """Begin, and live on for a while under faults. Raises OracleError when a promise is broken."""
        self._begin()
        self.events.run_until(self.events.now_ns() + self.rng.randrange(RUN_NS_MAX // 4, RUN_NS_MAX))
