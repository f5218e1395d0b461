"""PostgreSQL with its tables at one controller and its log at another survives the loss of both.

Each round runs the database on the primary site, under load, while a session is created; waits for a random
number of acknowledged commits; kills the whole site; recovers the secondary and looks at the database there. The
next round goes on with what the primaries hold after their crash, so that their own promise is tested too.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from isochrone.testing.processes import ControllerProcess, wait_until
from support.block_device import block_device, mounted, require_block_devices
from support.postgres import Cluster, CommitLog
from support.programs import run
from support.site import Replica, Site, replicate

pytestmark = pytest.mark.postgres

ROUNDS = 5
WRITERS = 2
VOLUME_SIZE_BYTES = 192 << 20
COMMITS_MAX = 300
LOAD_S_MAX = 60.0
FENCE_S_MAX = 30.0
TABLES = """
    CREATE EXTENSION amcheck;
    CREATE TABLE commits (writer int, number int, PRIMARY KEY (writer, number));
"""


class Places:
    """Where the volumes of one site are mounted: the same paths at every site, as a database expects."""

    def __init__(self, site: Site) -> None:
        site.folder.chmod(0o755)
        self.folder = site.folder / "pg"
        for name in ("data", "wal", "run"):
            (self.folder / name).mkdir(parents=True)
        self.cluster = Cluster(self.folder / "data", self.folder / "wal", self.folder / "run" / "log")
        self._mount_count = 0

    @contextlib.contextmanager
    def devices(self, data: ControllerProcess, wal: ControllerProcess) -> Iterator[tuple[Path, Path]]:
        """The two volumes as block devices."""
        self._mount_count += 1
        folder = self.folder / f"fuse{self._mount_count}"
        with (
            block_device(data.uri("data"), folder / "data") as first,
            block_device(wal.uri("wal"), folder / "wal") as second,
        ):
            yield first, second

    @contextlib.contextmanager
    def mounts(self, data: ControllerProcess, wal: ControllerProcess) -> Iterator[None]:
        """The two volumes mounted."""
        with (
            self.devices(data, wal) as (first, second),
            mounted(first, self.folder / "data"),
            mounted(second, self.folder / "wal"),
        ):
            yield


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.timeout(900)
def test_every_commit_acknowledged_up_to_the_recovered_time_survives_the_loss_of_the_site(
    site: Site, seed: int
) -> None:
    require_block_devices()
    site.expect_log("link")  # the mover says that its primaries are gone
    moments = random.Random(seed)
    first, second, west = site.controllers("east-1", "east-2", "west")
    east = (first, second)
    first.create_volume("data", VOLUME_SIZE_BYTES)
    second.create_volume("wal", VOLUME_SIZE_BYTES)
    places = Places(site)
    writers = [CommitLog(places.cluster, number, site.host_time().now_ns) for number in range(WRITERS)]
    _create_database(places, east)
    for number in range(ROUNDS):
        session = f"pay-{number}"
        replica = _lose_site(places, east, west, writers, session, moments.randint(0, COMMITS_MAX))
        recovered_ns = replica.recover()
        _check_database(places, (west, west), writers, recovered_ns)
        for controller in east:
            controller.launch()
        for controller in east:
            controller.wait_ready()
        _end_session(east, west, session)
        highest = _check_database(places, east, writers, through_ns=1 << 62)
        for writer in writers:
            writer.next_number = highest[writer.writer] + 1


def _create_database(places: Places, east: tuple[ControllerProcess, ControllerProcess]) -> None:
    with places.devices(*east) as devices:
        for device in devices:
            run("mkfs.ext4", "-q", device)
    with places.mounts(*east):
        places.cluster.create()
        with places.cluster.running():
            places.cluster.fill_bench()
            places.cluster.query(TABLES)


def _lose_site(
    places: Places,
    east: tuple[ControllerProcess, ControllerProcess],
    west: ControllerProcess,
    writers: list[CommitLog],
    session: str,
    commit_count: int,
) -> Replica:
    """Run the database with a session, and SIGKILL the site that many acknowledged commits after DUPLEX."""
    with places.mounts(*east):
        places.cluster.start()
        bench = places.cluster.start_bench()
        try:
            for writer in writers:
                writer.start()
            replica = replicate(session, [(east[0], "data"), (east[1], "wal")], west)
            goal = _commits(writers) + commit_count
            wait_until(lambda: _commits(writers) >= goal, f"{goal} commits", deadline_s=LOAD_S_MAX)
            replica.lose_primaries()
        finally:
            places.cluster.kill()
            bench.kill()
            bench.wait()
            for writer in writers:
                writer.finish()
    return replica


def _end_session(
    east: tuple[ControllerProcess, ControllerProcess], west: ControllerProcess, session: str
) -> None:
    """See that the session has ended at the controllers that came back too, and delete it everywhere."""
    wait_until(lambda: _capture_states(east) == ["ENDED", "ENDED"], "east is fenced", deadline_s=FENCE_S_MAX)
    for controller in (west, *east):
        controller.delete(f"/v1/sessions/{session}")
    for volume in ("data", "wal"):
        west.delete(f"/v1/volumes/{volume}")


def _capture_states(controllers: tuple[ControllerProcess, ControllerProcess]) -> list[str]:
    return [capture["state"] for controller in controllers for capture in controller.get("/v1/captures")]


def _check_database(
    places: Places,
    controllers: tuple[ControllerProcess, ControllerProcess],
    writers: list[CommitLog],
    through_ns: int,
) -> dict[int, int]:
    """Prove that the database on these volumes is sound and holds what was acknowledged through a time.

    Returns:
        For each writer the highest number in its table.
    """
    with places.devices(*controllers) as devices:
        with mounted(devices[0], places.folder / "data"), mounted(devices[1], places.folder / "wal"):
            with places.cluster.running():
                highest = _check_tables(places.cluster, writers, through_ns)
                places.cluster.amcheck()
            places.cluster.check_checksums()
        for device in devices:
            run("e2fsck", "-f", "-n", device)
    return highest


def _check_tables(cluster: Cluster, writers: list[CommitLog], through_ns: int) -> dict[int, int]:
    highest = {}
    for writer in writers:
        row = cluster.query(
            f"SELECT count(*), coalesce(max(number), 0) FROM commits WHERE writer = {writer.writer}"
        )
        count, newest = (int(value) for value in row.split("|"))
        assert count == newest, (
            f"writer {writer.writer}: {count} commits up to number {newest}: some are missing"
        )
        assert newest >= writer.acknowledged_through(through_ns), f"writer {writer.writer} lost commits"
        assert newest <= writer.next_number, f"writer {writer.writer}: number {newest} was never written"
        highest[writer.writer] = newest
    sums = cluster.query(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "
        "(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
    ).split("|")
    assert len(set(sums)) == 1, f"sums over accounts, tellers, branches and history differ: {sums}"
    return highest


def _commits(writers: list[CommitLog]) -> int:
    return sum(len(writer.acknowledged) for writer in writers)
