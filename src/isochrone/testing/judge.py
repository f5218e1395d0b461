"""What is checked in a simulated world, at any moment of it (promises 1, 2, 3 and 5; properties P2.1 to P3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from isochrone.capture.captured_volume import CapturedVolume
from isochrone.session.document import PairDocument, SessionDocument
from isochrone.session.session import Session
from isochrone.testing.application import volume_key
from isochrone.testing.history import ZERO_TOKEN, History
from isochrone.testing.oracle import Oracle, OracleError
from isochrone.testing.properties import (
    check_equal,
    check_marked_or_there,
    check_never_back,
    check_others_go_on,
    check_promises_stop,
    check_superset,
    check_told,
)
from isochrone.testing.sim_primary import PrimaryNode
from isochrone.testing.sim_secondary import SecondaryNode


@dataclass(slots=True)
class Tally:
    """What happened in one run, for the log and for tests that want to know that faults were met.

    Attributes:
        power_losses_durable: those of primaries whose marks are durable.
        pair_deeds_in_trouble: pairs suspended or resumed while tracks waited for the secondary's device.
        looks_at_waiting_pairs: looks that found tracks waiting and pairs suspended, or under way to be or not to be.
    """

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
    pairs_replaced: int = 0
    device_errors: int = 0
    link_troubles: int = 0
    storms: int = 0
    sessions_renewed: int = 0
    copies_broken_off: int = 0
    tracks_copied: int = 0
    tracks_equal: int = 0
    tracks_spoiled: int = 0
    timed_suspensions: int = 0
    pairs_behind: int = 0
    exact_suspensions: int = 0
    device_troubles: int = 0
    tracks_waited: int = 0
    power_losses: int = 0
    power_losses_durable: int = 0
    pairs_suspended: int = 0
    pairs_resumed: int = 0
    pair_deeds_in_trouble: int = 0
    looks_at_waiting_pairs: int = 0
    images_made: int = 0
    images_failed: int = 0
    instants_refused: int = 0
    instants_named: int = 0
    rewinds: int = 0


class Judge:
    """Compares what the nodes hold with the history.

    Attributes:
        is_renewing: whether the session is being deleted, so that primaries may know nothing of it.
    """

    def __init__(
        self,
        history: History,
        tally: Tally,
        primaries: Sequence[PrimaryNode],
        secondary: SecondaryNode,
    ) -> None:
        self.history = history
        self.oracle = Oracle(history)
        self.tally = tally
        self.primaries = primaries
        self.secondary = secondary
        self.is_renewing: Callable[[], bool] = lambda: False
        self._unregistered: set[str] = set()
        self._last_looks: dict[str, list[bytes]] = {}

    def check_committed_image(self) -> None:
        """Every pair that was ever complete holds exactly the writes up to C (promises 1, 3 and 5)."""
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return
        self.check_waiting(session)
        # A pair that is complete but not DUPLEX is in a resync; the hold must keep its image true all the same.
        complete = [pair for pair in session.document.pairs if pair.complete and not pair.removing]
        if complete:
            self.tally.image_checks += 1
            self.tally.resyncs_held += session.document.hold_floor_ns is not None
            self._check_images(complete, session.mover.consistency_ns)
            self._check_time_of_suspension(session.document, complete, session.mover.consistency_ns)

    def _check_time_of_suspension(
        self, document: SessionDocument, complete: Sequence[PairDocument], consistency_ns: int
    ) -> None:
        """A suspension at a time leaves the writes up to that time and none later."""
        pending_ns, reached_ns = document.suspend_at_ns, document.suspended_at_ns
        if pending_ns and consistency_ns > pending_ns:
            raise OracleError("C has passed the time of a pending suspension:", [document.suspend_reason])
        if reached_ns:
            self.tally.exact_suspensions += 1
            self._check_images(complete, reached_ns)

    def _check_images(self, complete: Sequence[PairDocument], through_ns: int) -> None:
        """Pairs that were suspended by themselves hold the writes up to then, all others those up to `through_ns`."""
        times_ns = {pair.image_time_ns(through_ns) for pair in complete}
        for time_ns in times_ns:
            self.check_volumes(
                [pair for pair in complete if pair.image_time_ns(through_ns) == time_ns], time_ns
            )
        self.tally.pairs_behind += len(times_ns) - 1

    def check_waiting(self, session: Session) -> None:
        """What waits for the device stops promises and nothing else, and is told (P6.1, P6.2, P6.4)."""
        mover = session.mover
        oldest_ns = mover.waiting_ns
        summary = mover.waiting_summary()
        self.tally.tracks_waited = max(self.tally.tracks_waited, summary.track_count)
        if summary.track_count and any(p.suspended or p.suspend_at_ns for p in session.document.pairs):
            self.tally.looks_at_waiting_pairs += 1
        check_told(oldest_ns, summary.track_count, summary.by_volume)
        check_others_go_on(summary.size_bytes, mover.settings.waiting_bytes_max, mover.full_reason)
        for source, state in mover.sources.items():
            waiting_ns = state.waiting_tracks.oldest_ns
            if waiting_ns is None or state.joined_ns is None or waiting_ns <= state.joined_ns:
                continue
            told = session.acks_told.get(source)
            times_ns = {
                "F": mover.form_ns,
                "J": mover.journal_ns,
                "C": mover.consistency_ns,
                "the staged promise": self.secondary.pool.staged_through_ns(session.document.number, source),
                "the hardened promise": told.hardened_ns if told else 0,
            }
            check_promises_stop(waiting_ns, times_ns)

    def check_volumes(self, pairs: Sequence[PairDocument], through_ns: int) -> None:
        """The secondaries of `pairs` hold exactly the writes up to `through_ns`, and never went back (P2.2)."""
        image: dict[str, list[bytes]] = {}
        for pair in pairs:
            key = volume_key(self.primaries[pair.source], pair.primary_volume)
            image[key] = self.history.split_tracks(self.read(pair.secondary_volume))
            before = self._last_looks.get(pair.secondary_volume)
            if before is not None:
                check_never_back(self.history, key, before, image[key])
        self.oracle.check_image(image, through_ns, volumes=list(image))
        for pair in pairs:
            key = volume_key(self.primaries[pair.source], pair.primary_volume)
            self._last_looks[pair.secondary_volume] = image[key]

    def secondary_lost_power(self) -> None:
        """The committed image may be an earlier one again: commits are made durable by the syncs that follow them."""
        self._last_looks.clear()

    def went_back(self) -> None:
        """The volumes are what they were at an earlier instant, on command."""
        self._last_looks.clear()

    def check_hardened(self) -> None:
        """After a restart of the secondary, whatever was said to be hardened is still there (promise 2)."""
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return
        pool, number = self.secondary.pool, session.document.number
        sources = {
            volume_key(self.primaries[pair.source], pair.primary_volume): pair.source
            for pair in session.document.pairs
            if pair.complete and not pair.removing
        }
        seen_ns = self.secondary.hardened_ns
        kept_ns = {
            volume: max(session.mover.consistency_ns, pool.staged_through_ns(number, source))
            for volume, source in sources.items()
        }
        lost = []
        for volume, through_ns in kept_ns.items():
            held = self.history.state_at(through_ns)
            lost += [
                str(write)
                for write in self.history.stamped()
                if write.volume == volume
                and through_ns < (write.time_ns or 0) <= seen_ns
                # Zeros over zeros are no record.
                and any(write.token_at(place) != held.get(place, ZERO_TOKEN) for place in write.places)
            ]
        if lost:
            raise OracleError(f"a restart lost what was said to be hardened through {seen_ns}:", lost)

    def check_equality(self) -> None:
        """Primary and secondary of every pair are the same bytes (P2.1, P2.5)."""
        session = self.secondary.session
        assert session is not None
        sides = []
        for pair in session.document.pairs:
            node = self.primaries[pair.source]
            volume = node.pool.volumes[pair.primary_volume]
            with node.unharmed():
                primary = volume.read(0, volume.size_bytes)
            sides.append((pair.secondary_volume, primary, self.read(pair.secondary_volume)))
        broken_off = any(node.watch and node.watch.copies_broken_off for node in self.primaries)
        check_equal(sides, self.history.track_size_bytes, after_abort=broken_off)

    def check_marks(self) -> None:
        """Whatever has changed since what is surely hardened is marked (P3.1), or on the secondary (P2.3)."""
        session = self.secondary.session
        if session is None:
            return
        held = self.history.state_at(None)
        for pair, captured, key in self._captured_pairs():
            # Of a pair that was suspended by itself nothing later than its image is sure. J as the mover counts it begins at
            # C again after a restart, though what it was said to be is kept (see check_hardened).
            hardened_ns = pair.image_time_ns(self.secondary.journal_seen_ns)
            hardened = self.history.state_at(hardened_ns)
            image_ns = pair.image_time_ns(session.mover.consistency_ns)
            marked = captured.change_map.marked()
            self.tally.mark_checks += 1
            image = None
            if self.secondary.is_up and pair.secondary_volume in self.secondary.pool.volumes:
                image = self.history.split_tracks(self.read(pair.secondary_volume))
            check_marked_or_there(self.history, key, marked, image, image_ns, hardened, hardened_ns)
            check_superset(key, held, hardened, marked, range(len(marked)))

    def _captured_pairs(self) -> Iterator[tuple[PairDocument, CapturedVolume, str]]:
        """Yield the complete pairs whose primary is up, as it captures them."""
        session = self.secondary.session
        is_idle = session is None or session.document.is_over or self.is_renewing()
        for pair in session.document.pairs if session and not is_idle else ():
            node = self.primaries[pair.source]
            if not (pair.complete and node.is_up) or pair.removing:
                continue
            stream = node.primary.streams.get(session.document.session_id) if session else None
            if stream is None and (node.reopened_after_loss or node.name in self._unregistered):
                # The registration was not flushed. The mover will have everything copied, once it gets through.
                self._unregistered.add(node.name)
                continue
            self._unregistered.discard(node.name)
            if stream is None:
                raise OracleError("a primary has forgotten the session:", [node.name])
            for captured in stream.volumes.values():
                # None: a power loss has undone the pair's removal here; the mover will have everything copied.
                if captured.volume.name == pair.primary_volume:
                    yield pair, captured, volume_key(node, pair.primary_volume)

    def read(self, name: str) -> bytes:
        """Return all of a secondary volume."""
        volume = self.secondary.pool.volumes[name]
        with self.secondary.unharmed():
            return volume.read(0, volume.size_bytes)
