"""A session that keeps a history, over cores on simulated disks."""

from __future__ import annotations

from isochrone.model.states import SessionState
from isochrone.model.volume_kind import VolumeKind
from isochrone.session.images import ImagePlan
from isochrone.session.session import Session
from isochrone.store.volume_set import CopyItem
from support.cores import SECOND_NS, Clock, PrimarySite, SecondarySite, Wire, new_document
from support.history import made, shown

HOUR_NS = 3600 * SECOND_NS


class Sites:
    """A session from p1 to a secondary that keeps an hour of history; its pairs are DUPLEX."""

    def __init__(self, volumes: tuple[str, ...] = ("a",), *, history_ns: int = HOUR_NS) -> None:
        self.clock = Clock()
        self.primary = PrimarySite(self.clock, volumes=dict.fromkeys(volumes, 16))
        document = new_document(pairs=[(0, name, name) for name in volumes])
        self.secondary = SecondarySite(
            self.clock, document=document.changed(history_ns_max=history_ns), pool_tracks=1024
        )
        self.wire = Wire(self.secondary, self.primary)
        self.wait_duplex()

    def wait_duplex(self) -> None:
        self.wire.run_until(
            lambda: (
                self.session.document.state is SessionState.ACTIVE
                and all(pair.duplex for pair in self.session.document.pairs)
            )
        )
        self.wire.steps(2)

    @property
    def session(self) -> Session:
        return self.secondary.session

    def write(self, volume: str, track: int, tag: int) -> int:
        """Write, and return an instant after it and before any other write."""
        self.primary.write(volume, track, tag)
        return self.primary.primary.stamper.stamp()

    def wait_committed(self, time_ns: int) -> None:
        self.wire.run_until(lambda: self.session.mover.consistency_ns >= time_ns)

    def make(self, plan: ImagePlan) -> dict[str, list[int]]:
        """Make an image; return the first bytes of its tracks by volume."""
        pool, document = self.secondary.pool, plan.document
        written = {document.key: document.dump()}
        if plan.history_ns is None:
            items = [CopyItem(n, name, VolumeKind.IMAGE) for n, name in plan.names.items()]
            pool.create_copies(items, written)
        else:
            made(
                pool.history_image(
                    self.session.document.number, plan.history_ns, plan.names, VolumeKind.IMAGE, written
                )
            )
        return {member.volume: shown(pool.volumes[member.volume]) for member in document.members}

    def restart_secondary(self) -> None:
        self.wire.restart_secondary()
