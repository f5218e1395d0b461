"""Images of past instants of a session with a long history, made while fio goes on writing at its primary."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.processes import anonymous_memory_bytes
from bench.results import Target
from isochrone.testing.processes import ControllerProcess, wait_until

SESSION: Final = "bench"
VOLUME_BYTES: Final = 256 << 20
TRACK_BYTES: Final = 4096
SPARE_BYTES: Final = 1 << 30
FILL_S_MAX: Final = 600.0
STATE_S_MAX: Final = 120.0
CALM_LAG_MS: Final = 200.0
BESIDE_IOPS: Final = 4000
IMAGE_S_MAX: Final = 1.0
ENTRY_BYTES_MAX: Final = 64
SHARES: Final = (0.1, 0.25, 0.5, 0.75, 0.99)
"""Of the history's time: where images are made."""


@dataclass(slots=True)
class Rewinds:
    """All figures of histories.

    Attributes:
        image_s: by part of the history that is linked, until the answer, with the image durable.
        metadata_bytes: what the history says; file_bytes: what is in its files; memory_bytes: by how much the process grew.
    """

    entry_count: int = 0
    image_s: dict[str, float] = field(default_factory=dict)
    metadata_bytes: int = 0
    file_bytes: int = 0
    memory_bytes: int = 0


def measure_rewinds(folder: Path, entry_count: int, console: Console) -> Rewinds:
    """Write a history, then make images."""
    found = Rewinds(entry_count)
    with _session(folder / "past", entry_count) as (east, west):
        before_bytes = anonymous_memory_bytes(west.pid)
        console.print(f"writing {entry_count:,} entries of history")
        _fill(east, entry_count, folder)
        wait_until(lambda: _is_calm(west), "all of it is committed", deadline_s=STATE_S_MAX)
        history = west.get(f"/v1/sessions/{SESSION}/history")
        found.entry_count = history["summary"]["record_count"]
        found.metadata_bytes = history["summary"]["metadata_bytes"]
        found.memory_bytes = anonymous_memory_bytes(west.pid) - before_bytes
        files = (west.folder / "pool").glob("history-*")
        found.file_bytes = sum(path.stat().st_size for path in files)
        _images(east, west, history, found, folder, console)
    return found


def targets(rewinds: Rewinds) -> list[Target]:
    """Return what is promised of histories."""
    slowest_s = max(rewinds.image_s.values())
    entry_bytes = rewinds.metadata_bytes / rewinds.entry_count
    return [
        Target(
            f"image of a past instant, {rewinds.entry_count:,} entries",
            f"<= {IMAGE_S_MAX:g} s",
            f"{slowest_s:.2f} s",
            slowest_s <= IMAGE_S_MAX,
        ),
        Target(
            "history, metadata per entry",
            f"<= {ENTRY_BYTES_MAX} bytes",
            f"{entry_bytes:.1f}",
            entry_bytes <= ENTRY_BYTES_MAX,
        ),
    ]


def table(rewinds: Rewinds) -> Table:
    """Return what a history costs."""
    shown = Table(title=f"history of {rewinds.entry_count:,} entries", box=box.SIMPLE, pad_edge=False)
    shown.add_column("figure", no_wrap=True)
    shown.add_column("", justify="right", no_wrap=True)
    for share, seconds in rewinds.image_s.items():
        shown.add_row(f"image at {share} of it", f"{seconds:.2f} s")
    for what, size_bytes in (
        ("metadata", rewinds.metadata_bytes),
        ("in files", rewinds.file_bytes),
        ("growth of the process", rewinds.memory_bytes),
    ):
        shown.add_row(f"{what}, bytes an entry", f"{size_bytes / rewinds.entry_count:.1f}")
    return shown


@contextlib.contextmanager
def _session(folder: Path, entry_count: int) -> Iterator[tuple[ControllerProcess, ControllerProcess]]:
    sizes = {
        "east": VOLUME_BYTES + SPARE_BYTES // 2,
        "west": VOLUME_BYTES + entry_count * TRACK_BYTES + SPARE_BYTES,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        east, west = (
            stack.enter_context(
                ControllerProcess(
                    folder / name,
                    name,
                    runtime_dir=folder / "run",
                    pool_size=str(size_bytes),
                    settings={"pool": {"preallocate": False}},
                )
            )
            for name, size_bytes in sizes.items()
        )
        for controller in (east, west):
            controller.start()
        east.create_volume("v", VOLUME_BYTES)
        west.post(
            "/v1/sessions",
            {
                "name": SESSION,
                "primaries": [{"name": "east", "address": east.link_address}],
                "pairs": [{"primary": "east", "primary_volume": "v", "secondary_volume": "v"}],
                "history_s_max": 24 * 3600,
            },
        )
        wait_until(
            lambda: bool(west.get(f"/v1/sessions/{SESSION}/history")["volumes"]),
            "the history has begun",
            deadline_s=STATE_S_MAX,
        )
        yield east, west


def _fio(east: ControllerProcess, folder: Path, *words: str) -> list[str]:
    command = [
        "fio",
        f"--output={folder / 'past.out'}",
        "--name=past",
        "--ioengine=nbd",
        f"--uri={east.uri('v')}",
    ]
    return [*command, "--rw=randwrite", "--bs=4k", "--norandommap", f"--size={VOLUME_BYTES}", *words]


def _fill(east: ControllerProcess, entry_count: int, folder: Path) -> None:
    words = _fio(east, folder, "--iodepth=32", f"--io_size={entry_count * TRACK_BYTES}")
    subprocess.run(words, capture_output=True, timeout=FILL_S_MAX, check=True)


def _is_calm(west: ControllerProcess) -> bool:
    report = west.get(f"/v1/sessions/{SESSION}")
    lag_ms = report["consistency"]["lag_ms"]
    return lag_ms is not None and lag_ms < CALM_LAG_MS


def _images(
    east: ControllerProcess,
    west: ControllerProcess,
    history: dict[str, Any],
    found: Rewinds,
    folder: Path,
    console: Console,
) -> None:
    """Make images of instants of the history while an application goes on."""
    first_ns, through_ns = history["first"]["time_ns"], history["through"]["time_ns"]
    words = ["--iodepth=4", f"--rate_iops={BESIDE_IOPS}", "--time_based", f"--runtime={FILL_S_MAX:.0f}"]
    writer = subprocess.Popen(_fio(east, folder, *words))
    try:
        for share in SHARES:
            at_ns = first_ns + int((through_ns - first_ns) * share)
            began_s = time.monotonic()
            west.post(f"/v1/sessions/{SESSION}/images", {"image": "x", "at_ns": at_ns})
            found.image_s[f"{share:.0%}"] = time.monotonic() - began_s
            west.delete(f"/v1/sessions/{SESSION}/images/x")
            console.print(f"image at {share:.0%} of the history: {found.image_s[f'{share:.0%}']:.2f} s")
    finally:
        writer.terminate()
        writer.wait(STATE_S_MAX)
