"""PostgreSQL with its tables at one controller and its log at another survives the loss of both.

Each round runs the database on the primary site, under load, while a session is created; waits for a random
number of acknowledged commits; kills the whole site; recovers the secondary and looks at the database there. The
next round goes on with what the primaries hold after their crash, so that their own promise is tested too.
"""

from __future__ import annotations

import random

import pytest

from isochrone.testing.processes import ControllerProcess, wait_until
from support.block_device import require_block_devices
from support.database import VOLUMES, Places
from support.postgres import CommitLog
from support.site import Replica, Site, replicate

pytestmark = pytest.mark.postgres

ROUNDS = 5
WRITERS = 2
VOLUME_SIZE_BYTES = 192 << 20
COMMITS_MAX = 300
LOAD_S_MAX = 60.0
FENCE_S_MAX = 30.0


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
    places = Places(site.folder)
    writers = [CommitLog(places.cluster, number, site.host_time().now_ns) for number in range(WRITERS)]
    places.create_database(*east)
    for number in range(ROUNDS):
        session = f"pay-{number}"
        replica = _lose_site(places, east, west, writers, session, moments.randint(0, COMMITS_MAX))
        recovered_ns = replica.recover()
        places.check_database(west, west, writers, recovered_ns)
        for controller in east:
            controller.launch()
        for controller in east:
            controller.wait_ready()
        _end_session(east, west, session)
        highest = places.check_database(*east, writers, through_ns=1 << 62)
        for writer in writers:
            writer.next_number = highest[writer.writer] + 1


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
    for volume in VOLUMES:
        west.delete(f"/v1/volumes/{volume}")


def _capture_states(controllers: tuple[ControllerProcess, ControllerProcess]) -> list[str]:
    return [capture["state"] for controller in controllers for capture in controller.get("/v1/captures")]


def _commits(writers: list[CommitLog]) -> int:
    return sum(len(writer.acknowledged) for writer in writers)
