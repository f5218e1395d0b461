"""Run worlds from seeds: `python -m isochrone.testing.simulate --seed 7 --count 100` (or `make sim`)."""

from __future__ import annotations

import argparse
import time
import traceback

from isochrone.testing.endings import run_world
from isochrone.testing.oracle import OracleError
from isochrone.testing.world import World


def run_seed(seed: int, *, verbose: bool) -> bool:
    """Run one world; say what was wrong, and how to repeat it, when a promise breaks. Returns whether all held."""
    began = time.perf_counter()
    world = World(seed)
    try:
        run_world(world)
    except OracleError as error:
        print(f"seed {seed}: {error}\nrepeat with: make sim SEED={seed}", flush=True)
        return False
    except Exception:
        traceback.print_exc()
        print(f"seed {seed} ended in an error\nrepeat with: make sim SEED={seed}", flush=True)
        return False
    if verbose:
        print(
            f"seed {seed}: kept every promise, {time.perf_counter() - began:.2f} s; {world.tally}", flush=True
        )
    return True


def main() -> int:
    """Run the seeds asked for; 0 when all promises held."""
    parser = argparse.ArgumentParser(
        prog="simulate", description="Run simulated worlds and check every promise."
    )
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there (default 1)")
    parser.add_argument("--quiet", action="store_true", help="print failures and the summary only")
    options = parser.parse_args()
    began = time.perf_counter()
    broken = [
        seed
        for seed in range(options.seed, options.seed + options.count)
        if not run_seed(seed, verbose=not options.quiet)
    ]
    print(f"{options.count - len(broken)} passed, {len(broken)} failed", flush=True)
    if broken:
        print(f"failed: {broken}")
    print(f"{time.perf_counter() - began:.1f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
