"""The fio jobs, and what is kept of a run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NS_PER_US: Final = 1000
FIO_OVERHEAD_S_MAX: Final = 60
"""fio is given up when it takes this much longer than the job's own time."""


@dataclass(frozen=True, slots=True)
class Job:
    """One fio job.

    Attributes:
        pattern: fio's `rw`.
        read_percent: share of reads of a mixed pattern; None otherwise.
        volume_count: volumes it runs on at once, one fio process each.
    """

    name: str
    pattern: str
    block_size: str
    depth: int
    read_percent: int | None = None
    volume_count: int = 1


JOBS: Final = (
    Job("4k randwrite d1", "randwrite", "4k", 1),
    Job("4k randwrite d32", "randwrite", "4k", 32),
    Job("64k randwrite d16", "randwrite", "64k", 16),
    Job("1m write d8", "write", "1m", 8),
    Job("4k randread d32", "randread", "4k", 32),
    Job("4k 70/30 d32", "randrw", "4k", 32, read_percent=70),
    Job("4k randwrite d32 x4", "randwrite", "4k", 32, volume_count=4),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one job on one server.

    Attributes:
        iops: completed operations per second, reads and writes.
        bytes_per_s: their bytes.
        latency_us_p50, latency_us_p99: completion latency; of the writes where there are any.
        cpu_s_per_million: CPU seconds of all server processes per million operations; fio is not counted.
        foreign_cpu_share: share of the machine's CPU time that neither the server nor fio used: other people's
            work, which makes the run doubtful when it is more than a little.
    """

    iops: float
    bytes_per_s: float
    latency_us_p50: float
    latency_us_p99: float
    cpu_s_per_million: float
    foreign_cpu_share: float


@dataclass(frozen=True, slots=True)
class FioResult:
    """What fio itself measured; `operation_count` includes the warm-up."""

    iops: float
    bytes_per_s: float
    latency_us_p50: float
    latency_us_p99: float
    operation_count: int


def run_fio(
    job: Job,
    uris: Sequence[str],
    *,
    volume_size_bytes: int,
    runtime_s: float,
    folder: Path,
    rate_iops: int | None = None,
) -> FioResult:
    """Run `job` on the first `job.volume_count` of `uris` and return what fio says.

    Args:
        rate_iops: hold each volume's rate down to this; None for as fast as it goes.

    Raises:
        RuntimeError: fio failed; the text holds what it printed.
    """
    output = folder / "fio.json"
    command = ["fio", f"--output={output}", "--output-format=json", "--name=global"]
    command += [
        "--group_reporting",
        f"--rw={job.pattern}",
        f"--bs={job.block_size}",
        f"--iodepth={job.depth}",
    ]
    command += ["--ioengine=nbd", f"--size={volume_size_bytes}", "--randrepeat=0", "--norandommap"]
    command += ["--time_based", f"--runtime={runtime_s}", "--percentile_list=50:99"]
    if job.read_percent is not None:
        command.append(f"--rwmixread={job.read_percent}")
    if rate_iops is not None:
        command.append(f"--rate_iops={rate_iops}")
    for number, uri in enumerate(uris[: job.volume_count]):
        command += [f"--name=volume{number}", f"--uri={uri}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=runtime_s + FIO_OVERHEAD_S_MAX, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return parse_fio(json.loads(output.read_text()))


def fill(uri: str, *, volume_size_bytes: int, folder: Path) -> None:
    """Write all of a volume once, so that no server pays for first use while it is measured."""
    command = ["fio", f"--output={folder / 'fill'}", "--name=fill", "--ioengine=nbd", f"--uri={uri}"]
    command += ["--rw=write", "--bs=1m", "--iodepth=8", f"--size={volume_size_bytes}", "--refill_buffers"]
    subprocess.run(command, capture_output=True, timeout=300, check=True)


def parse_fio(document: dict[str, Any]) -> FioResult:
    """Return the sums and percentiles of fio's JSON, one group of jobs."""
    jobs = document["jobs"]
    sides = [job[side] for job in jobs for side in ("read", "write") if job[side]["total_ios"]]
    if not sides or any(job["error"] for job in jobs):
        raise RuntimeError(f"fio did nothing, or met errors: {[job['error'] for job in jobs]}")
    percentiles = sides[-1]["clat_ns"]["percentile"]
    return FioResult(
        iops=sum(side["iops"] for side in sides),
        bytes_per_s=sum(side["bw_bytes"] for side in sides),
        latency_us_p50=percentiles["50.000000"] / NS_PER_US,
        latency_us_p99=percentiles["99.000000"] / NS_PER_US,
        operation_count=sum(side["total_ios"] for side in sides),
    )
