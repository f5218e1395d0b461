"""What keeping history costs commits: by themselves, with all that a mover's pool does, and as a session's writers see it.

The oldest history is given up all the while, as in a session whose window has passed.

- Two pools take in the same groups of records in turn, one of them with history.
- Two sessions take turns at the same fio job.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from bench.jobs import Job, Sample, fill
from bench.measure import measure
from bench.results import Target
from bench.servers import isochrone, write_once
from isochrone.model.records import RECORD_DTYPE, RecordKind
from isochrone.store.durability import Steps
from isochrone.store.os_disk import OsDisk
from isochrone.store.pool import Pool
from isochrone.store.superblock import TRACKS_NAME

PLAIN: Final = "without history"
KEPT: Final = "with history"
JOB: Final = Job("4k randwrite d32", "randwrite", "4k", 32)
JOB_ROUNDS: Final = 7
JOB_S: Final = 2.0
VOLUME_BYTES: Final = 256 << 20
WINDOW: Final = {"history_s_max": 2, "history_bytes_max": 512 << 20}
RATIO_MIN: Final = 0.9
SLOWDOWN_MAX: Final = 1.1
TRACK_BYTES: Final = 4096
POOL_BYTES: Final = 1 << 30
RECORDS: Final = 1000
GROUPS: Final = 20
"""Taken in one after the other, then the oldest history is given up: about as often as a session does."""
ROUNDS: Final = 40
WARMUP: Final = 6
HISTORY_ROUNDS: Final = 4
TRACKS: Final = 65536
SOURCE: Final = 1


@dataclass(slots=True)
class Keeping:
    """All figures, by PLAIN and KEPT.

    Attributes:
        commit_us, whole_us: of `RECORDS` records, each round: the commit by itself, and storing, committing, making durable
            and giving up the oldest history.
        samples: the runs of the fio job.
    """

    commit_us: dict[str, list[float]] = field(default_factory=dict)
    whole_us: dict[str, list[float]] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def writes_ratio(self) -> float:
        """Return the writes with history to those without: the median over the rounds."""
        pairs = zip(self.samples[KEPT], self.samples[PLAIN], strict=True)
        return statistics.median(kept.iops / plain.iops for kept, plain in pairs)

    def cpu_ratio(self) -> float:
        """Return the processor time of a write with history to that without, both sites: the median over the rounds."""
        pairs = zip(self.samples[KEPT], self.samples[PLAIN], strict=True)
        return statistics.median(kept.cpu_s_per_million / plain.cpu_s_per_million for kept, plain in pairs)


def slowdown(figures: dict[str, list[float]]) -> float:
    """Return how many times as long it took with history: the median over the rounds."""
    return statistics.median(kept / plain for kept, plain in zip(figures[KEPT], figures[PLAIN], strict=True))


def measure_keeping(folder: Path, console: Console) -> Keeping:
    """Measure pools, then sessions."""
    found = Keeping()
    _pools(folder, found)
    console.print(
        f"{RECORDS:,} records: commit x {slowdown(found.commit_us):.2f} with history, all x {slowdown(found.whole_us):.2f}"
    )
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                isochrone(
                    name,
                    folder,
                    volume_count=1,
                    primary_count=1,
                    replicated=True,
                    volume_size_bytes=VOLUME_BYTES,
                    session_settings=settings,
                )
            )
            for name, settings in ((PLAIN, {}), (KEPT, WINDOW))
        ]
        for server in servers:
            with server.turn():
                fill(server.uris[0], volume_size_bytes=VOLUME_BYTES, folder=folder)
        for number in range(JOB_ROUNDS):
            for server in servers if number % 2 else reversed(servers):
                sample = measure(server, JOB, volume_size_bytes=VOLUME_BYTES, runtime_s=JOB_S, folder=folder)
                found.samples.setdefault(server.name, []).append(sample)
                console.print(
                    f"{number + 1}/{JOB_ROUNDS} {JOB.name:22} {server.name:20} {sample.iops:10,.0f} IOPS"
                )
    return found


def targets(keeping: Keeping) -> list[Target]:
    """Return what is promised of history's cost."""
    commit, writes = slowdown(keeping.commit_us), keeping.writes_ratio()
    return [
        Target(
            "commit by itself, with history",
            f"<= {SLOWDOWN_MAX:g} x without",
            f"{commit:.2f}",
            commit <= SLOWDOWN_MAX,
        ),
        Target(
            f"{JOB.name} IOPS of a session, with history",
            f">= {RATIO_MIN:g} x without",
            f"{writes:.2f}",
            writes >= RATIO_MIN,
        ),
    ]


def table(keeping: Keeping) -> Table:
    """Return what commits and writes cost without and with history."""
    shown = Table(title="what history costs", box=box.SIMPLE, pad_edge=False)
    for heading in ("", PLAIN, KEPT, "ratio"):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for what, figures in (("commit alone", keeping.commit_us), ("stage to sync", keeping.whole_us)):
        plain, kept = (f"{statistics.median(figures[key]):,.0f}" for key in (PLAIN, KEPT))
        shown.add_row(f"{what}, us for {RECORDS:,} records", plain, kept, f"{slowdown(figures):.2f}")
    rows = (
        ("IOPS", "iops", f"{keeping.writes_ratio():.2f}"),
        ("CPU s/M ops, both sites", "cpu_s_per_million", f"{keeping.cpu_ratio():.2f}"),
    )
    for what, figure, ratio in rows:
        middles = (
            f"{statistics.median(getattr(run, figure) for run in keeping.samples[key]):,.1f}"
            for key in (PLAIN, KEPT)
        )
        shown.add_row(f"{JOB.name}, {what}", *middles, ratio)
    return shown


class _Committing:
    """One pool that takes in groups, as a mover's does."""

    def __init__(self, folder: Path, *, keeps_history: bool) -> None:
        disk = OsDisk(folder, create=True)
        Pool.create(disk, size_bytes=POOL_BYTES)
        disk.close()
        write_once(folder / TRACKS_NAME)
        self._pool = Pool.open(OsDisk(folder))
        self._number = self._pool.create_volume("v", TRACKS * TRACK_BYTES).number
        self._keeps_history = keeps_history
        if keeps_history:
            self._pool.history_begin(SOURCE, [self._number])
        self._payload = bytes(RECORDS * TRACK_BYTES)

    def turn(self, number: int, tracks: NDArray[np.int64]) -> tuple[float, float]:
        """Take in groups, `tracks` of shape (groups, records); return us of commits alone, and of everything."""
        commit_ns = 0
        began_ns = time.perf_counter_ns()
        for group, row in enumerate(tracks):
            commit_ns += self._take_in(number * GROUPS + group + 1, row)
        if self._keeps_history and number >= HISTORY_ROUNDS:
            self._pool.history_release(SOURCE, (number - HISTORY_ROUNDS + 1) * GROUPS * RECORDS + RECORDS - 1)
            self._pool.log_write()
        whole_ns = time.perf_counter_ns() - began_ns
        if self._pool.checkpoint_due:
            _carry_out(self._pool.checkpoint())
        return commit_ns / 1e3, whole_ns / 1e3

    def _take_in(self, group: int, tracks: NDArray[np.int64]) -> int:
        records = np.zeros(RECORDS, RECORD_DTYPE)
        first_ns = group * RECORDS
        through_ns = first_ns + RECORDS - 1
        records["time_ns"] = np.arange(first_ns, through_ns + 1)
        records["volume"], records["track"] = self._number, tracks
        records["track_count"], records["kind"] = 1, RecordKind.DATA
        self._pool.stage(SOURCE, SOURCE, through_ns, records, self._payload)
        self._pool.log_write()
        _carry_out(self._pool.sync())
        began_ns = time.perf_counter_ns()
        self._pool.commit(SOURCE, through_ns)
        commit_ns = time.perf_counter_ns() - began_ns
        self._pool.log_write()
        return commit_ns

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


def _pools(folder: Path, found: Keeping) -> None:
    draw = np.random.default_rng(1)
    pools = {key: _Committing(folder / key, keeps_history=key == KEPT) for key in (PLAIN, KEPT)}
    for number in range(ROUNDS):
        tracks = draw.integers(0, TRACKS, (GROUPS, RECORDS))
        for key in sorted(pools, reverse=bool(number % 2)):
            commit_us, whole_us = pools[key].turn(number, tracks)
            if number >= WARMUP:
                found.commit_us.setdefault(key, []).append(commit_us / GROUPS)
                found.whole_us.setdefault(key, []).append(whole_us / GROUPS)
    for key, pool in pools.items():
        pool.close()
        shutil.rmtree(folder / key)


def _carry_out(steps: Steps) -> None:
    for call in steps:
        call()
