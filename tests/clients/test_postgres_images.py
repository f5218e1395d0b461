"""PostgreSQL with tables and log on two controllers: what it was at any past instant starts, while it goes on."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest

from isochrone.testing.processes import wait_until
from support.block_device import require_block_devices
from support.database import Places, check_tables
from support.postgres import Cluster, CommitLog
from support.site import Site, replicate

pytestmark = pytest.mark.postgres

IMAGES = 10
WRITERS = 2
VOLUME_BYTES = 192 << 20
PACE_S = 0.01
"""Between two commits of a writer."""
BENCH_RATE_PER_S = 60
COMMITS_FIRST = 200
LOAD_S_MAX = 60.0


@contextlib.contextmanager
def load(cluster: Cluster, writers: list[CommitLog]) -> Iterator[None]:
    """Run the database with pgbench and the writers for the length of the block, then SIGKILL it."""
    cluster.start()
    bench = cluster.start_bench(BENCH_RATE_PER_S)
    try:
        for writer in writers:
            writer.start()
        yield
        assert bench.poll() is None, "pgbench ended by itself"
    finally:
        cluster.kill()
        bench.kill()
        bench.wait()
        for writer in writers:
            writer.finish()


def commits(writers: list[CommitLog]) -> int:
    return sum(len(writer.acknowledged) for writer in writers)


def check_none_later(writers: list[CommitLog], highest: dict[int, int], at_ns: int) -> None:
    """Number n is only written when n - 1 is known to be committed: so that was known at `at_ns`."""
    for writer in writers:
        known = dict(writer.acknowledged)
        before = highest[writer.writer] - 1
        assert before <= 0 or known[before] <= at_ns, f"writer {writer.writer} has commits of later"


@pytest.mark.timeout(600)
def test_images_of_ten_random_past_instants_start_and_agree_while_the_database_goes_on(site: Site) -> None:
    require_block_devices()
    draw = random.Random(11)
    first, second = site.controllers("east-1", "east-2")
    west = site.controller("west", pool_size="4GiB", settings={"pool": {"preallocate": False}})
    first.create_volume("data", VOLUME_BYTES)
    second.create_volume("wal", VOLUME_BYTES)
    places = Places(site.folder)
    host_time = site.host_time()
    writers = [
        CommitLog(places.cluster, number, host_time.now_ns, pause_s=PACE_S) for number in range(WRITERS)
    ]
    places.create_database(first, second)
    replica = replicate("pay", [(first, "data"), (second, "wal")], west, history_s_max=3600)
    wait_until(
        lambda: len(west.get("/v1/sessions/pay/history")["volumes"]) == 2,
        "the history has begun",
        deadline_s=LOAD_S_MAX,
    )
    seen = set()
    with places.mounts(first, second), load(places.cluster, writers):
        wait_until(lambda: commits(writers) > 0, "the first commit", deadline_s=LOAD_S_MAX)
        begin_ns = host_time.now_ns()
        wait_until(lambda: commits(writers) >= COMMITS_FIRST, "commits", deadline_s=LOAD_S_MAX)
        for number in range(IMAGES):
            before = commits(writers)
            at_ns = draw.randint(begin_ns, host_time.now_ns())
            west.post("/v1/sessions/pay/images", {"image": f"i{number}", "at_ns": at_ns})
            with places.image(west, f"i{number}") as cluster, cluster.running():
                highest = check_tables(cluster, writers, at_ns)
            check_none_later(writers, highest, at_ns)
            west.delete(f"/v1/sessions/pay/images/i{number}")
            assert commits(writers) > before, "the database stood still"
            seen.add(tuple(highest.values()))
        assert replica.report()["state"] == "ACTIVE"
    assert len(seen) > IMAGES // 2
