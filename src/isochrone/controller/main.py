"""`isochrone controller run`: from a settings file to a serving process, and back."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Final

import structlog
import uvloop

from isochrone import __version__
from isochrone.controller.logs import configure_logs
from isochrone.controller.pool_opening import open_pool
from isochrone.controller.process import Controller
from isochrone.controller.service_manager import notify_service_manager
from isochrone.controller.settings import ControllerSettings, load_settings
from isochrone.controller.stopping import StopRequests

EXIT_OK: Final = 0

_log = structlog.get_logger(__name__)


def run(config_path: Path) -> int:
    """Run a controller until a signal stops it; return EXIT_OK.

    A bug in a core ends the process with failing.EXIT_FAILED from wherever it is found.

    Raises:
        RefusedError: the settings are faulty, or an address or a folder cannot be used.
        NotFoundError: there is no pool and no size to create one with.
        BusyError: another controller has the pool, or listens on an address.
        ConflictError: host time is not fit for use, or the settings contradict the pool.
        DamagedError: the pool contradicts itself.
    """
    settings = load_settings(config_path)
    configure_logs(settings.controller.log_format, settings.controller.log_level, settings.controller.name)
    for exposed in settings.exposed_addresses():
        _log.warning("other hosts can reach this address, and there is no login", setting=exposed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: ControllerSettings) -> int:
    disk, pool = open_pool(settings.pool)
    try:
        controller = Controller(settings, disk, pool)
    except BaseException:
        disk.close()
        raise
    requests = StopRequests()
    starting = asyncio.create_task(controller.start(), name="start")
    stopped = asyncio.create_task(requests.stop.wait(), name="stop signal")
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and starting.exception() is None:
        gc.freeze()  # what was built for the life of the process need not be looked at again
        _log.info("ready", version=__version__, pool=str(settings.pool.path), **controller.addresses)
        notify_service_manager("READY=1")
        await stopped
        notify_service_manager("STOPPING=1")
    else:
        starting.cancel()
        requests.hurry.set()
    await asyncio.gather(starting, return_exceptions=True)
    await controller.stop(requests.hurry)
    stopped.cancel()
    if not starting.cancelled():
        starting.result()
    _log.info("stopped")
    return EXIT_OK
