"""What is checked in a simulated world, at any moment of it (promises 1, 2, 3 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isochrone.session.document import PairDocument
from isochrone.testing.application import volume_key
from isochrone.testing.history import ZERO_TOKEN, History
from isochrone.testing.oracle import Oracle, OracleError
from isochrone.testing.sim_primary import PrimaryNode
from isochrone.testing.sim_secondary import SecondaryNode


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
    pairs_replaced: int = 0
    device_errors: int = 0


class Judge:
    """Compares what the nodes hold with the history."""

    def __init__(
        self,
        history: History,
        tally: Tally,
        primaries: Sequence[PrimaryNode],
        secondary: SecondaryNode,
        volume_tracks: int,
    ) -> None:
        self.history = history
        self.oracle = Oracle(history)
        self.tally = tally
        self.primaries = primaries
        self.secondary = secondary
        self.volume_tracks = volume_tracks

    def check_committed_image(self) -> None:
        """Every pair that was ever complete holds exactly the writes up to C (promises 1, 3 and 5)."""
        session = self.secondary.session
        if session is None or not self.secondary.is_up:
            return
        # A pair that is complete but not DUPLEX is in a resync; the hold must keep its image true all the same.
        complete = [pair for pair in session.document.pairs if pair.complete and not pair.removing]
        if complete:
            self.tally.image_checks += 1
            self.tally.resyncs_held += session.document.hold_floor_ns is not None
            self.check_volumes(complete, session.mover.consistency_ns)

    def check_volumes(self, pairs: Sequence[PairDocument], through_ns: int) -> None:
        """The secondaries of `pairs` hold exactly the writes up to `through_ns`."""
        image: dict[str, list[bytes]] = {}
        for pair in pairs:
            key = volume_key(self.primaries[pair.source], pair.primary_volume)
            image[key] = self.history.split_tracks(self.read(pair.secondary_volume))
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
            if not (pair.complete and node.is_up) or pair.removing or session.document.is_over:
                continue
            stream = node.primary.streams.get(session.document.session_id)
            if stream is None and node.reopened_after_loss:
                continue  # the registration was not flushed; the mover will have everything copied
            if stream is None:
                raise OracleError("a primary has forgotten the session:", [node.name])
            captured = next(
                (c for c in stream.volumes.values() if c.volume.name == pair.primary_volume), None
            )
            if captured is None:
                continue  # a power loss has undone the pair's removal here; the mover will have everything copied
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

    def read(self, name: str) -> bytes:
        """Return all of a secondary volume."""
        volume = self.secondary.pool.volumes[name]
        with self.secondary.unharmed():
            return volume.read(0, volume.size_bytes)
