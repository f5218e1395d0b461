"""Runs of many seeds: every seed once, failures named with how to repeat them, sums for the summary."""

from __future__ import annotations

import json

import pytest

from isochrone.testing import runner, simulate
from isochrone.testing.oracle import OracleError
from isochrone.testing.world import World


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Worlds that do nothing; seed 3 breaks a promise and seed 5 ends in an error. Returns the seeds run."""
    seeds: list[int] = []

    def run_world(world: World) -> None:
        seeds.append(world.seed)
        world.tally.crashes, world.tally.ending = 2, "end_in_calm"
        if world.seed == 3:
            raise OracleError("a promise is broken:", ["evidence"])
        if world.seed == 5:
            raise ZeroDivisionError("a bug")

    monkeypatch.setattr(runner, "run_world", run_world)
    return seeds


def test_a_run_stops_at_the_first_failure_and_says_how_to_repeat_it(
    ran: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate.main(["--seed", "1", "--count", "9", "--quiet"]) == 1
    assert ran == [1, 2, 3]
    out = capsys.readouterr().out
    assert "seed 3: a promise is broken:\n  evidence\nrepeat with: make sim SEED=3" in out
    assert "2 passed, 1 failed\nfailed: [3]" in out


def test_a_run_that_keeps_going_collects_failures_and_sums(
    ran: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate.main(["--seed", "1", "--count", "9", "--json", "--keep-going", "--quiet"]) == 1
    assert ran == list(range(1, 10))
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["run_count"], list(summary["failures"])) == (9, ["3", "5"])
    assert "ZeroDivisionError" in summary["failures"]["5"]
    assert (summary["events"]["crashes"], summary["endings"]) == (18, {"end_in_calm": 9})


def test_progress_tells_speed_and_what_is_left(ran: list[int]) -> None:
    summary = runner.Summary(0, 200)
    for outcome in runner.run_seeds(range(10, 20)):
        summary.add(outcome)
    assert "10 of 200 seeds, 0 failed" in summary.progress()
    assert "to go" in summary.progress()


def test_several_processes_run_every_seed_once() -> None:
    outcomes = list(runner.run_seeds(range(40, 46), jobs=2))
    assert sorted(outcome.seed for outcome in outcomes) == list(range(40, 46))
    assert not any(outcome.failure for outcome in outcomes)
