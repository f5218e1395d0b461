"""What it costs a write that its track is marked, in memory or through a power loss.

Five servers take turns at the same fio job: no session, a suspended session (marks alone), an ACTIVE one, and the last two
again with durable marks.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.jobs import Job, Sample, fill
from bench.measure import measure
from bench.results import Target
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


@dataclass(slots=True)
class Marking:
    """Runs of each server; `unknown` names those that this version does not offer."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def ratio(self, server: str, other: str) -> float | None:
        """Return how many times the operations of `other` the server did: the median over the rounds."""
        ours, theirs = self.samples.get(server), self.samples.get(other)
        if not ours or not theirs:
            return None
        return statistics.median(a.iops / b.iops for a, b in zip(ours, theirs, strict=True))


def measure_marking(
    folder: Path, *, volume_size_bytes: int, runtime_s: float, repeats: int, console: Console
) -> Marking:
    """Run the job on all servers in turn, `repeats` times."""
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
        for number in range(repeats):
            for server in servers:
                sample = measure(
                    server, JOB, volume_size_bytes=volume_size_bytes, runtime_s=runtime_s, folder=folder
                )
                found.samples.setdefault(server.name, []).append(sample)
                console.print(
                    f"{number + 1}/{repeats} {JOB.name:22} {server.name:34} {sample.iops:10,.0f} IOPS"
                )
    return found


def targets(marking: Marking) -> list[Target]:
    """Return what is promised of the cost of marks."""
    judged = []
    for server, other, bound in _TARGETS:
        factor = marking.ratio(server, other)
        if factor is not None:
            wanted = f">= {bound:g} x {other}"
            judged.append(
                Target(f"4k randwrite d32 IOPS, {server}", wanted, f"{factor:.2f}", factor >= bound)
            )
    return judged


def table(marking: Marking) -> Table:
    """Return the medians, and the ratio to a volume without a session."""
    shown = Table(title="what marks cost", box=box.SIMPLE, pad_edge=False)
    shown.add_column("4k randwrite d32", no_wrap=True)
    for heading in ("IOPS", "p99 us", "CPU s/M ops", "x no session"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, runs in marking.samples.items():
        factor = marking.ratio(name, ALONE)
        shown.add_row(
            name,
            f"{statistics.median(run.iops for run in runs):,.0f}",
            f"{statistics.median(run.latency_us_p99 for run in runs):,.0f}",
            f"{statistics.median(run.cpu_s_per_million for run in runs):.1f}",
            "" if factor is None else f"{factor:.2f}",
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
