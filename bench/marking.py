"""What it costs a write that its track is marked, in memory or through a power loss.

Five servers take turns at the same fio job: no session, a suspended session (marks alone), an ACTIVE one, and the last two
again with durable marks.

What is asked for is a few percent, and a shared machine changes its speed by half from one ten seconds to the next. So
there are many short rounds in which servers that are compared follow each other at once, every other round in the opposite
order. A ratio is the median of those within the rounds: what drifts from round to round cancels out, and nearly half of the
rounds may be spoiled. Beside it stand how far the rounds are apart, and the same ratio of CPU time an operation, which a
machine that is busy elsewhere moves less.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.jobs import Job, Sample, fill
from bench.measure import measure
from bench.results import FOREIGN_CPU_SHARE_MAX, Target
from bench.servers import SESSION, Server, isochrone
from isochrone.testing.processes import ProcessError, wait_until

JOB: Final = Job("4k randwrite d32", "randwrite", "4k", 32)
ALONE: Final = "no session"
MARKING: Final = "suspended session"
MARKING_DURABLE: Final = "suspended session, durable marks"
ACTIVE: Final = "session"
ACTIVE_DURABLE: Final = "session, durable marks"
_TARGETS: Final = ((MARKING, ALONE, 0.95), (ACTIVE_DURABLE, ACTIVE, 0.85))
"""(server, server to compare with, least part of its operations)."""
SUSPENDED_S_MAX: Final = 30.0
ROUNDS_PER_REPEAT: Final = 5
RUN_SHARE: Final = 0.5
"""Of the time a run of other parts takes."""
RUN_S_MIN: Final = 1
DISTURBED_SHARE_TOLD: Final = 0.2
"""Of the runs; more of them make all figures of this part doubtful."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How one server did compared with another, over the rounds.

    Attributes:
        median, low, high: of the ratios within the rounds, and their quartiles.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """Return the ratio of the rounds' `ratios`, at least one."""
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0])
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}..{self.high:.2f})"


@dataclass(slots=True)
class Marking:
    """Runs of each server; `unknown` names those that this version does not offer."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def ratio(self, server: str, other: str) -> Ratio | None:
        """Return how many times the operations of `other` the server did; None when one of them was not measured."""
        return self._ratio(server, other, lambda sample: sample.iops)

    def cpu_ratio(self, server: str, other: str) -> Ratio | None:
        """Return how many times the CPU time of `other` an operation cost; None as in `ratio`."""
        return self._ratio(server, other, lambda sample: sample.cpu_s_per_million)

    def _ratio(self, server: str, other: str, figure: Callable[[Sample], float]) -> Ratio | None:
        ours, theirs = self.samples.get(server), self.samples.get(other)
        if not ours or not theirs:
            return None
        return Ratio.of([figure(a) / figure(b) for a, b in zip(ours, theirs, strict=True)])

    @property
    def disturbed_share(self) -> float:
        """Part of the runs during which other programs used the machine."""
        runs = [run for runs in self.samples.values() for run in runs]
        return sum(run.foreign_cpu_share > FOREIGN_CPU_SHARE_MAX for run in runs) / max(1, len(runs))


def measure_marking(
    folder: Path, *, volume_size_bytes: int, runtime_s: float, repeats: int, console: Console
) -> Marking:
    """Run the job on all servers in turn: ROUNDS_PER_REPEAT rounds for each of `repeats`, of short runs."""
    found = Marking()
    with contextlib.ExitStack() as stack:
        servers: list[Server] = []
        for name in (ALONE, MARKING, MARKING_DURABLE, ACTIVE, ACTIVE_DURABLE):
            try:
                servers.append(stack.enter_context(_server(name, folder, volume_size_bytes)))
            except ProcessError as error:
                if "durable" not in name or "refused" not in str(error):
                    raise
                found.unknown.append(name)
                console.print(f"{name}: this version does not offer it")
        rounds = repeats * ROUNDS_PER_REPEAT
        for number in range(rounds):
            figures = []
            for server in reversed(servers) if number % 2 else servers:
                sample = measure(
                    server,
                    JOB,
                    volume_size_bytes=volume_size_bytes,
                    runtime_s=max(RUN_S_MIN, round(runtime_s * RUN_SHARE)),
                    folder=folder,
                )
                found.samples.setdefault(server.name, []).append(sample)
                figures.append(f"{server.name} {sample.iops:,.0f}")
            console.print(f"{number + 1}/{rounds} {JOB.name} IOPS: {'; '.join(figures)}")
    if found.disturbed_share > DISTURBED_SHARE_TOLD:
        console.print(
            f"{found.disturbed_share:.0%} of the runs were disturbed: others used the machine. Measure again."
        )
    return found


def targets(marking: Marking) -> list[Target]:
    """Return what is promised of the cost of marks."""
    judged = []
    for server, other, bound in _TARGETS:
        factor, cpu = marking.ratio(server, other), marking.cpu_ratio(server, other)
        if factor is not None and cpu is not None:
            wanted = f">= {bound:g} x {other}"
            measured = f"{factor}, CPU x {cpu.median:.2f}"
            judged.append(
                Target(f"4k randwrite d32 IOPS, {server}", wanted, measured, factor.median >= bound)
            )
    return judged


def table(marking: Marking) -> Table:
    """Return the medians, and the ratios to a volume without a session."""
    shown = Table(title="what marks cost", box=box.SIMPLE, pad_edge=False)
    shown.add_column("4k randwrite d32", no_wrap=True)
    for heading in ("IOPS", "p99 us", "CPU s/M ops", "IOPS x no session", "CPU x no session"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, runs in marking.samples.items():
        factor, cpu = marking.ratio(name, ALONE), marking.cpu_ratio(name, ALONE)
        shown.add_row(
            name,
            f"{statistics.median(run.iops for run in runs):,.0f}",
            f"{statistics.median(run.latency_us_p99 for run in runs):,.0f}",
            f"{statistics.median(run.cpu_s_per_million for run in runs):.1f}",
            "" if factor is None else str(factor),
            "" if cpu is None else str(cpu),
        )
    return shown


@contextlib.contextmanager
def _server(name: str, folder: Path, volume_size_bytes: int) -> Iterator[Server]:
    settings: dict[str, object] = (
        {"mark_policy": "durable"} if name in (MARKING_DURABLE, ACTIVE_DURABLE) else {}
    )
    with isochrone(
        name,
        folder,
        volume_count=1,
        primary_count=1,
        replicated=name != ALONE,
        volume_size_bytes=volume_size_bytes,
        session_settings=settings,
    ) as server:
        with server.turn():
            fill(server.uris[0], volume_size_bytes=volume_size_bytes, folder=folder)
        if name in (MARKING, MARKING_DURABLE):
            yield _suspended(server)
        else:
            yield server


def _suspended(server: Server) -> Server:
    """Suspend a server's session, and return it as one that has nothing to wait for before its turn."""
    assert server.mover is not None
    with server.turn():
        server.mover.post(f"/v1/sessions/{SESSION}/suspend", {"reason": "measured"})
        primaries: Sequence[object] = server.controllers[:-1]
        wait_until(
            lambda: all(
                c["state"] == "SUSPENDED" for p in server.controllers[:-1] for c in p.get("/v1/captures")
            ),
            f"{len(primaries)} primaries are suspended",
            deadline_s=SUSPENDED_S_MAX,
        )
    return Server(server.name, server.uris, server.pids)
