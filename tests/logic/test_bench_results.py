"""What the benchmark makes of its samples."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.changes import Extent
from bench.jobs import Sample, parse_fio
from bench.marking import ALONE, MARKING, Marking
from bench.marking import targets as marking_targets
from bench.results import (
    BASELINE,
    REPLICATED,
    RIVAL,
    Lag,
    disturbed_count,
    jobs_document,
    medians,
    percentile,
    ratio,
    targets,
    write_json,
)
from bench.resync import Foreground, Resyncs
from bench.resync import table as resync_table
from bench.resync import targets as resync_targets


def sample(iops: float, p50: float = 100.0, foreign: float = 0.0) -> Sample:
    return Sample(iops, iops * 4096, p50, p50 * 3, 20.0, foreign)


def side(total_ios: int, iops: float) -> dict[str, object]:
    percentiles = {"50.000000": 20_000, "99.000000": 90_000}
    return {
        "total_ios": total_ios,
        "iops": iops,
        "bw_bytes": iops * 4096,
        "clat_ns": {"percentile": percentiles},
    }


def test_a_mixed_job_counts_reads_and_writes() -> None:
    result = parse_fio({"jobs": [{"error": 0, "read": side(70, 700.0), "write": side(30, 300.0)}]})
    assert (result.iops, result.operation_count) == (1000.0, 100)
    assert (result.latency_us_p50, result.latency_us_p99) == (20.0, 90.0)


@pytest.mark.parametrize(("error", "count"), [(5, 10), (0, 0)])
def test_a_run_with_errors_or_without_operations_is_no_result(error: int, count: int) -> None:
    with pytest.raises(RuntimeError):
        parse_fio({"jobs": [{"error": error, "read": side(0, 0.0), "write": side(count, 1.0)}]})


def test_the_median_is_of_each_figure_by_itself() -> None:
    runs = [sample(10, p50=3), sample(30, p50=1), sample(20, p50=2)]
    assert medians({("job", "server"): runs})["job", "server"] == sample(20, p50=2)


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)


@pytest.mark.parametrize(("ours", "met"), [(59_999, False), (60_000, True)])
def test_a_target_is_met_from_its_bound_on(ours: float, met: bool) -> None:
    job = "4k randwrite d32"
    runs = {
        (job, BASELINE): [sample(100_000)],
        (job, RIVAL): [sample(60_000)],
        (job, REPLICATED): [sample(ours)],
    }
    judged = {target.wanted: target.met for target in targets(runs, None)}
    assert judged == {f">= 0.6 x {BASELINE}": met, f">= 1 x {RIVAL}": met}


def test_a_latency_target_is_met_up_to_its_bound() -> None:
    job = "4k randwrite d1"
    runs = {(job, BASELINE): [sample(1, p50=100)], (job, REPLICATED): [sample(1, p50=131)]}
    assert [target.met for target in targets(runs, None)] == [False]


def test_a_ratio_compares_the_runs_of_one_round() -> None:
    runs = {
        ("job", "ours"): [sample(50), sample(10), sample(5)],
        ("job", "theirs"): [sample(100), sample(20), sample(50)],
    }
    assert ratio(runs, "job", "ours", "theirs") == 0.5
    assert ratio(runs, "job", "ours", "absent") is None


def test_lag_and_memory_are_held_against_their_bounds() -> None:
    lag = Lag(1000, 49.0, 250.0, 100, {"west": 90, "east": 110}, {"west": 100, "east": 100})
    assert [target.met for target in targets({}, lag)] == [True, False, True, False]


def test_runs_that_others_disturbed_are_counted() -> None:
    runs = {("job", "server"): [sample(1), sample(1, foreign=0.11), sample(1, foreign=0.09)]}
    assert disturbed_count(runs) == 1


def test_what_was_not_measured_has_no_verdict() -> None:
    assert targets({("4k randwrite d32", REPLICATED): [sample(1)]}, None) == []


def test_the_result_file_holds_every_run(tmp_path: Path) -> None:
    runs = {("job", "server"): [sample(1), sample(3), sample(2)]}
    path = tmp_path / "latest.json"
    write_json(path, machine={"cpu_count": 2}, parts={"jobs": (jobs_document(runs, None), [])})
    (job,) = json.loads(path.read_text())["jobs"]["jobs"]
    assert [run["iops"] for run in job["runs"]] == [1, 3, 2]
    assert job["median"]["iops"] == 2


def test_a_part_that_was_not_measured_again_stays_in_the_result_file(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    write_json(path, machine={"cpu_count": 2}, parts={"marking": ({"samples": 1}, [])})
    write_json(path, machine={"cpu_count": 4}, parts={"resync": ({"seconds": 2}, [])})
    document = json.loads(path.read_text())
    assert (document["marking"]["samples"], document["marking"]["machine"]["cpu_count"]) == (1, 2)
    assert (document["resync"]["seconds"], document["resync"]["machine"]["cpu_count"]) == (2, 4)


def test_a_rival_that_was_given_up_is_told_by_the_least_it_took() -> None:
    resyncs = Resyncs(Extent(100 << 30, 1 << 30), 240.0, {"scattered": {"isochrone": 20.0, "rsync": None}})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(resync_table(resyncs))
    assert "> 12.0" in console.export_text()


@pytest.mark.parametrize(("sent", "beside_us", "met"), [(1.05, 200.0, True), (1.06, 201.0, False)])
def test_targets_of_a_resync_are_met_up_to_their_bounds(sent: float, beside_us: float, met: bool) -> None:
    front = Foreground(4000, 100.0, beside_us, 10.0, 1.0)
    resyncs = Resyncs(Extent(1 << 30, 1 << 20), 1.0, sent_ratio={"scattered": sent}, foreground=front)
    assert [target.met for target in resync_targets(resyncs)] == [met, met]


def test_the_cost_of_marks_is_judged_round_by_round() -> None:
    marking = Marking({ALONE: [sample(100), sample(50)], MARKING: [sample(96), sample(48)]})
    (target,) = marking_targets(marking)
    assert target.met
    assert target.measured.startswith("0.96 (0.96..0.96)")


def test_one_spoiled_round_does_not_decide_about_the_cost_of_marks_and_shows_in_the_spread() -> None:
    alone = [sample(100.0 * speed) for speed in (1, 2, 1, 3, 2)]
    marked = [sample(97.0 * speed) for speed in (1, 2, 1, 3, 2)]
    marking = Marking({ALONE: alone, MARKING: [sample(30.0), *marked[1:]]})
    found = marking.ratio(MARKING, ALONE)
    assert found is not None
    assert found.median == pytest.approx(0.97)
    marking.samples[MARKING][1] = sample(20.0)
    spread = marking.ratio(MARKING, ALONE)
    assert spread is not None
    assert spread.low < 0.5
    assert spread.high == pytest.approx(0.97)


def test_cpu_time_an_operation_is_compared_beside_operations() -> None:
    cheap, dear = sample(100.0), replace(sample(100.0), cpu_s_per_million=30.0)
    (target,) = marking_targets(Marking({ALONE: [cheap], MARKING: [dear]}))
    assert target.measured.endswith("CPU x 1.50")


def test_runs_that_were_disturbed_are_counted() -> None:
    marking = Marking({ALONE: [sample(1.0, foreign=0.5), sample(1.0)]})
    assert marking.disturbed_share == 0.5
