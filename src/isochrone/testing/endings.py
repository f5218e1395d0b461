"""How simulated worlds end: calm, disaster or a planned switchover, and what must hold then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isochrone.model.errors import ConflictError
from isochrone.model.states import SessionState
from isochrone.mover.waiting import RETRY_NS_MAX
from isochrone.session.explain import blocked_on, pair_state
from isochrone.session.session import Session
from isochrone.testing.application import volume_key
from isochrone.testing.events import MILLISECOND_NS, SECOND_NS
from isochrone.testing.history import ZERO_TOKEN
from isochrone.testing.oracle import OracleError
from isochrone.testing.properties import check_cleared
from isochrone.testing.sim_primary import PrimaryNode
from isochrone.testing.world import TRACK_SIZE_BYTES, World

CLEAR_NS_MAX: Final = 2 * RETRY_NS_MAX
"""Virtual time within which tracks that wait are stored once the device takes them."""
CALM_PAUSE_NS: Final = 60 * MILLISECOND_NS
"""Applications think for about so long, at least, in calm times."""
SMALL_SIDE_FILE_BYTES: Final = 64 * TRACK_SIZE_BYTES
"""Up to this, two batches of writes that meet can be too much for the memory of a side file."""
PAST_NS_MAX: Final = SECOND_NS // 2
"""How long a session that is to go back goes on after it is whole."""
SETTLE_NS_MAX: Final = 60 * SECOND_NS
"""Virtual time within which a calm world must be DUPLEX and equal. Side files of the smallest size overflow in calm times
too, and a copy rests for half of the time on a slow link: some worlds need 25 s."""


def run_world(world: World) -> None:
    """Live through a world and one of its endings. Raises OracleError when a promise is broken."""
    world.live()
    endings = Endings(world)
    endings.wait_for_the_session()
    ending = world.rng.choice(
        (endings.end_in_disaster, endings.end_in_disaster, endings.end_in_calm, endings.switch_over)
    )
    if world.past.goes_back and ending == endings.end_in_disaster:
        ending = endings.go_back
    world.tally.ending = ending.__name__
    ending()
    world.past.finish()
    world.judge.oracle.check_dependencies()
    world.tally.copies_broken_off = sum(n.watch.copies_broken_off for n in world.primaries if n.watch)
    world.tally.tracks_copied = sum(n.watch.tracks_copied for n in world.primaries if n.watch)
    world.tally.tracks_equal = sum(n.watch.tracks_equal for n in world.primaries if n.watch)
    world.tally.writes = sum(application.write_count for application in world.applications)


class Endings:
    """The endings of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._went_back_to: list[int] = []
        self._wants_the_past = False

    def _stop_faults(self) -> None:
        self.world.faults_on = False
        for node in (*self.world.primaries, self.world.secondary):
            node.disk.hook = node.disk.trouble = None
            node.disk.bad_sectors.heal()
        smallest_bytes = min(node.settings.side_file_bytes_max for node in self.world.primaries)
        pause_ns = CALM_PAUSE_NS if smallest_bytes > SMALL_SIDE_FILE_BYTES else 4 * CALM_PAUSE_NS
        for application in self.world.applications:
            # The slowest link must keep up with a side file of the smallest size, also while a copy rests.
            application.pause_ns = max(application.pause_ns, pause_ns)
        self.world.troubles.heal()

    def _stop_writing(self) -> None:
        for application in self.world.applications:
            application.is_writing = False
        self._wait(lambda: all(application.is_idle for application in self.world.applications), "quiet")

    def wait_for_the_session(self) -> None:
        """A session that is being renewed is there again."""
        self._wait(lambda: not self.world.renewal.is_under_way, "the next session")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        if not self.world.events.run_until(self.world.events.now_ns() + SETTLE_NS_MAX, condition):
            raise OracleError(f"nothing is wrong any more, but {what} does not come:", [self._picture()])

    def _picture(self) -> str:
        session = self.world.secondary.session
        if session is None or not self.world.secondary.is_up:
            return "the secondary is down"
        pairs = [f"{pair.secondary_volume} {pair_state(session, pair)}" for pair in session.document.pairs]
        mover = session.mover
        return (
            f"{session.document.state}, blocked on: {blocked_on(session, self.world.events.now_ns()) or 'nothing'}; "
            f"F {mover.form_ns} J {mover.journal_ns} C {mover.consistency_ns}, hold {session.document.hold_floor_ns}; "
            + ", ".join(pairs)
        )

    def _is_duplex(self) -> bool:
        session = self.world.secondary.session
        if session is None or not all(node.is_up for node in (*self.world.primaries, self.world.secondary)):
            return False
        if session.document.state is SessionState.SUSPENDED:
            self.world.operate(lambda s: s.resume())
            return False
        self.world.operator.resume_pairs()
        return bool(session.document.pairs) and all(pair.duplex for pair in session.document.pairs)

    def end_in_calm(self) -> None:
        """Faults stop: everything becomes DUPLEX, and with writes stopped too, equal (P2.1)."""
        self._stop_faults()
        self._wait(self._is_duplex, "DUPLEX while applications write")
        self._check_that_waiting_ends()
        self._stop_writing()
        self._wait(self._is_duplex, "DUPLEX")
        self._wait(lambda: all(node.is_up for node in self.world.primaries), "every primary is up")
        last_ns = self.world.history.stamped()[-1].time_ns or 0
        self._wait(lambda: self._is_duplex() and self._consistency_ns() >= last_ns, "C past the last write")
        self.world.checking = False
        self.world.judge.check_committed_image()
        self.world.judge.check_equality()
        self.world.tally.lost_writes = 0

    def _check_that_waiting_ends(self) -> None:
        """The device takes everything again: what still waits clears in bounded time (P6.5)."""
        began_ns = self.world.events.now_ns()

        def nothing_waits() -> bool:
            session = self.world.secondary.session
            return session is not None and self.world.secondary.is_up and session.mover.waiting_ns is None

        self.world.events.run_until(began_ns + CLEAR_NS_MAX + SECOND_NS, nothing_waits)
        session = self.world.secondary.session
        oldest_ns = session.mover.waiting_ns if session else None
        check_cleared(oldest_ns, began_ns, self.world.events.now_ns(), CLEAR_NS_MAX)

    def _consistency_ns(self) -> int:
        session = self.world.secondary.session
        return session.mover.consistency_ns if session else 0

    def end_in_disaster(self) -> None:
        """The primary site dies in mid-write; the secondary recovers, perhaps dying on the way, and nobody goes back."""
        self.world.checking = False
        for node in self.world.primaries:
            self.world.dead.add(node)
            if node.is_up:
                self.world.rng.choice((node.kill, node.lose_power))()
        if not self._wants_the_past:
            self.world.faults_on = self.world.rng.random() < 0.5
        if not self.world.faults_on:
            self._stop_faults()
        seen_ns = self._consistency_ns() if self.world.secondary.is_up else 0
        if self.world.rng.random() < 0.3:  # one storm for both sites
            self.world.crash(self.world.secondary, self.world.secondary.lose_power)
        self._recover(drain=False)
        if not self._is_recovered():
            return
        recovered_ns = self._check_recovered()
        if recovered_ns in self._went_back_to:
            seen_ns = 0  # what came later was given up on purpose
        volumes = self._paired_volumes()
        # Time alone may go back a little: while nothing is written, it is made durable only now and then. Zeros over zeros
        # are no record.
        held = self.world.history.state_at(recovered_ns)
        gone = [
            str(w)
            for w in self.world.history.stamped()
            if recovered_ns < (w.time_ns or 0) <= seen_ns
            and w.volume in volumes
            and any(w.token_at(place) != held.get(place, ZERO_TOKEN) for place in w.places)
        ]
        if gone:
            raise OracleError(f"recovery to {recovered_ns} lost what was committed at {seen_ns}:", gone)
        self.world.tally.lost_writes = sum(
            1
            for w in self.world.history.stamped()
            if (w.time_ns or 0) > recovered_ns and w.acknowledged_at is not None
        )
        self._stop_faults()
        self._return_of_the_primaries()

    def go_back(self) -> None:
        """A session that keeps its history is whole, and goes on for a while; then disaster strikes, and the past is wanted.

        The secondary may die on the way there, any number of times.
        """
        self._stop_faults()
        self._wait(self._is_duplex, "DUPLEX while applications write")
        self.world.events.run_until(self.world.events.now_ns() + self.world.rng.randrange(PAST_NS_MAX))
        if self.world.rng.random() < 0.5:
            self.world.resume_faults()
        self._wants_the_past = True
        self.end_in_disaster()

    def switch_over(self) -> None:
        """A planned switchover loses nothing: writes are refused at the primaries before the last one is here."""
        self._stop_faults()
        self._wait(self._is_duplex, "DUPLEX while applications write")
        self.world.checking = False
        self._recover(drain=True)
        recovered_ns = self._check_recovered()
        volumes = self._paired_volumes()
        late = [
            str(write)
            for write in self.world.history.stamped()
            if (write.time_ns or 0) > recovered_ns
            and write.acknowledged_at is not None
            and write.volume in volumes
        ]
        if late:
            raise OracleError("acknowledged writes are missing after a planned switchover:", late)
        self._return_of_the_primaries()

    def _recover(self, *, drain: bool) -> None:
        """Ask for recovery until it is done, as an operator would, through every crash of the secondary."""
        deadline_ns = self.world.events.now_ns() + SETTLE_NS_MAX
        while self.world.events.now_ns() < deadline_ns and not self._is_recovered():
            session = self.world.secondary.session
            if self.world.secondary.is_up and session is not None:
                if not session.document.is_image_complete:
                    self._expect_refusal(session)
                    if not drain:
                        return
                if drain and session.document.state is SessionState.SUSPENDED:
                    self.world.operate(lambda s: s.resume())
                elif not session.is_draining and session.document.is_image_complete:
                    self._command_recovery(drain=drain)
            self.world.events.run_until(self.world.events.now_ns() + 50 * MILLISECOND_NS, self._is_recovered)
        if not self._is_recovered():
            raise OracleError("the recovery does not end:", [self._picture()])

    def _command_recovery(self, *, drain: bool) -> None:
        """Recover what there is, or go back to an instant of the history."""
        at_ns = self.world.past.held_instant(by_all_pairs=True) if self._wants_the_past else None
        if at_ns is not None and self.world.operate(
            lambda s: s.recover(drain=False, allow_incomplete=False, at_ns=at_ns)
        ):
            self._went_back_to.append(at_ns)
        elif at_ns is None:
            self.world.operate(lambda s: s.recover(drain=drain, allow_incomplete=False))

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
        session = self.world.secondary.session
        return (
            self.world.secondary.is_up
            and session is not None
            and session.document.state is SessionState.ENDED
        )

    def _check_recovered(self) -> int:
        session = self.world.secondary.session
        assert session is not None
        staying = [pair for pair in session.document.pairs if not pair.removing]
        if session.document.rewound_from_ns:
            self.world.judge.went_back()
        self.world.past.recovered()
        self.world.judge.check_volumes(staying, session.document.recovered_ns)
        self.world.tally.image_checks += 1
        if self.world.secondary.pool.staged_count(session.document.number):
            raise OracleError("staged entries are left after recovery:", [self._picture()])
        return session.document.recovered_ns

    def _return_of_the_primaries(self) -> None:
        """The old primaries come back: they are told of the new epoch, refuse writes, and change nothing here."""
        session = self.world.secondary.session
        assert session is not None
        before = {
            pair.secondary_volume: self.world.judge.read(pair.secondary_volume)
            for pair in session.document.pairs
        }
        self.world.dead.clear()
        for node in self.world.primaries:
            self.world.restart(node)
        self._wait(self._all_are_fenced, "the fence at every primary")
        for name, content in before.items():
            if self.world.judge.read(name) != content:
                raise OracleError("a returning primary changed a recovered volume:", [name])
        for node in self.world.primaries:
            if self.world.rng.random() < 0.3:  # what it said must hold from then on, whatever happens to it
                self.world.rng.choice((node.kill, node.lose_power))()
                self.world.restart(node)
            for name in node.volume_names:
                if self._is_paired(node, name) and not node.primary.write_refusal(
                    node.pool.volumes[name].number
                ):
                    raise OracleError("a fenced primary accepts writes:", [f"{node.name}/{name}"])

    def _paired_volumes(self) -> set[str]:
        """Return the primary volumes of the session, as the history names them."""
        session = self.world.secondary.session
        pairs = session.document.pairs if session else ()
        return {
            volume_key(self.world.primaries[pair.source], pair.primary_volume)
            for pair in pairs
            if not pair.removing
        }

    def _is_paired(self, node: PrimaryNode, name: str) -> bool:
        session = self.world.secondary.session
        return session is not None and any(
            pair.primary_volume == name and self.world.primaries[pair.source] is node and pair.is_confirmed
            for pair in session.document.pairs
            if not pair.removing
        )

    def _all_are_fenced(self) -> bool:
        self.world.renewal.clean_up()  # the session before may have been forgotten by force while a primary was down
        session = self.world.secondary.session
        return session is not None and all(source.fenced for source in session.document.sources)
