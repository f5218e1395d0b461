"""The operator of a simulated world: suspends and resumes, adds and removes pairs, at any moment and in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isochrone.model.errors import IsochroneError
from isochrone.model.states import SessionState
from isochrone.session.document import PairDocument
from isochrone.session.session import Session
from isochrone.testing.device_trouble import WIDE_KINDS
from isochrone.testing.events import MILLISECOND_NS
from isochrone.testing.oracle import OracleError

if TYPE_CHECKING:
    from isochrone.testing.world import World

LOOKS_MS = (2, 5, 10, 20, 40)
"""When the image is judged after the time of a suspension, or a deed amid trouble, which is over soon."""
RETRY_NS = 60 * MILLISECOND_NS
WATCH_NS = 400 * MILLISECOND_NS
"""How long a volume that has left is watched before it is deleted."""


class Operator:
    """Gives commands to the session of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._events = world.events
        self._volumes_named = 0
        self._watched: set[str] = set()
        self._wanted: dict[tuple[str, str], str] = {}

    def _session(self) -> Session | None:
        return self._world.secondary.session if self._world.secondary.is_up else None

    def do_something(self) -> None:
        """Whatever comes to mind."""
        session = self._session()
        if session is None:
            return
        if self._rng.random() < self._world.odds.pairs:
            self._suspend_a_pair(session)
        elif session.document.state is SessionState.ACTIVE and self._rng.random() < self._world.odds.timed:
            self._suspend_at_a_time()
        elif self._rng.random() < 0.4:
            self._replace_a_pair(session)
        elif session.document.state is SessionState.SUSPENDED and self._rng.random() < 0.8:
            self._world.operate(lambda s: s.resume())
        elif self._rng.random() < 0.3:
            self._world.operate(lambda s: s.suspend("by the operator"))
            if self._rng.random() < 0.3:  # on second thoughts
                self._world.operate(lambda s: s.resume())
                if self._rng.random() < 0.3:
                    self._world.operate(lambda s: s.suspend("by the operator after all"))

    def add_later(self, pairs: list[tuple[str, str, str]], delay_ns: int) -> None:
        """Add pairs to the session, trying again until it is done for good (a power loss may undo it), or over."""
        world = self._world
        session_id = world.renewal.session_id
        is_durable = False
        for primary, volume, secondary in pairs:
            self._wanted[primary, volume] = secondary

        def flushed(error: str) -> None:
            nonlocal is_durable
            is_durable = not error

        def add() -> None:
            session = self._session()
            if is_durable or (session is not None and session.document.is_over):
                return
            if world.renewal.session_id != session_id:
                return  # the next session has all pairs from the start
            if any(self._wanted[primary, volume] != secondary for primary, volume, secondary in pairs):
                return  # the pair was replaced again since
            if session is not None and self._has(session, pairs):
                world.secondary.guarded(lambda: world.secondary.flush(flushed))()
            else:
                world.operate(lambda s: s.add_pairs([], pairs))
            self._events.after(RETRY_NS, add)

        self._events.after(delay_ns, add)

    def _has(self, session: Session, pairs: list[tuple[str, str, str]]) -> bool:
        """Whether the primary volumes of `pairs` are in the session, under whatever name."""
        names = {
            (self._world.primaries[pair.source].name, pair.primary_volume)
            for pair in session.document.pairs
            if not pair.removing
        }
        return all((primary, volume) in names for primary, volume, _ in pairs)

    def _suspend_at_a_time(self) -> None:
        """Suspend at a time to come or now, and perhaps think better of it, before that time, after it, or just then."""
        world, now_ns = self._world, self._events.now_ns()
        at_ns = now_ns + self._rng.choice((0, 1, 30, 200)) * MILLISECOND_NS
        if at_ns == now_ns:
            world.operate(lambda s: s.suspension.drain("drained by the operator", now_ns))
        elif not world.operate(lambda s: s.suspension.suspend_at(at_ns, "at a time, by the operator")):
            return
        world.tally.timed_suspensions += 1
        for delay_ms in LOOKS_MS:
            self._events.after(at_ns - now_ns + delay_ms * MILLISECOND_NS, world.look)
        if self._rng.random() < 0.3:
            delay_ns = max(0, at_ns - now_ns + self._rng.randrange(-20, 20) * MILLISECOND_NS)
            self._events.after(delay_ns, self._cancel)

    def _cancel(self) -> None:
        self._world.operate(lambda s: s.suspension.cancel())

    def _suspend_a_pair(self, session: Session) -> None:
        """Suspend one pair by itself, now or soon; or bring it back, or think better of it."""
        world, now_ns = self._world, self._events.now_ns()
        names = [self._rng.choice([pair.secondary_volume for pair in session.document.pairs] or ["none"])]
        at_ns = now_ns + self._rng.choice((0, 20, 100)) * MILLISECOND_NS
        command = self._rng.random()
        if world.odds.trouble and self._rng.random() < world.odds.trouble:
            self._trouble_a_pair(session)
        elif command < 0.3:
            suspended = [pair.secondary_volume for pair in session.document.pairs if pair.suspend_at_ns]
            is_aimed = world.odds.trouble > 0 and bool(suspended)
            self._resume_a_pair([self._rng.choice(suspended)] if is_aimed else names)
        elif command < 0.4:
            world.operate(lambda s: s.pair_suspension.cancel(names))
        elif command < 0.6:
            self._suspended(world.operate(lambda s: s.pair_suspension.drain(names, "drained", now_ns)))
        else:
            self._suspended(world.operate(lambda s: s.pair_suspension.suspend(names, at_ns, "for a while")))

    def _trouble_a_pair(self, session: Session) -> None:
        """Suspend pairs and bring them back while the secondary's device is in trouble: soon tracks wait there (S6)."""
        world = self._world
        if world.secondary.disk.trouble is None:
            world.trouble_the_device(world.secondary, WIDE_KINDS)
        names = [pair.secondary_volume for pair in session.document.pairs]
        names = self._rng.sample(names, k=min(len(names), self._rng.choice((1, 2))))
        delay_ns = 0
        for is_resumed in self._rng.choice(((False, True), (True, False), (False, True, False))):
            delay_ns += self._rng.choice((1, 10, 60)) * MILLISECOND_NS

            def deed(is_resumed: bool = is_resumed) -> None:
                if not world.faults_on:
                    return  # nobody would bring back what is suspended now
                if is_resumed:
                    self._resume_a_pair(names)
                else:
                    now_ns = self._events.now_ns()
                    self._suspended(
                        world.operate(lambda s: s.pair_suspension.suspend(names, now_ns, "in trouble"))
                    )

            self._events.after(delay_ns, deed)
            for delay_ms in LOOKS_MS:
                self._events.after(delay_ns + delay_ms * MILLISECOND_NS, world.look)

    def _resume_a_pair(self, names: list[str]) -> None:
        if self._world.operate(lambda s: s.pair_suspension.resume(names)):
            self._world.tally.pairs_resumed += 1
            self._note_trouble()

    def _suspended(self, accepted: bool) -> None:
        if accepted:
            self._world.tally.pairs_suspended += 1
            self._note_trouble()

    def _note_trouble(self) -> None:
        session = self._session()
        if session is not None and session.mover.waiting_summary().track_count:
            self._world.tally.pair_deeds_in_trouble += 1

    def resume_pairs(self) -> None:
        """Bring back every pair that is suspended by itself, or is about to be."""
        session = self._session()
        for pair in session.document.pairs if session and not session.document.is_over else ():
            names = [pair.secondary_volume]
            if pair.suspended and pair.suspend_at_ns and not pair.removing:
                self._world.operate(lambda s, names=names: s.pair_suspension.resume(names))  # type: ignore[misc]
            elif pair.suspend_at_ns and not pair.removing:
                self._world.operate(lambda s, names=names: s.pair_suspension.cancel(names))  # type: ignore[misc]

    # A pair leaves and comes back, to a new volume

    def _replace_a_pair(self, session: Session) -> None:
        pairs = [pair for pair in session.document.pairs if not pair.removing]
        if not pairs:
            return
        pair = self._rng.choice(pairs)
        if not self._world.operate(lambda s: s.remove_pairs([pair.secondary_volume])):
            return
        self._world.tally.pairs_replaced += 1
        self._volumes_named += 1
        node = self._world.primaries[pair.source]
        name = f"{node.name}-{pair.primary_volume}-{self._volumes_named}"
        self.add_later(
            [(node.name, pair.primary_volume, name)], self._rng.choice((1, 20, 150)) * MILLISECOND_NS
        )
        self.watch(pair)

    def watch(self, pair: PairDocument) -> None:
        """Once the pair has left, nothing may change its volume; then it is deleted."""
        world, name = self._world, pair.secondary_volume
        if name in self._watched:
            return
        self._watched.add(name)

        def wait() -> None:
            session = self._session()
            if session is None or any(p.secondary_volume == name for p in session.document.pairs):
                if session is None or not session.document.is_over:
                    self._events.after(RETRY_NS // 5, wait)
            elif name in world.secondary.pool.volumes:
                content, life = world.judge.read(name), world.secondary.life
                self._events.after(WATCH_NS, lambda: look_again(content, life))

        def look_again(content: bytes, life: int) -> None:
            if world.secondary.life != life:
                self._events.after(RETRY_NS, wait)  # a power loss may have brought the pair back
                return
            if world.judge.read(name) != content:
                raise OracleError("a volume that has left the session was changed:", [name])
            world.secondary.guarded(delete)()

        def delete() -> None:
            try:
                world.secondary.pool.delete_volume(name)
            except IsochroneError:
                world.tally.refused_commands += 1

        wait()
