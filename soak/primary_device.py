"""Faults of a primary's device: the application is told, nothing is lost, and the other primaries do not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isochrone.testing.processes import wait_until
from soak.sites import BLOCKED_S_MAX, SoakError
from soak.stage import Fault, Stage
from support.faulty_device import DeviceError

MEET_S_MAX: Final = 20.0
"""Within this an application that writes has met a device that fails."""


def _fail_writes(error: DeviceError) -> Callable[[Stage], str]:
    def do(stage: Stage) -> str:
        refused = stage.versions.refused
        stage.frail.fail(error)
        try:
            wait_until(
                lambda: stage.versions.refused > refused,
                f"the application is told {error}",
                deadline_s=MEET_S_MAX,
            )
            seconds = stage.pause((0.5, 3.0))
        finally:
            stage.frail.heal()
        _wait_writes(stage)
        return f"for {seconds:.1f} s after it was told, {stage.versions.refused - refused} writes refused"

    return do


def _fail_reads_of_a_resync(stage: Stage) -> str:
    """Tracks that were changed cannot be read when a resync begins: the pair says so, and is whole once they can."""
    stage.sites.settle()
    stage.sites.suspend("the soak says so")
    stage.sites.wait_told(lambda report: report["state"] == "SUSPENDED", "it is SUSPENDED")
    stage.pause((1.0, 2.0))
    stage.frail.fail(DeviceError.READ_EIO)
    try:
        stage.sites.resume()
        report = stage.sites.wait_told(
            lambda report: any(pair["unreadable_track_count"] for pair in report["pairs"]),
            "tracks cannot be read",
        )
        pairs = [pair for pair in report["pairs"] if pair["unreadable_track_count"]]
        if [pair["secondary_volume"] for pair in pairs] != ["versions"]:
            raise SoakError(f"volumes that can be read are said to be unreadable: {pairs}")
        if pairs[0]["state"] == "DUPLEX" or "cannot be read" not in (report["blocked_on"] or ""):
            raise SoakError(f"tracks cannot be read, and the session says {report['blocked_on']!r}")
        stage.pause((0.5, 2.0))
    finally:
        stage.frail.heal()
    return f"{pairs[0]['unreadable_track_count']} tracks could not be read"


def _lose_device(stage: Stage) -> str:
    """The device is pulled out: the pool takes no writes and says so; what its failed sync lost is suspected afterwards."""
    frail = stage.sites.east[-1]
    stage.frail.pull_out()
    wait_until(
        lambda: frail.get("/v1/pool")["state"] == "READ_ONLY",
        f"the pool of {frail.name} is read-only",
        deadline_s=BLOCKED_S_MAX,
    )
    seconds = stage.pause((0.2, 2.0))
    stage.lose(frail)
    stage.frail.plug_in()
    stage.regain(frail)
    _wait_writes(stage)
    return f"for {seconds:.1f} s"


def _wait_writes(stage: Stage) -> None:
    """The application goes on."""
    acknowledged = stage.versions.acknowledged
    wait_until(
        lambda: stage.versions.acknowledged > acknowledged,
        "the application writes again",
        deadline_s=BLOCKED_S_MAX,
    )


_TOLD: Final = (r'"versions".*(EIO|ENOSPC).*request failed',)
_UNREADABLE: Final = (*_TOLD, r"tracks.*cannot be read")
_LOST: Final = (
    *_TOLD,
    r"pool turned read-only",
    r"pool was not left in order",
    r"the pool is read-only.*the capture core could not do its work",
    r"change marks are not trusted",
    r"SUSPENDED.*a write failed and the track cannot be read.*(session|capture) changed",
)
PRIMARY_DEVICE_FAULTS: Final = (
    Fault("primary's device: EIO", _fail_writes(DeviceError.EIO), _TOLD),
    Fault("primary's device: ENOSPC", _fail_writes(DeviceError.ENOSPC), _TOLD),
    Fault("primary's device: EIO now and then", _fail_writes(DeviceError.EIO_RARELY), _TOLD),
    Fault("primary's device: EIO to reads of a resync", _fail_reads_of_a_resync, _UNREADABLE),
    Fault("primary's device pulled out", _lose_device, _LOST),
)
