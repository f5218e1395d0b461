"""Run worlds from seeds: `python -m isochrone.testing.simulate --seed 7 --count 100 --jobs 2` (or `make sim`)."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from isochrone.testing.runner import Outcome, Summary, run_seeds

PROGRESS_INTERVAL_S: Final = 15.0


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(
        prog="simulate", description="Run simulated worlds and check every promise."
    )
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds (default 1)")
    parser.add_argument("--quiet", action="store_true", help="print failures, progress and the summary only")
    parser.add_argument(
        "--keep-going", action="store_true", help="collect failures instead of stopping at the first"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.jobs < 1:
        parser.error("--count and --jobs must be at least 1")
    return options


def tell(outcome: Outcome, *, quiet: bool) -> None:
    """Print what became of one seed: always when a promise broke, with how to repeat it."""
    if outcome.failure:
        print(
            f"seed {outcome.seed}: {outcome.failure}\nrepeat with: make sim SEED={outcome.seed}", flush=True
        )
    elif not quiet:
        print(
            f"seed {outcome.seed}: kept every promise, {outcome.elapsed_s:.2f} s; {outcome.tally}", flush=True
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds asked for; 0 when all promises held."""
    options = parse_options(arguments)
    summary = Summary(options.seed, options.count)
    told_at_s = time.monotonic()
    seeds = range(options.seed, options.seed + options.count)
    for outcome in run_seeds(seeds, options.jobs):
        summary.add(outcome)
        tell(outcome, quiet=options.quiet)
        if outcome.failure and not options.keep_going:
            break
        if time.monotonic() - told_at_s >= PROGRESS_INTERVAL_S:
            told_at_s = time.monotonic()
            print(summary.progress(), file=sys.stderr, flush=True)
    print(summary.finished().as_json() if options.json else summary.finished(), flush=True)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
