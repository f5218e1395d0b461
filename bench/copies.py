"""What point-in-time copies cost: how long writes are held while one is taken, and how much slower redirected writes are.

- A controller takes copies while fio writes at a steady rate: of one volume of 1 TiB, and of many volumes in one instant.
  The answer of `copy create` tells how long writes were held, fio how long they took in all.
- A volume is written once all over, in turn with its tracks its own and with all of them shared with a copy just taken.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.hole_pool import HEAD_BYTES, make_hole_pool
from bench.jobs import FIO_OVERHEAD_S_MAX, fill, parse_fio
from bench.reflinks import Reflink
from bench.results import Target
from bench.servers import start_on_written_pool
from isochrone.testing.processes import ControllerProcess

GIB: Final = 1 << 30
LARGE: Final = "large"
LARGE_BYTES: Final = 1 << 40
MAPPED_BYTES: Final = 16 * GIB
MANY_COUNT: Final = 100
MANY_BYTES: Final = 10 * GIB
MANY_MAPPED_BYTES: Final = 160 << 20
SPARE_BYTES: Final = 2 * GIB
HOLD_MS_MAX: Final = {LARGE: 10.0, "many": 50.0}
COPY_COUNT: Final = 10
COPY_PAUSE_S: Final = 0.5
CALM_NS: Final = 20_000_000
"""Between the time in which nothing is copied and a copy."""
WRITER_IOPS: Final = 4000
WRITER_DEPTH: Final = 4
NS_PER_MS: Final = 1e6
REDIRECT_MIN: Final = 0.8
REDIRECT_ROUNDS: Final = 7
REDIRECT_BYTES: Final = 512 << 20
REDIRECT_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Copies of the same volumes, one after the other.

    Attributes:
        hold_ms: of each copy, how long writes were held, as its answer says.
        answer_ms: until the answer, when the copy was durable.
        write_ms_max: the slowest write that ended between request and answer.
        write_ms_max_between: the same of as long a time between two copies: what this machine does by itself.
    """

    volume_count: int
    volume_bytes: int
    mapped_bytes: int
    hold_ms: list[float]
    answer_ms: list[float]
    write_ms_max: list[float]
    write_ms_max_between: list[float]


@dataclass(slots=True)
class Copies:
    """All figures of copies.

    Attributes:
        iops_owned, iops_shared: by round, writes to a volume alone and to one that was just copied.
    """

    holds: dict[str, Hold] = field(default_factory=dict)
    iops_owned: list[float] = field(default_factory=list)
    iops_shared: list[float] = field(default_factory=list)
    reflink: Reflink | None = None

    def redirect_ratio(self) -> float:
        """Return the median over the rounds of shared to owned."""
        pairs = zip(self.iops_shared, self.iops_owned, strict=True)
        return statistics.median(shared / owned for shared, owned in pairs)


def measure_copies(folder: Path, console: Console) -> Copies:
    """Measure holds, then redirects."""
    found = Copies()
    with _full_controller(folder / "full", console) as controller:
        for name, volumes, volume_bytes, mapped_bytes in (
            (LARGE, [LARGE], LARGE_BYTES, MAPPED_BYTES),
            ("many", _many(), MANY_BYTES, MANY_COUNT * MANY_MAPPED_BYTES),
        ):
            hold = _hold(controller, volumes, volume_bytes, mapped_bytes, folder)
            found.holds[name] = hold
            console.print(
                f"{len(volumes)} volumes of {volume_bytes / GIB:,.0f} GiB: held {max(hold.hold_ms):.2f} ms at most, "
                f"slowest write {statistics.median(hold.write_ms_max):.2f} ms"
            )
    with _small_controller(folder / "small") as controller:
        fill(controller.uri("v"), volume_size_bytes=REDIRECT_BYTES, folder=folder)
        _write_all_over(controller, folder)  # warms up
        for number in range(REDIRECT_ROUNDS):
            _round(controller, found, folder, shared_first=bool(number % 2))
            console.print(
                f"{number + 1}/{REDIRECT_ROUNDS} 4k randwrite d32: alone {found.iops_owned[-1]:,.0f} IOPS, "
                f"right after a copy {found.iops_shared[-1]:,.0f}"
            )
    return found


def targets(copies: Copies) -> list[Target]:
    """Return what is promised of copies."""
    judged = []
    for name, hold in copies.holds.items():
        bound = HOLD_MS_MAX[name]
        of = f"copy of {hold.volume_count} x {hold.volume_bytes / GIB:,.0f} GiB"
        held_ms, waited_ms = max(hold.hold_ms), statistics.median(hold.write_ms_max)
        wanted = f"<= {bound:g} ms"
        judged.append(Target(f"{of}: longest hold", wanted, f"{held_ms:.2f} ms", held_ms <= bound))
        judged.append(
            Target(f"{of}: slowest write, median", wanted, f"{waited_ms:.2f} ms", waited_ms <= bound)
        )
    factor = copies.redirect_ratio()
    judged.append(
        Target(
            "4k randwrite d32 right after a copy",
            f">= {REDIRECT_MIN:g} x without",
            f"{factor:.2f}",
            factor >= REDIRECT_MIN,
        )
    )
    return judged


def table(copies: Copies) -> Table:
    """Return the holds, and a reflink beside them."""
    shown = Table(title="taking copies, ms", box=box.SIMPLE, pad_edge=False)
    shown.add_column("of", no_wrap=True)
    for heading in (
        "hold, median",
        "max",
        "answer",
        "slowest write, median",
        "max",
        "between, median",
        "max",
    ):
        shown.add_column(heading, justify="right")
    for hold in copies.holds.values():
        mapped = f"{hold.mapped_bytes / GIB:,.1f} GiB mapped"
        rows = (hold.write_ms_max, hold.write_ms_max_between)
        shown.add_row(
            f"{hold.volume_count} x {hold.volume_bytes / GIB:,.0f} GiB, {mapped}",
            f"{statistics.median(hold.hold_ms):.2f}",
            f"{max(hold.hold_ms):.2f}",
            f"{statistics.median(hold.answer_ms):.1f}",
            *(f"{figure(row):.2f}" for row in rows for figure in (statistics.median, max)),
        )
    if copies.reflink:
        shown.add_row(*copies.reflink.row())
    return shown


def _many() -> list[str]:
    return [f"v{number}" for number in range(MANY_COUNT)]


@contextlib.contextmanager
def _full_controller(folder: Path, console: Console) -> Iterator[ControllerProcess]:
    volumes = {
        LARGE: (LARGE_BYTES, MAPPED_BYTES),
        **dict.fromkeys(_many(), (MANY_BYTES, MANY_MAPPED_BYTES)),
    }
    mapped = sum(mapped for _, mapped in volumes.values())
    console.print(f"mapping {mapped / GIB:,.0f} GiB in {len(volumes)} volumes")
    size_bytes = mapped + SPARE_BYTES
    make_hole_pool(folder / "full" / "pool", size_bytes=size_bytes, volumes=volumes)
    with _removed(folder), _controller(folder, "full", size_bytes) as controller:
        controller.start()
        yield controller


@contextlib.contextmanager
def _small_controller(folder: Path) -> Iterator[ControllerProcess]:
    with _removed(folder), _controller(folder, "small", 2 * REDIRECT_BYTES + SPARE_BYTES // 8) as controller:
        start_on_written_pool(controller)
        controller.create_volume("v", REDIRECT_BYTES)
        yield controller


def _controller(folder: Path, name: str, size_bytes: int) -> ControllerProcess:
    return ControllerProcess(folder / name, name, runtime_dir=folder / "run", pool_size=str(size_bytes))


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder)


def _hold(
    controller: ControllerProcess, volumes: list[str], volume_bytes: int, mapped_bytes: int, folder: Path
) -> Hold:
    """Take copies of `volumes` while fio writes to the first of them."""
    spans: list[tuple[int, int]] = []
    holds: list[float] = []
    with _writer(controller.uri(volumes[0]), folder) as log:
        time.sleep(2 * COPY_PAUSE_S)
        for number in range(COPY_COUNT):
            began_ns = time.time_ns()
            made = controller.post("/v1/copies", {"volumes": volumes, "name": f"c{number}"})
            spans.append((began_ns, time.time_ns()))
            holds.append(made["hold_ms"])
            time.sleep(COPY_PAUSE_S)
    for number in range(COPY_COUNT):
        controller.delete(f"/v1/copies/c{number}")
    writes = _latencies(log)
    return Hold(
        volume_count=len(volumes),
        volume_bytes=volume_bytes,
        mapped_bytes=mapped_bytes,
        hold_ms=holds,
        answer_ms=[(end - begin) / NS_PER_MS for begin, end in spans],
        write_ms_max=[_slowest_ms(writes, begin, end) for begin, end in spans],
        write_ms_max_between=[
            _slowest_ms(writes, begin - CALM_NS - (end - begin), begin - CALM_NS) for begin, end in spans
        ],
    )


@contextlib.contextmanager
def _writer(uri: str, folder: Path) -> Iterator[Path]:
    """Write at a steady rate for the length of the block; yields the log of every write's latency."""
    prefix = folder / "writer"
    words = ["--name=writer", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k", "--norandommap"]
    words += [f"--iodepth={WRITER_DEPTH}", f"--rate_iops={WRITER_IOPS}", f"--size={HEAD_BYTES}"]
    words += ["--time_based", f"--runtime={FIO_OVERHEAD_S_MAX}", "--disable_slat=1", "--disable_clat=1"]
    words += [f"--write_lat_log={prefix}", "--log_avg_msec=0", "--log_unix_epoch=1"]
    process = subprocess.Popen(["fio", f"--output={folder / 'writer.out'}", *words])
    try:
        yield prefix.with_name("writer_lat.1.log")
    finally:
        process.terminate()
        process.wait(FIO_OVERHEAD_S_MAX)


def _latencies(log: Path) -> list[tuple[int, int]]:
    """Return (end of the write in ms since the epoch, latency in ns) of all writes."""
    lines = (line.split(",") for line in log.read_text().splitlines())
    return [(int(words[0]), int(words[1])) for words in lines]


def _slowest_ms(writes: list[tuple[int, int]], begin_ns: int, end_ns: int) -> float:
    """Return the latency of the slowest write that ended in a span; writes are known to the millisecond."""
    begin_ms, end_ms = begin_ns // 1_000_000, end_ns // 1_000_000 + 1
    found = [latency for at_ms, latency in writes if begin_ms <= at_ms <= end_ms]
    if not found:
        raise RuntimeError("no write ended while a copy was taken: the writer does not run")
    return max(found) / NS_PER_MS


def _round(controller: ControllerProcess, found: Copies, folder: Path, *, shared_first: bool) -> None:
    for shared in (shared_first, not shared_first):
        if not shared:
            found.iops_owned.append(_write_all_over(controller, folder))
            continue
        controller.post("/v1/copies", {"volumes": ["v"], "name": "c"})
        found.iops_shared.append(_write_all_over(controller, folder))
        controller.delete("/v1/copies/c")


def _write_all_over(controller: ControllerProcess, folder: Path) -> float:
    """Write every track once, at random; return the writes per second."""
    output = folder / "over.json"
    words = ["--name=over", "--ioengine=nbd", f"--uri={controller.uri('v')}", "--rw=randwrite", "--bs=4k"]
    words += ["--iodepth=32", f"--size={REDIRECT_BYTES}", "--randrepeat=0", "--percentile_list=50:99"]
    subprocess.run(
        ["fio", f"--output={output}", "--output-format=json", *words],
        capture_output=True,
        timeout=REDIRECT_S_MAX,
        check=True,
    )
    document: dict[str, Any] = json.loads(output.read_text())
    return parse_fio(document).iops
