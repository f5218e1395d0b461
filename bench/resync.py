"""How long a resync takes, and what applications feel of it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.changes import CHANGES, Change, Extent, apply, over_nbd
from bench.jobs import Job, run_fio
from bench.results import Target
from bench.rivals import RIVALS
from bench.servers import start_on_written_pool
from isochrone.testing.processes import ControllerProcess, wait_until

OURS: Final = "isochrone"
SESSION: Final = "bench"
CHANGED, FRONT = "changed", "front"
"""The volume that is resynchronised, and the one that an application uses."""
FRONT_BYTES: Final = 64 << 20
POOL_SPARE_BYTES: Final = 768 << 20
STATE_S_MAX: Final = 300.0
CALM_LAG_MS: Final = 100.0
POLL_S: Final = 0.01
FRONT_JOB: Final = Job("4k randwrite d4 beside a resync", "randwrite", "4k", 4)
FRONT_IOPS: Final = 4000
FRONT_RUNTIME_S: Final = 4.0
SENT_RATIO_MAX: Final = 1.05
BESIDE_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Foreground:
    """An application's writes at a steady rate, alone and beside a resync.

    Attributes:
        resync_s: until DUPLEX, with the application going on.
        beside_share: part of the measured time in which the resync was under way.
    """

    rate_iops: int
    latency_us_p99_alone: float
    latency_us_p99_beside: float
    resync_s: float
    beside_share: float


@dataclass(slots=True)
class Resyncs:
    """All figures of this part.

    Attributes:
        seconds: by change and by who brought it over; None when its limit was not enough.
        sent_ratio: bytes that Isochrone sent to those changed, by change.
    """

    extent: Extent
    limit_s: float
    seconds: dict[str, dict[str, float | None]] = field(default_factory=dict)
    sent_ratio: dict[str, float] = field(default_factory=dict)
    foreground: Foreground | None = None


def measure_resyncs(folder: Path, extent: Extent, limit_s: float, console: Console) -> Resyncs:
    """Measure every change with Isochrone and with every rival, one after the other."""
    found = Resyncs(extent, limit_s)
    for change in CHANGES:
        found.seconds[change.name] = {}
        with _pair(folder / "ours", change, extent) as pair:
            seconds, found.sent_ratio[change.name] = pair.resync(change, extent)
            _keep(found, change, OURS, seconds, console)
            if change is CHANGES[0]:
                found.foreground = pair.resync_beside(change, extent)
        for name, rival in RIVALS.items():
            place = folder / "rival"
            place.mkdir()
            try:
                caught_up = rival(place, change, extent, limit_s)
            finally:
                shutil.rmtree(place)
            _keep(found, change, name, caught_up.seconds, console)
    return found


def _keep(found: Resyncs, change: Change, name: str, seconds: float | None, console: Console) -> None:
    found.seconds[change.name][name] = seconds
    told = f"more than {found.limit_s:.0f} s" if seconds is None else f"{seconds:.2f} s"
    console.print(f"resync, {change.name:16} {name:20} {told}")


def targets(resyncs: Resyncs) -> list[Target]:
    """Return what is promised of resyncs."""
    judged = [
        Target(
            f"resync, {change}: bytes sent",
            f"<= {SENT_RATIO_MAX:g} x changed",
            f"{sent:.3f}",
            sent <= SENT_RATIO_MAX,
        )
        for change, sent in resyncs.sent_ratio.items()
    ]
    if front := resyncs.foreground:
        factor = front.latency_us_p99_beside / front.latency_us_p99_alone
        judged.append(
            Target(
                "write p99 beside a resync",
                f"<= {BESIDE_MAX:g} x alone",
                f"{factor:.2f}",
                factor <= BESIDE_MAX,
            )
        )
    return judged


def table(resyncs: Resyncs) -> Table:
    """Return the time of everybody, and how many times ours it is."""
    changed_mib = resyncs.extent.changed_bytes / 2**20
    title = f"{changed_mib:,.0f} MiB of changes in a volume of {resyncs.extent.volume_bytes / 2**30:,.0f} GiB"
    shown = Table(title=title, box=box.SIMPLE, pad_edge=False)
    shown.add_column("change", no_wrap=True)
    shown.add_column("by", no_wrap=True)
    for heading in ("seconds", "MiB/s of changes", "x isochrone"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for change, times in resyncs.seconds.items():
        ours = next(iter(times.values()))
        for name, seconds in times.items():
            if seconds is None:
                least = f"> {resyncs.limit_s / ours:.1f}" if ours else ""
                shown.add_row(change, name, f"> {resyncs.limit_s:.0f}", "", least)
            else:
                factor = f"{seconds / ours:.2f}" if ours else ""
                shown.add_row(change, name, f"{seconds:.2f}", f"{changed_mib / seconds:,.0f}", factor)
    return shown


class _Pair:
    """Two volumes of one primary, and their session to a second process."""

    def __init__(self, primary: ControllerProcess, mover: ControllerProcess, folder: Path) -> None:
        self._primary = primary
        self._mover = mover
        self._folder = folder

    def resync(self, change: Change, extent: Extent) -> tuple[float, float]:
        """Suspend, change, resume; return the seconds until DUPLEX, and sent bytes to changed ones."""
        self._change_unseen(change, extent)
        received_bytes = self._report()["byte_count"]
        seconds = self._resume()
        return seconds, (self._report()["byte_count"] - received_bytes) / extent.changed_bytes

    def resync_beside(self, change: Change, extent: Extent) -> Foreground:
        """Measure an application's latency, alone and while a resync is under way."""
        wait_until(self._is_calm, "the session is calm", deadline_s=STATE_S_MAX)
        alone = self._run_front()
        self._change_unseen(change, extent)
        began_s = time.monotonic()
        self._mover.post(f"/v1/sessions/{SESSION}/resume", {})
        beside = self._run_front()
        front_s = time.monotonic() - began_s
        was_duplex = self._is_duplex()
        wait_until(self._is_duplex, "the session is DUPLEX", deadline_s=STATE_S_MAX)
        resync_s = time.monotonic() - began_s
        share = 0.0 if was_duplex else 1.0
        return Foreground(FRONT_IOPS, alone, beside, resync_s, share or min(1.0, resync_s / front_s))

    def _run_front(self) -> float:
        result = run_fio(
            FRONT_JOB,
            [self._primary.uri(FRONT)],
            volume_size_bytes=FRONT_BYTES,
            runtime_s=FRONT_RUNTIME_S,
            folder=self._folder,
            rate_iops=FRONT_IOPS,
        )
        return result.latency_us_p99

    def _change_unseen(self, change: Change, extent: Extent) -> None:
        wait_until(self._is_calm, "the session is calm", deadline_s=STATE_S_MAX)
        self._mover.post(f"/v1/sessions/{SESSION}/suspend", {"reason": "measured"})
        wait_until(self._is_suspended, "the primary is suspended", deadline_s=STATE_S_MAX)
        apply(change, extent, over_nbd(self._primary.uri(CHANGED)), self._folder)

    def _resume(self) -> float:
        began_s = time.monotonic()
        self._mover.post(f"/v1/sessions/{SESSION}/resume", {})
        while not self._is_duplex():
            if time.monotonic() - began_s > STATE_S_MAX:
                raise RuntimeError(f"no DUPLEX after {STATE_S_MAX:g} s: {self._report()['blocked_on']}")
            time.sleep(POLL_S)
        return time.monotonic() - began_s

    def _report(self) -> dict[str, Any]:
        report: dict[str, Any] = self._mover.get(f"/v1/sessions/{SESSION}")
        return report

    def _is_suspended(self) -> bool:
        return all(capture["state"] == "SUSPENDED" for capture in self._primary.get("/v1/captures"))

    def _is_duplex(self) -> bool:
        return all(pair["state"] == "DUPLEX" for pair in self._report()["pairs"])

    def _is_calm(self) -> bool:
        lag_ms = self._report()["consistency"]["lag_ms"]
        return self._is_duplex() and lag_ms is not None and lag_ms < CALM_LAG_MS


@contextlib.contextmanager
def _pair(folder: Path, change: Change, extent: Extent) -> Iterator[_Pair]:
    """A session that is DUPLEX, the places of `change` written once at both sites."""
    changed = extent.changed_bytes + FRONT_BYTES
    sizes = {"east": changed + POOL_SPARE_BYTES, "west": 3 * changed + POOL_SPARE_BYTES}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        east, west = (
            stack.enter_context(
                ControllerProcess(folder / name, name, runtime_dir=folder / "run", pool_size=str(size_bytes))
            )
            for name, size_bytes in sizes.items()
        )
        for controller in (east, west):
            start_on_written_pool(controller)
        east.create_volume(CHANGED, extent.volume_bytes)
        east.create_volume(FRONT, FRONT_BYTES)
        apply(change, extent, over_nbd(east.uri(CHANGED)), folder)
        pairs = [
            {"primary": "east", "primary_volume": volume, "secondary_volume": volume}
            for volume in (CHANGED, FRONT)
        ]
        primaries = [{"name": "east", "address": east.link_address}]
        west.post("/v1/sessions", {"name": SESSION, "primaries": primaries, "pairs": pairs})
        yield _Pair(east, west, folder)
