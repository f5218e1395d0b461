"""Runs the worlds of many seeds, in several processes, and adds up what happened in them."""

from __future__ import annotations

import json
import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Final

from isochrone.testing.endings import run_world
from isochrone.testing.judge import Tally
from isochrone.testing.oracle import OracleError
from isochrone.testing.world import World

SEEDS_PER_CALL: Final = 4
"""Seeds that a process takes at a time: what goes between processes costs little then, and a failure is soon heard of."""

SEEDS_PER_PROCESS_MAX: Final = 2000
"""A process is replaced after so many calls, so that a run of days needs no more memory than one of minutes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed.

    Attributes:
        failure: the promise that broke and the evidence, or a traceback; "" when all held.
    """

    seed: int
    failure: str
    elapsed_s: float
    tally: Tally


def run_seed(seed: int) -> Outcome:
    """Live through one world."""
    began_s = time.perf_counter()
    world = World(seed)
    failure = ""
    try:
        run_world(world)
    except OracleError as error:
        failure = str(error)
    except Exception:
        failure = f"ended in an error\n{traceback.format_exc()}"
    return Outcome(seed, failure, time.perf_counter() - began_s, world.tally)


def run_seeds(seeds: range, jobs: int = 1) -> Iterator[Outcome]:
    """Yield the outcome of every seed, with several `jobs` in any order. Whoever stops listening stops the run."""
    if jobs == 1 or len(seeds) == 1:
        yield from map(run_seed, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, len(seeds)), maxtasksperchild=SEEDS_PER_PROCESS_MAX) as processes:
        yield from processes.imap_unordered(run_seed, seeds, chunksize=SEEDS_PER_CALL)


@dataclass(slots=True)
class Summary:
    """What happened in a run of many seeds.

    Attributes:
        events: sums of the worlds' tallies, by name.
        endings: worlds by the way they ended.
    """

    first_seed: int
    seed_count: int
    run_count: int = 0
    elapsed_s: float = 0.0
    seeds_per_s: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    _began_s: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one seed in."""
        self.run_count += 1
        if outcome.failure:
            self.failures[outcome.seed] = outcome.failure
        self.endings[outcome.tally.ending or "broken off"] += 1
        for one in fields(outcome.tally):
            value = getattr(outcome.tally, one.name)
            if isinstance(value, int):
                self.events[one.name] += value

    def finished(self) -> Summary:
        """Take the time; return itself."""
        self.elapsed_s = round(time.monotonic() - self._began_s, 3)
        self.seeds_per_s = round(self.run_count / max(self.elapsed_s, 1e-9), 2)
        return self

    def as_json(self) -> str:
        """Return all of it as one JSON object."""
        return json.dumps(
            {one.name: getattr(self, one.name) for one in fields(self) if not one.name.startswith("_")}
        )

    def progress(self) -> str:
        """Return how far the run is, how fast, and how long it will take."""
        self.finished()
        left_s = (self.seed_count - self.run_count) / max(self.seeds_per_s, 1e-9)
        return (
            f"{self.run_count:,} of {self.seed_count:,} seeds, {len(self.failures)} failed, "
            f"{self.seeds_per_s:.1f} seeds/s, about {left_s / 60:.0f} min to go"
        )

    def __str__(self) -> str:
        lines = [f"{self.run_count - len(self.failures)} passed, {len(self.failures)} failed"]
        if self.failures:
            lines.append(f"failed: {sorted(self.failures)}")
        for title, counts in (("endings", self.endings), ("in all", self.events)):
            lines.append(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
        lines.append(f"{self.elapsed_s:.1f} s, {self.seeds_per_s:.1f} seeds/s")
        return "\n".join(lines)
