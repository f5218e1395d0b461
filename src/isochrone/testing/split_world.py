"""A simulated split: two sites, cut off from each other, both take writes after a recovery; then one side gives in.

One seed decides everything, as in `world`. The session may go back and forth between the sites several times, because the
side that gives in may be either. Both sites die, lose power and are cut off at any event or disk operation.

The oracle is one dictionary a site: what each track of its volumes was last written with by an application there. Then

- a side that gives in keeps the image that was in service until the resync is complete, and a recovery goes back to it;
- the side that is kept loses nothing of its own, at no moment;
- in the end both sides are equal, byte for byte, and hold what the kept side holds.

A power loss may take unflushed writes; what a site then holds is taken down as what was written there.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from isochrone.capture.settings import CaptureSettings
from isochrone.model.errors import ConflictError, IsochroneError
from isochrone.model.states import SessionState
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument
from isochrone.session.settings import SessionSettings
from isochrone.session.turning import turned_round
from isochrone.store.pool import Pool
from isochrone.testing.events import MILLISECOND_NS, SECOND_NS, Events
from isochrone.testing.network import SimConnection
from isochrone.testing.oracle import OracleError
from isochrone.testing.sim_disk import SimDisk, crash_nth
from isochrone.testing.site_node import SiteNode
from isochrone.testing.split_recovery import HISTORY_NS_MAX, Recovery

TRACK: Final = 4096
VOLUME_TRACKS: Final = 48
VOLUMES: Final = ("v0", "v1")
SETTLE_NS_MAX: Final = 30 * SECOND_NS
SESSION_ID: Final = "a" * 32
FORGETFUL: Final = CaptureSettings(
    prune_interval_ns=10 * MILLISECOND_NS, discard_interval_ns=20 * MILLISECOND_NS
)
"""Where a recovery goes back, primaries forget what is hardened as soon as they may: only marks here know of it then."""


class SplitWorld:
    """See the module's essay.

    Attributes:
        faults_on: sites die and links break.
        is_cut: the sites cannot reach each other.
        discarded: sides that gave in, in order; "back" for a recovery in the middle of a resync, "rewound" for one to an
            instant of the history.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self._history_rng = Random(seed ^ 0x417)  # so that worlds without a history stay as they are
        self._history_ns_max = HISTORY_NS_MAX if seed % 2 else 0
        self.events = Events()
        self.faults_on = False
        self.is_cut = False
        self.discarded: list[str] = []
        self.written: dict[str, dict[tuple[str, int], bytes]] = {"a": {}, "b": {}}
        self.sites = {name: self._make_site(name, number) for number, name in enumerate(("a", "b"))}
        self._tag = 0
        self._torn: set[str] = set()
        self._is_writing = False
        self._image_ns = 0  # of what is in service at the side that gives in

    def _make_site(self, name: str, number: int) -> SiteNode:
        disk = SimDisk(seed=self.rng.getrandbits(32))
        Pool.create(disk, size_bytes=len(VOLUMES) * VOLUME_TRACKS * 6 * TRACK, preallocate=True)
        settings = SessionSettings(
            redial_ns_min=5 * MILLISECOND_NS,
            redial_ns_max=50 * MILLISECOND_NS,
            silence_ns_max=300 * MILLISECOND_NS,
        )
        site = SiteNode(
            name,
            f"{number + 1:032x}",
            self.events,
            Random(self.rng.getrandbits(64)),
            disk,
            settings,
            self._dial,
        )
        if self._history_ns_max:
            site.capture_settings = FORGETFUL
        return site

    def _dial(self, mover: object, source: int, address: str) -> SimConnection | None:
        assert isinstance(mover, SiteNode)
        primary = self.sites[address]
        if not primary.is_up or self.is_cut:
            return None
        link, to_primary = primary.accept()
        connection = SimConnection(
            self.events,
            self.rng,
            TRACK,
            0.0,
            to_primary,
            lambda message: mover.received(source, connection, message),
        )
        connection.lingers = self.rng.random() < 0.3
        primary.inbound[link] = connection
        connection.on_cut_at_primary = lambda _reason: primary.inbound_cut(link)
        connection.on_cut_at_mover = lambda reason: mover.link_cut(source, connection, reason)
        return connection

    # Time and faults

    def pass_time(self, ns: int) -> None:
        """Let time pass."""
        self.events.run_until(self.events.now_ns() + ns)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until `condition` holds."""
        if not self.events.run_until(self.events.now_ns() + SETTLE_NS_MAX, condition):
            raise OracleError(f"{what} does not come:", [self._picture()])

    def _picture(self) -> str:
        parts = []
        for name, site in self.sites.items():
            session = site.session if site.is_up else None
            stream = site.primary.streams.get(SESSION_ID) if site.is_up else None
            parts.append(f"{name}: {session.document if session else None} / {stream and stream.document}")
        return "; ".join(parts)

    def _fault(self) -> None:
        if self.faults_on:
            site = self.sites[self.rng.choice("ab")]
            how = self.rng.random()
            if how < 0.3:
                self._cut_links()
            elif how < 0.6 and site.is_up:
                site.on_death = lambda: self._came_down(site)
                site.disk.hook = crash_nth(self.rng.randrange(1, 60))
            elif site.is_up:
                (site.kill if how < 0.85 else site.lose_power)()
                self._came_down(site)
        self.events.after(self.rng.randrange(20, 300) * MILLISECOND_NS, self._fault)

    def _cut_links(self) -> None:
        for site in self.sites.values():
            for connection in list(site.connections.values()):
                connection.cut("cut by the world")

    def _came_down(self, site: SiteNode) -> None:
        site.disk.hook = None
        site.on_death = None
        self.events.after(self.rng.randrange(1, 200) * MILLISECOND_NS, lambda: self._restart(site))

    def _restart(self, site: SiteNode) -> None:
        if site.is_up:
            return
        power_lost = site.lost_power
        site.start()
        if site.has_died():
            self._came_down(site)
            return
        site.lost_power = False
        is_torn = site.name in self._torn
        self._torn.discard(site.name)
        if power_lost or is_torn:
            self.take_down(site)
        elif not site.is_secondary:
            self.check_own(site, "after a kill")

    # Applications

    def _application(self) -> None:
        site = self.sites[self.rng.choice("ab")]
        if site.is_up and self._is_writing:
            site.guarded(lambda: self._write(site))()
        self.events.after(self.rng.randrange(1, 12) * MILLISECOND_NS, self._application)

    def _write(self, site: SiteNode) -> None:
        name = self.rng.choice(VOLUMES)
        volume = site.pool.volumes.get(name)
        if volume is None or site.is_secondary or site.primary.write_refusal(volume.number):
            return
        track = self.rng.randrange(VOLUME_TRACKS)
        self._tag += 1
        token = b"%015d." % self._tag * (TRACK // 16)
        self._torn.add(site.name)
        try:
            site.primary.write(volume, track * TRACK, memoryview(bytearray(token)))
            site.primary.end_batch(volume.number)
        except ConflictError:
            pass
        else:
            self.written[site.name][name, track] = token
        self._torn.discard(site.name)

    # The oracle

    def read(self, site: SiteNode) -> dict[tuple[str, int], bytes]:
        """Return every track of a site."""
        found = {}
        with site.unharmed():
            for name in VOLUMES:
                data = site.pool.volumes[name].read(0, VOLUME_TRACKS * TRACK)
                for track in range(VOLUME_TRACKS):
                    found[name, track] = bytes(data[track * TRACK : (track + 1) * TRACK])
        return found

    def take_down(self, site: SiteNode) -> None:
        """From now on the site is to hold what it holds."""
        self.written[site.name] = self.read(site)

    def check_own(self, site: SiteNode, when: str) -> None:
        """A site holds what was written there."""
        if site.is_up:
            found = self.read(site)
            wrong = [
                f"{place}" for place, content in self.written[site.name].items() if found[place] != content
            ]
            if wrong:
                raise OracleError(f"site {site.name} lost what was written there, {when}:", wrong)

    # Roles

    def _retry(
        self, site: SiteNode, command: Callable[[], None], done: Callable[[], bool], what: str
    ) -> None:
        """Give a command until it is done, as an operator would, through crashes."""

        def attempt() -> bool:
            if site.is_up and not done():
                try:
                    site.guarded(command)()
                except IsochroneError:
                    return False
                if site.is_up:
                    site.guarded(site.act)()
            if site.is_up and done():
                site.guarded(site.sync_now)()  # a command is answered when no power loss can undo it
            return site.is_up and done()

        for _ in range(600):
            if attempt():
                return
            self.pass_time(20 * MILLISECOND_NS)
        raise OracleError(f"{what} does not come:", [self._picture()])

    def _state(self, site: SiteNode) -> SessionState | None:
        return site.session.document.state if site.is_up and site.session else None

    def _is_duplex(self, mover: SiteNode) -> bool:
        if self._state(mover) is SessionState.SUSPENDED:
            assert mover.session is not None
            mover.guarded(mover.session.resume)()
        session = mover.session if mover.is_up else None
        return (
            session is not None
            and session.document.state is SessionState.ACTIVE
            and session.document.hold_floor_ns is None
            and all(pair.duplex for pair in session.document.pairs)
        )

    def run(self) -> None:
        """Live through some splits. Raises OracleError when a promise is broken."""
        primary, mover = self.sites["a"], self.sites["b"]
        for site in (primary, mover):
            site.start()
        for name in VOLUMES:
            primary.pool.create_volume(name, VOLUME_TRACKS * TRACK)
        primary.sync_now()
        mover.create_session(
            SessionDocument(
                session_id=SESSION_ID,
                name="pay",
                number=1,
                history_ns_max=self._history_ns_max,
                sources=(SourceDocument(name="a", address="a"),),
                pairs=tuple(
                    PairDocument(source=0, primary_volume=name, secondary_volume=name) for name in VOLUMES
                ),
            )
        )
        self.events.after(1, self._first_writes)
        self.wait(lambda: self._is_duplex(mover), "the first DUPLEX")
        self.events.after(1, self._fault)
        for _ in range(self.rng.choice((1, 2, 3))):
            primary, mover = self._one_split(primary, mover)

    def _first_writes(self) -> None:
        self._is_writing = True
        self._application()

    def _one_split(self, primary: SiteNode, mover: SiteNode) -> tuple[SiteNode, SiteNode]:
        """Split, write at both sides, let one give in; return the roles afterwards."""
        rng = self.rng
        self.pass_time(rng.randrange(500) * MILLISECOND_NS)
        self.is_cut = rng.random() < 0.8
        self._cut_links()
        self._recover(mover)
        while True:
            self.faults_on = rng.random() < 0.8
            self.pass_time(rng.randrange(600) * MILLISECOND_NS)
            self.is_cut = self.is_cut and rng.random() < 0.3
            if rng.random() < 0.5:
                giver, kept = self._discard_secondary(mover), primary
            else:
                giver, kept = self._discard_primary(primary, mover), mover
            self.is_cut = False
            assert giver.session is not None
            self._image_ns = giver.session.document.hold_floor_ns or 0
            self._watch_resync(giver, kept)
            if rng.random() < 0.3 and not self._is_duplex(giver) and self._is_held(giver):
                self.discarded.append("back")
                self._recover(giver)
                primary, mover = kept, giver
                continue
            break
        self.faults_on = False
        for site in (giver, kept):
            self._mend(site)
        self.wait(lambda: self._is_duplex(giver), "DUPLEX after the resync")
        self._is_writing = False
        self.pass_time(500 * MILLISECOND_NS)
        self.wait(
            lambda: self._is_duplex(giver) and self.read(giver) == self.read(kept), "equality of both sides"
        )
        self.check_own(kept, "at the end")
        self._is_writing = True
        return kept, giver

    def _mend(self, site: SiteNode) -> None:
        site.disk.hook = None
        self.wait(lambda: site.is_up, f"site {site.name}")

    def _recover(self, mover: SiteNode) -> None:
        is_held = self._is_held(mover)
        if not is_held:
            self.written[mover.name] = {}  # nobody has written there yet
        recovery = Recovery(self._history_rng, may_go_back=not is_held)
        self._retry(
            mover,
            lambda: recovery.ask(mover.session) if mover.session else None,
            lambda: self._state(mover) is SessionState.ENDED,
            "the recovery",
        )
        if is_held:
            self.check_own(mover, "by a recovery in the middle of the resync")
        if recovery.went_back:
            self.discarded.append("rewound")
        self.take_down(mover)

    def _is_held(self, mover: SiteNode) -> bool:
        """Whether the image that was in service when it began to give in still is."""
        session = mover.session if mover.is_up else None
        return (
            session is not None
            and session.document.hold_floor_ns is not None
            and session.mover.consistency_ns <= self._image_ns
        )

    def _discard_secondary(self, mover: SiteNode) -> SiteNode:
        self.discarded.append("secondary")
        self._retry(
            mover,
            lambda: mover.session.discard_secondary() if mover.session else None,
            lambda: self._state(mover) in (SessionState.ACTIVE, SessionState.SUSPENDED),
            "the new beginning",
        )
        return mover

    def _discard_primary(self, primary: SiteNode, mover: SiteNode) -> SiteNode:
        self.discarded.append("primary")
        self.is_cut = False

        def is_fenced() -> bool:
            stream = primary.primary.streams.get(SESSION_ID) if primary.is_up else None
            return stream is not None and stream.document.ended and bool(stream.document.partners)

        self.wait(is_fenced, "the fence")

        def turn() -> None:
            if primary.session is not None:
                raise ConflictError(
                    "the session that turned round before has not gone yet"
                )  # as SessionSet says
            document = primary.primary.streams[SESSION_ID].document
            session = turned_round(
                session_id=SESSION_ID,
                name="pay",
                number=1,
                epoch=document.epoch + 1,
                image_ns=document.recovered_ns,
                primary=(mover.name, mover.name, mover.identity),
                pairs=[
                    (document.partners[c.volume.name], c.volume.name, number)
                    for number, c in primary.primary.streams[SESSION_ID].volumes.items()
                ],
                policy=document.policy,
                now_ns=self.events.now_ns(),
            )
            primary.begin(session.changed(history_ns_max=self._history_ns_max))

        self._retry(
            primary,
            turn,
            lambda: self._state(primary) in (SessionState.ACTIVE, SessionState.SUSPENDED),
            "the session in the other direction",
        )
        return primary

    def _watch_resync(self, giver: SiteNode, kept: SiteNode) -> None:
        """Look at both sides while the resync is at work."""
        for _ in range(self.rng.randrange(1, 25)):
            self.pass_time(self.rng.randrange(1, 40) * MILLISECOND_NS)
            if kept.is_up:
                self.check_own(kept, "while the other side gives in")
            if self._is_held(giver):
                self.check_own(giver, "before the resync was complete")


def run_split_world(seed: int) -> list[str]:
    """Live through the split world of `seed`; return the sides that gave in. Raises OracleError."""
    world = SplitWorld(seed)
    world.run()
    return world.discarded
