"""`python -m bench.run`: measure, print, write bench/latest.json.

The runs of one job go around the servers in turn (A B C, A B C, A B C), because a shared machine drifts: what
slows one server then slows its neighbours too, and the ratios stay true.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import copies, keeping, marking, reflinks, resync, rewinds, servers
from bench.changes import Extent
from bench.jobs import JOBS, Job, Sample, fill
from bench.measure import measure, measure_lag
from bench.results import (
    PARTS,
    REPLICATED,
    Lag,
    Target,
    disturbed_count,
    jobs_document,
    table,
    target_table,
    targets,
    write_json,
)
from bench.servers import Server
from isochrone import __version__
from isochrone.model.sizes import parse_size

LATEST: Final = Path(__file__).parent / "latest.json"
ALONE: Final = "isochrone"
TWO_PRIMARIES: Final = "isochrone session x2"
SERVER_NAMES: Final = ("nbdkit", "qemu-nbd", ALONE, REPLICATED, TWO_PRIMARIES)
WRITE_JOB: Final = "4k randwrite d32"
LAG_RUNTIME_FACTOR: Final = 3
"""The lag is watched for this many times as long as a job runs."""

Measured = tuple[Mapping[str, object], Sequence[Target]]
"""Figures of a part for the result file, and what became of its targets."""
Samples = dict[tuple[str, str], list[Sample]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for.

    Attributes:
        extent: of the resyncs; a rival is given up after `rival_s_max`.
        history_entry_count: that images of the past are made from; each takes a track of the pool in memory.
    """

    parts: tuple[str, ...]
    extent: Extent
    rival_s_max: float
    history_entry_count: int
    jobs: tuple[Job, ...]
    server_names: tuple[str, ...]
    repeats: int
    runtime_s: float
    volume_size_bytes: int
    backing: Path
    output: Path | None

    def takes_part(self, job: Job, server_name: str) -> bool:
        """Jobs over several volumes have their own replicated server, with two primaries."""
        return server_name != (REPLICATED if job.volume_count > 1 else TWO_PRIMARIES)


def main() -> None:
    """Run the benchmark as the command line says."""
    plan = _parse_arguments()
    console = Console(width=max(110, Console().width))
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="iso-bench-", dir=plan.backing) as name:
        for part in plan.parts:
            figures, judged = _MEASURES[part](plan, Path(name), console)
            console.print(target_table(judged))
            measured[part] = figures, judged
    if plan.output:
        write_json(plan.output, machine=_machine(plan), parts=measured)
        console.print(f"written to {plan.output}")


def _measure_jobs(plan: Plan, folder: Path, console: Console) -> Measured:
    samples: Samples = {}
    with _servers(plan, folder, console) as running:
        for number in range(plan.repeats):
            _round(plan, running, samples, folder, console, number)
        lag = _lag(plan, running, samples, folder, console)
    console.print(table(samples))
    if lag:
        console.print(
            f"lag at {lag.rate_iops:,} writes/s: p50 {lag.lag_ms_p50:.1f} ms, p99 {lag.lag_ms_p99:.1f} ms "
            f"({lag.sample_count} samples)"
        )
    run_count = sum(len(runs) for runs in samples.values())
    if disturbed := disturbed_count(samples):
        console.print(
            f"{disturbed} of {run_count} runs were disturbed: others used the machine. Measure again."
        )
    return jobs_document(samples, lag), targets(samples, lag)


def _measure_marking(plan: Plan, folder: Path, console: Console) -> Measured:
    found = marking.measure_marking(
        folder,
        volume_size_bytes=plan.volume_size_bytes,
        runtime_s=plan.runtime_s,
        repeats=plan.repeats,
        console=console,
    )
    console.print(marking.table(found))
    return dataclasses.asdict(found), marking.targets(found)


def _measure_resyncs(plan: Plan, folder: Path, console: Console) -> Measured:
    found = resync.measure_resyncs(folder, plan.extent, plan.rival_s_max, console)
    console.print(resync.table(found))
    if front := found.foreground:
        console.print(
            f"{front.rate_iops:,} writes/s: p99 {front.latency_us_p99_alone:,.0f} us alone, "
            f"{front.latency_us_p99_beside:,.0f} us beside a resync of {front.resync_s:.1f} s "
            f"(under way for {front.beside_share:.0%} of the time)"
        )
    return dataclasses.asdict(found), resync.targets(found)


def _measure_copies(plan: Plan, folder: Path, console: Console) -> Measured:
    taken = copies.measure_copies(folder, console)
    taken.reflink = reflinks.measure_reflink(
        folder, size_bytes=copies.LARGE_BYTES, mapped_bytes=copies.MAPPED_BYTES
    )
    console.print(copies.table(taken))
    kept = keeping.measure_keeping(folder, console)
    console.print(keeping.table(kept))
    past = rewinds.measure_rewinds(folder, plan.history_entry_count, console)
    console.print(rewinds.table(past))
    figures = {
        "taken": dataclasses.asdict(taken),
        "keeping": dataclasses.asdict(kept),
        "rewinds": dataclasses.asdict(past),
    }
    return figures, [*copies.targets(taken), *keeping.targets(kept), *rewinds.targets(past)]


_MEASURES: Final = {
    "jobs": _measure_jobs,
    "marking": _measure_marking,
    "resync": _measure_resyncs,
    "copies": _measure_copies,
}


def _round(
    plan: Plan, running: list[Server], samples: Samples, folder: Path, console: Console, number: int
) -> None:
    for job in plan.jobs:
        for server in running:
            if not plan.takes_part(job, server.name):
                continue
            sample = measure(
                server, job, volume_size_bytes=plan.volume_size_bytes, runtime_s=plan.runtime_s, folder=folder
            )
            samples.setdefault((job.name, server.name), []).append(sample)
            console.print(
                f"{number + 1}/{plan.repeats} {job.name:22} {server.name:20} {sample.iops:10,.0f} IOPS"
            )


def _lag(plan: Plan, running: list[Server], samples: Samples, folder: Path, console: Console) -> Lag | None:
    """Watch the lag at half of the highest write rate that the replicated server has just shown."""
    shown = samples.get((WRITE_JOB, REPLICATED))
    if not shown:
        return None
    server = next(server for server in running if server.name == REPLICATED)
    job = next(job for job in plan.jobs if job.name == WRITE_JOB)
    rate_iops = int(max(sample.iops for sample in shown) / 2)
    console.print(f"lag at {rate_iops:,} writes/s ...")
    return measure_lag(
        server,
        job,
        rate_iops=rate_iops,
        volume_size_bytes=plan.volume_size_bytes,
        runtime_s=plan.runtime_s * LAG_RUNTIME_FACTOR,
        folder=folder,
    )


@contextlib.contextmanager
def _servers(plan: Plan, folder: Path, console: Console) -> Iterator[list[Server]]:
    """All servers that are asked for, volumes filled, paused."""
    size = plan.volume_size_bytes
    makers = {
        "nbdkit": lambda: servers.nbdkit(folder, volume_size_bytes=size),
        "qemu-nbd": lambda: servers.qemu_nbd(folder, volume_size_bytes=size),
        ALONE: lambda: servers.isochrone(
            ALONE, folder, volume_count=4, primary_count=1, replicated=False, volume_size_bytes=size
        ),
        REPLICATED: lambda: servers.isochrone(
            REPLICATED, folder, volume_count=1, primary_count=1, replicated=True, volume_size_bytes=size
        ),
        TWO_PRIMARIES: lambda: servers.isochrone(
            TWO_PRIMARIES, folder, volume_count=4, primary_count=2, replicated=True, volume_size_bytes=size
        ),
    }
    with contextlib.ExitStack() as stack:
        running = []
        for name in plan.server_names:
            if not any(plan.takes_part(job, name) for job in plan.jobs):
                continue
            console.print(f"starting and filling {name}")
            server = stack.enter_context(makers[name]())
            with server.turn():
                for uri in server.uris:
                    fill(uri, volume_size_bytes=size, folder=folder)
            running.append(server)
        yield running


def _machine(plan: Plan) -> dict[str, object]:
    return {
        "isochrone": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu_count": os.cpu_count(),
        "backing": str(plan.backing),
        "volume_size_bytes": plan.volume_size_bytes,
        "runtime_s": plan.runtime_s,
        "repeats": plan.repeats,
        **servers.describe_versions(),
    }


def _parse_arguments() -> Plan:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--resync-volume", default="100GiB", help="size of the volume (%(default)s)")
    parser.add_argument("--resync-size", default="1GiB", help="of the changes in it (%(default)s)")
    parser.add_argument(
        "--rival-seconds", type=float, default=240.0, help="when a rival is given up (%(default)s)"
    )
    parser.add_argument(
        "--history-entries",
        type=int,
        default=1_000_000,
        help="of the session that images are made of; 4 KiB of memory each (%(default)s)",
    )
    parser.add_argument(
        "--job", action="append", choices=[job.name for job in JOBS], help="only this job; repeatable"
    )
    parser.add_argument(
        "--server", action="append", choices=SERVER_NAMES, help="only this server; repeatable"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each job on each server (%(default)s)"
    )
    parser.add_argument("--runtime", type=float, default=4.0, help="seconds of each run (%(default)s)")
    parser.add_argument("--size", default="256MiB", help="of each volume (%(default)s)")
    parser.add_argument("--backing", type=Path, default=Path("/dev/shm"), help="a tmpfs (%(default)s)")
    parser.add_argument("--output", type=Path, default=LATEST, help="result file (%(default)s)")
    parser.add_argument("--dry", action="store_true", help="write no result file")
    chosen = parser.parse_args()
    return Plan(
        parts=tuple(part for part in PARTS if not chosen.part or part in chosen.part),
        extent=Extent(parse_size(chosen.resync_volume), parse_size(chosen.resync_size)),
        rival_s_max=chosen.rival_seconds,
        history_entry_count=chosen.history_entries,
        jobs=tuple(job for job in JOBS if not chosen.job or job.name in chosen.job),
        server_names=tuple(name for name in SERVER_NAMES if not chosen.server or name in chosen.server),
        repeats=chosen.repeats,
        runtime_s=chosen.runtime,
        volume_size_bytes=parse_size(chosen.size),
        backing=chosen.backing,
        output=None if chosen.dry else chosen.output,
    )


if __name__ == "__main__":
    main()
