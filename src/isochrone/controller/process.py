"""The parts of a controller, put together, started in order and stopped in the reverse one.

::

    applications --NBD--> exports --> PrimaryShell (capture core) --> pool <-- Syncer
    movers elsewhere --link--> PrimaryShell
    primaries elsewhere <--link-- SessionSet (session cores) --> pool
    people, scrapers --HTTP--> operations --> all of the above

Nothing is served before host time has passed every stamp this pool has given out, and before a new stamp mark
is durable. At the stop clients go first, then links, then the API; then the pool is made durable and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from isochrone.api.app import create_app
from isochrone.capture.links import PrimaryLinks
from isochrone.capture.own_marks import OwnMarks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.controller.api_server import ApiServer
from isochrone.controller.capture_reports import Now
from isochrone.controller.copy_views import CopyViews
from isochrone.controller.copying import Copying
from isochrone.controller.exports import PoolExports
from isochrone.controller.failing import die
from isochrone.controller.fed_sessions import FedSessions
from isochrone.controller.history_log import HistoryLog
from isochrone.controller.host_clock import HostClock
from isochrone.controller.image_catalogue import ImageCatalogue
from isochrone.controller.operations import ControllerOperations
from isochrone.controller.past import Past
from isochrone.controller.present import read_now
from isochrone.controller.primary_shell import PrimaryShell
from isochrone.controller.reports import BASE_MEMORY_BYTES, METADATA_PER_MAPPED, controller_report
from isochrone.controller.session_set import SessionSet
from isochrone.controller.settings import CaptureSection, ControllerSettings
from isochrone.controller.space_keeper import SpaceKeeper
from isochrone.controller.syncing import Syncer
from isochrone.controller.volume_uses import VolumeUses
from isochrone.copies.catalogue import Catalogue
from isochrone.link.endpoint import Listener, serve
from isochrone.model.addresses import Address, TcpAddress, UnixAddress
from isochrone.model.errors import BusyError, IsochroneError, PoolReadOnlyError, RefusedError
from isochrone.nbd.server import NbdServer, ServerSettings
from isochrone.report.models import ControllerReport
from isochrone.store.disk import Disk
from isochrone.store.os_disk import OsDisk
from isochrone.store.pool import Pool

CLIENT_STOP_S_MAX: Final = 3.0
"""How long a stop waits for requests in flight."""


class Controller:
    """One controller over an open pool.

    Args:
        disk: the pool's folder.
        pool: open; the controller closes it.
    """

    def __init__(self, settings: ControllerSettings, disk: Disk, pool: Pool) -> None:
        self._settings = settings
        self._disk = disk
        self._pool = pool
        self._clock = HostClock.agree(settings.controller.runtime_dir, disk.boot_id, pool)
        self._syncer = Syncer(pool, on_fatal=die)
        self._nbd_addresses: list[Address] = []
        self._listeners: list[Listener] = []
        self._api = ApiServer()
        self._mark_keeper: asyncio.Task[None] | None = None
        self._started_ns = self._clock.now_ns()
        self._spill_disk = _open_spill_disk(settings.capture)
        self._id = uuid.UUID(pool.uuid).hex
        self._primary = self._make_primary()
        self._sessions = SessionSet(
            pool,
            OwnMarks(self._primary.primary, self._id, settings.controller.name),
            mover_id=self._id,
            mover_name=settings.controller.name,
            clock=self._clock.now_ns,
            jitter=random.SystemRandom().random,
            new_identity=_new_identity,
            keep_image=lambda *image: self._copying.keep_image(*image),
            flush=self._syncer.flush,
            on_fatal=die,
        )
        pool.on_history_given_up = HistoryLog(time.monotonic, self._sessions.name_of_number).given_up
        self._images = ImageCatalogue(pool)
        catalogue = Catalogue(pool.documents)
        self._exports = PoolExports(
            pool.volumes,
            self._primary,
            CopyViews(pool, catalogue, self._describe_image),
            track_size_bytes=pool.track_size_bytes,
            block_size_min=settings.nbd.block_size_min,
            secondary_of=self._sessions.secondary_of,
            flush=self._syncer.flush,
            on_fatal=die,
        )
        self._nbd = NbdServer(
            self._exports,
            ServerSettings(
                connections_max=settings.nbd.connections_max,
                large_request_bytes_max=settings.nbd.receive_budget,
                poll_ns_max=settings.nbd.poll_us_max * 1000,
            ),
        )
        self._primary.release_held = self._nbd.release_held
        self._copying = Copying(
            pool,
            catalogue,
            self._exports,
            VolumeUses(self._exports, self._primary, self._sessions, catalogue, self._nbd.connections),
            [section.schedule() for section in settings.copy_.schedule],
            clock=self._clock.now_ns,
            flush=self._syncer.flush,
            on_fatal=die,
        )
        self._space = SpaceKeeper(pool, settings.pool.warn_percent)

    def _make_primary(self) -> PrimaryShell:
        section = self._settings.capture
        capture = CaptureSettings(
            side_file_bytes_max=section.side_file_max,
            prune_interval_ns=int(section.prune_interval_s * 1e9),
            prune_tracks_max=section.prune_tracks,
            discard_interval_ns=int(section.discard_interval_s * 1e9),
            discard_tracks_max=section.discard_tracks,
            spill_bytes_max=section.spill_max,
            activity_regions_max=section.active_regions,
            activity_idle_ns=int(section.active_region_s * 1e9),
            clock_error_ns=self._clock_error_ns,
        )
        primary = Primary(
            self._pool, self._disk, self._clock.now_ns, capture, self._clock.stamp_floor_ns, self._spill_disk
        )
        links = PrimaryLinks(
            primary,
            self._id,
            self._settings.controller.name,
            self._pool.track_size_bytes,
            _new_identity,
            refuse_volume=self._refuse_as_primary,
            is_mover_here=self._is_mover_of,
        )
        return PrimaryShell(primary, links, flush=self._syncer.flush, on_fatal=die)

    def _refuse_as_primary(self, volume: str) -> str:
        """Return why a mover elsewhere cannot pull `volume`: what a mover of ours commits passes no capture."""
        session = self._sessions.secondary_of(volume)
        return f"it is a secondary of session {session!r} here: end that session first" if session else ""

    def _is_mover_of(self, session_id: str) -> bool:
        """Whether a session that has not ended is pulled by this controller."""
        return any(
            shell.session.document.session_id == session_id and not shell.session.document.is_over
            for shell in self._sessions
        )

    @property
    def _clock_error_ns(self) -> int:
        return int(self._settings.controller.clock_error_ms * 1e6)

    async def start(self) -> None:
        """Serve. Raises IsochroneError when an address cannot be had or host time is not fit for use."""
        await self._clock.wait_for_mark(self._clock_error_ns)
        await self._clock.reserve(self._syncer.flush)
        self._mark_keeper = asyncio.create_task(self._keep_mark(), name="stamp mark")
        self._syncer.start_background()
        self._primary.start()
        self._sessions.start()
        for address in self._settings.link.listen:
            with _naming("link.listen"):
                self._listeners.append(await serve(address, self._primary.accept))
        await self._primary.wait_for_movers(self._settings.capture.restart_hold_s)
        for address in self._settings.nbd.listen:
            with _naming("nbd.listen"):
                self._nbd_addresses.append(await self._listen_nbd(address))
        self._space.start()
        self._copying.keeper.start()
        with _naming("api.listen"):
            await self._api.start(create_app(self._operations()), self._settings.api.listen)

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop serving and close the pool; once `hurry` is set no client is waited for."""
        await self._close_nbd(hurry)
        for listener in self._listeners:
            listener.close()
        await self._copying.keeper.stop()
        self._space.stop()
        await self._sessions.stop()
        self._primary.stop()
        await self._primary.stop_spill()
        await self._primary.stop_activating()
        await self._api.stop(hurry=hurry.is_set())
        if self._mark_keeper is not None:
            self._mark_keeper.cancel()
            await asyncio.gather(self._mark_keeper, return_exceptions=True)
        await self._close_pool()

    async def _close_nbd(self, hurry: asyncio.Event) -> None:
        closing = asyncio.create_task(self._nbd.close(CLIENT_STOP_S_MAX))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not closing.done():
            await self._nbd.close(0)
        await closing

    async def _close_pool(self) -> None:
        """Make everything durable, with the last stamp, and let go of the pool."""
        if self._pool.read_only_reason is None and self._mark_keeper is not None:
            with contextlib.suppress(PoolReadOnlyError):  # logged by the syncer, and nothing else can be done
                await self._clock.release(self._syncer.flush)
        await self._syncer.stop()
        try:
            if self._pool.read_only_reason is None:
                self._primary.primary.close()
            if self._spill_disk is not None:
                self._spill_disk.close()
            self._pool.close()
        except OSError as error:
            raise PoolReadOnlyError(
                f"the last sync of the pool failed ({error}): writes that no client flushed may be lost; repair the "
                "device before the next start"
            ) from error

    async def _keep_mark(self) -> None:
        try:
            await self._clock.keep_reserved(self._syncer.flush)
        except PoolReadOnlyError:
            return  # logged by the syncer; no write is stamped any more
        except Exception as error:
            die(error)

    async def _listen_nbd(self, address: Address) -> Address:
        try:
            if isinstance(address, UnixAddress):
                await self._nbd.listen_unix(Path(address.path))
                return address
            return TcpAddress(address.host, await self._nbd.listen_tcp(address.host, address.port))
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                raise BusyError(
                    f"another process listens on {address}; stop it, or choose another"
                ) from error
            raise RefusedError(f"cannot listen on {address}: {reason}; choose another address") from error

    # Reports

    @property
    def addresses(self) -> dict[str, list[str]]:
        """Where the controller listens, with the ports the kernel chose."""
        return {
            "nbd": [str(address) for address in self._nbd_addresses],
            "link": [str(listener.address) for listener in self._listeners],
            "api": [str(address) for address in self._api.addresses],
        }

    def _operations(self) -> ControllerOperations:
        return ControllerOperations(
            self._pool,
            str(self._settings.pool.path),
            self._exports,
            self._primary,
            self._sessions,
            self._past(),
            self._copying,
            controller=self._report,
            controller_name=self._settings.controller.name,
            checkpoint_age_s=self._syncer.checkpoint_age_s,
            warning_percent=self._space.warning_percent,
            flush=self._syncer.flush,
            clock=self._clock.now_ns,
        )

    def _describe_image(self, volume: str) -> str:
        return self._images.description(volume, read_now(self._clock.now_ns))

    def _past(self) -> Past:
        return Past(
            self._pool,
            self._images,
            self._sessions,
            fed=FedSessions(self._primary, self._sessions),
            clients_of=self._copying.uses.clients_of,
            children_of=self._copying.catalogue.children_of,
            relations_of=self._copying.catalogue.relations_of,
            forget_export=self._exports.forget,
            clock=self._clock.now_ns,
            flush=self._syncer.flush,
        )

    def _report(self, now: Now) -> ControllerReport:
        mapped_bytes = self._pool.used_track_count * self._pool.track_size_bytes
        return controller_report(
            name=self._settings.controller.name,
            controller_id=self._id,
            started_ns=self._started_ns,
            now=now,
            addresses=self.addresses,
            memory_bytes_max=BASE_MEMORY_BYTES
            + int(METADATA_PER_MAPPED * mapped_bytes)
            + self._settings.capture.side_file_max
            + self._nbd.settings.memory_bytes_max,
        )


def _open_spill_disk(capture: CaptureSection) -> OsDisk | None:
    """Take the folder of the spill for this controller, where it is not the pool's. Raises IsochroneError."""
    if not capture.spill_max or capture.spill_path is None:
        return None
    with _naming("capture.spill_path"):
        try:
            disk = OsDisk(capture.spill_path, create=True)
        except OSError as error:
            raise RefusedError(
                f"{capture.spill_path} cannot be made ({error.strerror}); choose another folder"
            ) from error
        disk.lock()
        return disk


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    """Put the setting `key` before the text of an error."""
    try:
        yield
    except IsochroneError as error:
        raise type(error)(f"{key}: {error.message}", **error.fields) from error


def _new_identity() -> str:
    return uuid.uuid4().hex
