"""`python -m soak.run`: real controllers under load, one fault after the other, then the whole truth.

The faults come in rounds: each kind once, in an order drawn from the seed, and some while the resync of the one before is
still under way. The soak ends with the first thing that is not as promised, or when its time is over; then both sites
are compared byte for byte. Exit code 0: everything was as promised.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from isochrone.model.errors import IsochroneError
from isochrone.testing.processes import Settings
from soak.faults import FAULTS
from soak.loads import ChainLoad, DatabaseLoad, FioLoad, Load, VersionLoad
from soak.sites import WEST, Settled, Sites
from soak.stage import Fault, Stage
from support.block_device import block_devices_forbidden
from support.faulty_device import FaultyDevice, faulty_device
from support.logs import unexpected_lines
from support.network import network_forbidden, running_network

PRIMARIES: Final = ("east-1", "east-2", "east-3")
"""The second has a spill; the tracks of the third lie on a device that fails, and only its own application meets that."""
POOL_SIZE_BYTES: Final = 1 << 30
SIDE_FILE_MAX: Final = "8MiB"
"""Small, so that outages of seconds overflow it and marks do the work."""
SPILL_MAX: Final = "128MiB"
OVERLAP_SHARE: Final = 0.4
"""Faults after which the next one does not wait for DUPLEX."""
LINK_RATES_BYTES_PER_S: Final = (None, 6_000_000)
"""Of the link, from round to round."""
ALWAYS_EXPECTED: Final = (
    r"other hosts can reach this address",
    r"SUSPENDED.*the side file reached its limit.*(session|capture) changed",
)
LOG_LINES_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault: what was done, and how the session came back; None when the next fault did not wait for it."""

    fault: str
    detail: str
    fault_s: float
    settled: Settled | None


@dataclass(slots=True)
class Result:
    """What a soak did and saw.

    Attributes:
        faults_found: what was not as promised, in words; empty when all was.
        compared_bytes: found equal at both sites at the end.
    """

    seed: int
    outcomes: list[Outcome] = field(default_factory=list)
    proofs: dict[str, int] = field(default_factory=dict)
    faults_found: list[str] = field(default_factory=list)
    compared_bytes: int = 0
    commit_count: int = 0
    chain_write_count: int = 0
    duration_s: float = 0.0
    lag_ms_max: float = 0.0
    highest: dict[str, str] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """Return it for a file."""
        recoveries = {
            name: [o.settled.seconds for o in self.outcomes if o.fault == name and o.settled]
            for name in dict.fromkeys(outcome.fault for outcome in self.outcomes)
        }
        return {
            "seed": self.seed,
            "duration_s": round(self.duration_s, 1),
            "faults": {
                name: {
                    "count": sum(outcome.fault == name for outcome in self.outcomes),
                    "to_duplex_s_median": round(statistics.median(seconds), 2) if seconds else None,
                    "to_duplex_s_max": round(max(seconds), 2) if seconds else None,
                }
                for name, seconds in recoveries.items()
            },
            "resumed_by_command": sum(
                bool(o.settled and o.settled.resumed_by_command) for o in self.outcomes
            ),
            "suspensions": sum(len(o.settled.suspensions) for o in self.outcomes if o.settled),
            "proofs": self.proofs,
            "compared_bytes": self.compared_bytes,
            "chain_writes": self.chain_write_count,
            "commits": self.commit_count,
            "lag_ms_max_unblocked": round(self.lag_ms_max, 1),
            "highest": self.highest,
            "not_as_promised": self.faults_found,
        }


def forbidden() -> str:
    """Return why a soak cannot be run on this machine, "" when it can."""
    return network_forbidden() or block_devices_forbidden()


def soak(
    seed: int,
    console: Console,
    *,
    seconds: float = 0.0,
    rounds: int | None = None,
    faults: Sequence[Fault] = FAULTS,
    rate_factor: float = 1.0,
) -> Result:
    """Run until `seconds` are over or `rounds` of all `faults` are done, whichever is asked for."""
    result = Result(seed)
    began_s = time.monotonic()
    with _stage(seed, rate_factor) as stage:
        try:
            _play(stage, result, console, began_s + seconds, rounds, faults)
        except (AssertionError, IsochroneError, OSError) as error:
            result.faults_found.append(f"{type(error).__name__}: {error}")
            console.print(result.faults_found[-1], markup=False)
            for name, lines in stage.sites.logs.items():
                console.print(f"--- log of {name}", *lines[-LOG_LINES_SHOWN:], sep="\n", markup=False)
        expected = [
            *ALWAYS_EXPECTED,
            *(p for o in result.outcomes for f in faults if f.name == o.fault for p in f.expects),
        ]
        stage.sites.kill()
        for name, lines in stage.sites.logs.items():
            unexpected = unexpected_lines(lines, expected)
            result.faults_found += [f"log of {name}: {line}" for line in unexpected[:10]]
        _note(stage, result)
    result.duration_s = time.monotonic() - began_s
    return result


def _play(
    stage: Stage,
    result: Result,
    console: Console,
    end_s: float,
    rounds: int | None,
    faults: Sequence[Fault],
) -> None:
    settled = stage.sites.create_session()
    for load in stage.loads:
        load.start()
    console.print(f"seed {result.seed}: DUPLEX after {settled.seconds:.1f} s, with load; the faults begin")
    stage.sites.vitals.look_calm(stage.sites.controllers)
    round_number = 0
    while round_number < rounds if rounds is not None else time.monotonic() < end_s:
        stage.set_link(LINK_RATES_BYTES_PER_S[round_number % len(LINK_RATES_BYTES_PER_S)])
        round_number += 1
        for fault in stage.random.sample(faults, len(faults)):
            if rounds is None and time.monotonic() > end_s:
                break
            if fault.needs_rest:
                stage.sites.settle()
            result.outcomes.append(_do(stage, fault, console))
    stage.sites.settle()
    for load in stage.loads:
        load.stop()
    result.compared_bytes = stage.sites.compare()


def _do(stage: Stage, fault: Fault, console: Console) -> Outcome:
    began_s = time.monotonic()
    console.print(f"{fault.name} ...")
    detail = fault.do(stage)
    fault_s = time.monotonic() - began_s
    settled = None
    if stage.random.random() >= OVERLAP_SHARE:
        settled = stage.sites.settle()
        stage.sites.vitals.look_calm(stage.sites.controllers)
    came_back = f"DUPLEX after {settled.seconds:.1f} s" if settled else "on to the next one"
    if settled and settled.suspensions:
        by = ", resumed by command" if settled.resumed_by_command else ""
        came_back += f" (suspended: {'; '.join(settled.suspensions)}{by})"
    console.print(f"  {fault_s:.1f} s: {detail}; {came_back}", markup=False)
    return Outcome(fault.name, detail, fault_s, settled)


def _note(stage: Stage, result: Result) -> None:
    vitals = stage.sites.vitals
    result.faults_found += vitals.faults()
    result.proofs = dict(stage.proofs)
    result.lag_ms_max = vitals.lag_ms_max
    result.highest = {
        name: f"{usage.memory_bytes >> 20} MiB, {usage.threads} threads, {usage.files} files"
        for name, usage in vitals.highest.items()
    }
    for load in stage.loads:
        if isinstance(load, DatabaseLoad):
            result.commit_count = load.commit_count
        elif isinstance(load, ChainLoad):
            result.chain_write_count = load.acknowledged


def _east_settings(folder: Path, device: FaultyDevice) -> dict[str, Settings]:
    """Small side files, and what sets the primaries apart, see PRIMARIES."""
    small: dict[str, object] = {"side_file_max": SIDE_FILE_MAX}
    spilling = small | {"spill_max": SPILL_MAX, "spill_path": str(folder / "spill")}
    plain, with_spill, frail = PRIMARIES
    return {
        plain: {"capture": small},
        with_spill: {"capture": spilling},
        frail: {"capture": small, "pool": {"tracks_path": str(device.path), "preallocate": False}},
    }


@contextlib.contextmanager
def _stage(seed: int, rate_factor: float) -> Iterator[Stage]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="iso-soak-", dir=base))
    try:
        with (
            running_network(*PRIMARIES, WEST) as network,
            faulty_device(folder / "device", POOL_SIZE_BYTES) as device,
            faulty_device(folder / "frail", POOL_SIZE_BYTES) as frail,
        ):
            sites = Sites(
                folder,
                network,
                PRIMARIES,
                pool_size_bytes=POOL_SIZE_BYTES,
                device=device,
                settings=_east_settings(folder, frail),
            )
            loads: list[Load] = []
            try:
                sites.start()
                loads.append(ChainLoad(sites, rate_factor))
                loads += [
                    FioLoad(sites, owner, f"blocks-{number}", rate_factor)
                    for number, owner in enumerate(sites.east[:2], start=1)
                ]
                loads.append(DatabaseLoad(sites, rate_factor))
                versions = VersionLoad(sites, sites.east[-1], "versions", rate_factor)
                loads.append(versions)
                yield Stage(sites, loads, random.Random(seed), frail, versions)
            finally:
                sites.kill()
                for load in loads:
                    load.primaries_lost(sites.east)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (%(default)s)")
    parser.add_argument("--rounds", type=int, help="instead of a time: rounds of all faults")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and their order (%(default)s)")
    parser.add_argument(
        "--fault", action="append", choices=[f.name for f in FAULTS], help="only this; repeatable"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor of what the applications do (%(default)s)"
    )
    parser.add_argument("--output", type=Path, help="a file for the result, JSON")
    chosen = parser.parse_args()
    if reason := forbidden():
        sys.exit(f"the soak cannot run here: {reason}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # everything is cleaned up
    console = Console(highlight=False, soft_wrap=True)
    faults = [fault for fault in FAULTS if not chosen.fault or fault.name in chosen.fault]
    result = soak(
        chosen.seed,
        console,
        seconds=chosen.minutes * 60,
        rounds=chosen.rounds,
        faults=faults,
        rate_factor=chosen.rate,
    )
    document = json.dumps(result.as_document(), indent=1)
    console.print(document, markup=False)
    if chosen.output:
        chosen.output.write_text(document + "\n")
    console.print("as promised" if not result.faults_found else "NOT AS PROMISED")
    sys.exit(1 if result.faults_found else 0)


if __name__ == "__main__":
    main()
