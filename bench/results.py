"""From samples to medians, ratios, targets, a table and a file."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich import box
from rich.table import Table

from bench.jobs import Sample

BASELINE: Final = "nbdkit"
RIVAL: Final = "qemu-nbd"
REPLICATED: Final = "isochrone session"
_RATIO_TARGETS: Final = (
    ("4k randwrite d32", "iops", BASELINE, ">=", 0.6),
    ("4k randwrite d32", "iops", RIVAL, ">=", 1.0),
    ("4k randwrite d1", "latency_us_p50", BASELINE, "<=", 1.3),
    ("1m write d8", "iops", BASELINE, ">=", 0.5),
    ("4k randread d32", "iops", BASELINE, ">=", 0.7),
)
"""(job, figure, server to compare with, sign, bound): what is promised with a session on."""
_FIGURE_NAMES: Final = {"iops": "IOPS", "latency_us_p50": "p50"}
FOREIGN_CPU_SHARE_MAX: Final = 0.1
LAG_MS_P50_MAX: Final = 50.0
LAG_MS_P99_MAX: Final = 250.0
PARTS: Final = ("jobs", "marking", "resync", "copies")
"""Of the benchmark; each can be measured by itself."""

Samples = Mapping[tuple[str, str], Sequence[Sample]]
"""(job name, server name) -> its runs."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the second site's image stood behind while writes came in at half of the highest rate.

    Attributes:
        rate_iops: the rate that was held.
        sample_count: times the lag was looked at.
        memory_bytes_max: the most anonymous memory each controller had meanwhile, by name.
        memory_bytes_bound: the bound that each controller derives from its settings, by name; None: no bound.
    """

    rate_iops: int
    lag_ms_p50: float
    lag_ms_p99: float
    sample_count: int
    memory_bytes_max: dict[str, int]
    memory_bytes_bound: dict[str, int | None]


@dataclass(frozen=True, slots=True)
class Target:
    """A promise about speed, and what came of it."""

    what: str
    wanted: str
    measured: str
    met: bool


def medians(samples: Samples) -> dict[tuple[str, str], Sample]:
    """Return the median of each figure by itself over the runs of each job on each server."""
    return {
        key: Sample(
            *(
                statistics.median(getattr(run, field.name) for run in runs)
                for field in dataclasses.fields(Sample)
            )
        )
        for key, runs in samples.items()
    }


def ratio(samples: Samples, job: str, server: str, other: str, figure: str = "iops") -> float | None:
    """Return how many times `other`'s figure the server's is: the median over the rounds, each by itself.

    What slows a round slows both servers of it, so this is steadier than the ratio of two medians. None when one
    of them was not measured.
    """
    ours, theirs = samples.get((job, server)), samples.get((job, other))
    if not ours or not theirs:
        return None
    factors: list[float] = [
        getattr(a, figure) / getattr(b, figure) for a, b in zip(ours, theirs, strict=True)
    ]
    return statistics.median(factors)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed."""
    if not values:
        raise ValueError("no values: nothing was measured")
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


def targets(samples: Samples, lag: Lag | None) -> list[Target]:
    """Return every target whose figures were measured."""
    judged = []
    for job, figure, other, sign, bound in _RATIO_TARGETS:
        factor = ratio(samples, job, REPLICATED, other, figure)
        if factor is not None:
            met = factor >= bound if sign == ">=" else factor <= bound
            what = f"{job} {_FIGURE_NAMES[figure]}, session on"
            judged.append(Target(what, f"{sign} {bound:g} x {other}", f"{factor:.2f}", met))
    return judged + (_lag_targets(lag) if lag else [])


def _lag_targets(lag: Lag) -> list[Target]:
    judged = [
        Target(
            "lag p50", f"< {LAG_MS_P50_MAX:g} ms", f"{lag.lag_ms_p50:.1f} ms", lag.lag_ms_p50 < LAG_MS_P50_MAX
        ),
        Target(
            "lag p99", f"< {LAG_MS_P99_MAX:g} ms", f"{lag.lag_ms_p99:.1f} ms", lag.lag_ms_p99 < LAG_MS_P99_MAX
        ),
    ]
    for name, used in lag.memory_bytes_max.items():
        bound = lag.memory_bytes_bound[name]
        if bound is not None:
            measured = f"{used / 2**20:.0f} MiB"
            judged.append(Target(f"memory of {name}", f"<= {bound / 2**20:.0f} MiB", measured, used <= bound))
    return judged


def table(samples: Samples) -> Table:
    """Return all medians, a row for each job and server, with the ratio of operations to the baseline."""
    shown = Table(title="median of each figure", box=box.SIMPLE, pad_edge=False)
    shown.add_column("job", no_wrap=True)
    shown.add_column("server", no_wrap=True)
    for heading in ("IOPS", "MB/s", "p50 us", "p99 us", "CPU s/M ops", f"x {BASELINE}"):
        shown.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for (job, server), sample in medians(samples).items():
        factor = ratio(samples, job, server, BASELINE)
        shown.add_row(
            job if job != previous else "",
            server,
            f"{sample.iops:,.0f}",
            f"{sample.bytes_per_s / 1e6:,.0f}",
            f"{sample.latency_us_p50:,.0f}",
            f"{sample.latency_us_p99:,.0f}",
            f"{sample.cpu_s_per_million:.1f}",
            "" if factor is None else f"{factor:.2f}",
        )
        previous = job
    return shown


def disturbed_count(samples: Samples) -> int:
    """Return the number of runs during which others used more of the machine than FOREIGN_CPU_SHARE_MAX."""
    return sum(run.foreign_cpu_share > FOREIGN_CPU_SHARE_MAX for runs in samples.values() for run in runs)


def target_table(judged: Sequence[Target]) -> Table:
    """Return the targets with met or missed."""
    shown = Table(title="targets", box=box.SIMPLE, pad_edge=False)
    for heading in ("target", "wanted", "measured", ""):
        shown.add_column(heading, no_wrap=True)
    for target in judged:
        shown.add_row(target.what, target.wanted, target.measured, "met" if target.met else "MISSED")
    return shown


def jobs_document(samples: Samples, lag: Lag | None) -> dict[str, object]:
    """Return every run of the fio jobs, and the lag."""
    return {
        "jobs": [
            {
                "job": job,
                "server": server,
                "median": dataclasses.asdict(sample),
                "ratio": ratio(samples, job, server, BASELINE),
                "runs": [dataclasses.asdict(run) for run in samples[job, server]],
            }
            for (job, server), sample in medians(samples).items()
        ],
        "lag": dataclasses.asdict(lag) if lag else None,
    }


def write_json(
    path: Path,
    *,
    machine: Mapping[str, object],
    parts: Mapping[str, tuple[Mapping[str, object], Sequence[Target]]],
) -> None:
    """Write what was measured: by part its figures and targets. A part that was not measured stays as it stands there."""
    past = json.loads(path.read_text()) if path.exists() else {}
    document = {key: value for key, value in past.items() if key in PARTS}
    for name, (figures, judged) in parts.items():
        targets = [dataclasses.asdict(target) for target in judged]
        document[name] = {"machine": dict(machine), **figures, "targets": targets}
    scratch = path.with_suffix(".json.tmp")
    scratch.write_text(json.dumps(document, indent=1) + "\n")
    scratch.rename(path)
