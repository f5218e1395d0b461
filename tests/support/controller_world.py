"""A controller without sockets: its operations over a real pool on a simulated disk."""

from __future__ import annotations

from collections.abc import Sequence

from isochrone.api.requests import SessionRequest
from isochrone.capture.links import PrimaryLinks
from isochrone.capture.own_marks import OwnMarks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.controller.copy_views import CopyViews
from isochrone.controller.copying import Copying
from isochrone.controller.exports import PoolExports
from isochrone.controller.fed_sessions import FedSessions
from isochrone.controller.image_catalogue import ImageCatalogue
from isochrone.controller.operations import ControllerOperations
from isochrone.controller.past import Past
from isochrone.controller.primary_shell import PrimaryShell
from isochrone.controller.session_set import SessionSet
from isochrone.controller.volume_uses import VolumeUses
from isochrone.copies.catalogue import Catalogue
from isochrone.copies.schedule import Schedule
from isochrone.link.messages import PROTOCOL_VERSION, Configure, Hello, WantedVolume
from isochrone.model.choices import Compression
from isochrone.model.policy import SessionPolicy
from isochrone.nbd.server import ConnectionReport
from isochrone.store.pool import Pool
from isochrone.testing.sim_disk import SimDisk
from support.reports import CONTROLLER
from support.store import TRACK, new_pool, run

SIZE_BYTES = 8 * TRACK
ID = "0" * 32
PRIMARY = {"name": "a", "address": "tcp:a:1"}


def pair(volume: str) -> dict[str, str]:
    return {"primary": "a", "primary_volume": volume, "secondary_volume": volume}


def session_request(*volumes: str) -> SessionRequest:
    pairs = [pair(volume) for volume in volumes]
    return SessionRequest.model_validate({"name": "bank", "primaries": [PRIMARY], "pairs": pairs})


class World:
    """The operations of a controller over a pool on a simulated disk; nothing is dialled and nothing ticks."""

    def __init__(
        self, *, track_count: int = 64, schedules: Sequence[Schedule] = (), disk: SimDisk | None = None
    ) -> None:
        """`disk`: holds the pool of an earlier controller."""
        self.disk = disk or SimDisk(seed=1)
        self.pool = Pool.open(self.disk) if disk else new_pool(self.disk, track_count=track_count)[1]
        self.flush_count = 0
        self.connections: list[ConnectionReport] = []
        self.now_ns = 1_000_000_000
        core = Primary(self.pool, self.disk, self.clock, CaptureSettings(), 0)
        self.links = PrimaryLinks(core, ID, "c", TRACK, lambda: "1" * 32, lambda _: "", lambda _: False)
        self.primary = PrimaryShell(core, self.links, flush=self.flush, on_fatal=self.fatal)
        self.sessions = SessionSet(
            self.pool,
            OwnMarks(core, ID, "c"),
            mover_id=ID,
            mover_name="c",
            clock=self.clock,
            jitter=lambda: 0.5,
            new_identity=lambda: "2" * 32,
            keep_image=lambda *image: self.copying.keep_image(*image),
            flush=self.flush,
            on_fatal=self.fatal,
        )
        catalogue = Catalogue(self.pool.documents)
        self.exports = PoolExports(
            self.pool.volumes,
            self.primary,
            CopyViews(self.pool, catalogue, lambda _: ""),
            track_size_bytes=TRACK,
            block_size_min=1,
            secondary_of=self.sessions.secondary_of,
            flush=self.flush,
            on_fatal=self.fatal,
        )
        self.copying = Copying(
            self.pool,
            catalogue,
            self.exports,
            VolumeUses(self.exports, self.primary, self.sessions, catalogue, lambda: self.connections),
            schedules,
            clock=self.clock,
            flush=self.flush,
            on_fatal=self.fatal,
        )
        self.past = Past(
            self.pool,
            ImageCatalogue(self.pool),
            self.sessions,
            fed=FedSessions(self.primary, self.sessions),
            clients_of=self.copying.uses.clients_of,
            children_of=self.copying.catalogue.children_of,
            relations_of=self.copying.catalogue.relations_of,
            forget_export=self.exports.forget,
            clock=self.clock,
            flush=self.flush,
        )
        self.operations = ControllerOperations(
            self.pool,
            "/pool",
            self.exports,
            self.primary,
            self.sessions,
            self.past,
            self.copying,
            controller=lambda _: CONTROLLER,
            controller_name="c",
            checkpoint_age_s=lambda: None,
            warning_percent=lambda: None,
            flush=self.flush,
            clock=self.clock,
        )

    def clock(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def fatal(self, error: BaseException) -> None:
        raise error

    async def flush(self) -> None:
        self.flush_count += 1
        run(self.pool.sync())

    def capture(self, volume: str) -> None:
        """Let a mover elsewhere pull `volume` for the session `far`."""
        self.links.link_opened(1)
        hello = Hello(PROTOCOL_VERSION, "3" * 32, "far", 1, "4" * 32, "m", "", TRACK, Compression.OFF, "", 0)
        self.links.link_received(1, hello)
        self.links.link_received(1, Configure(1, [WantedVolume(volume)], SessionPolicy()))
