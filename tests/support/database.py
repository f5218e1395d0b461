"""A database on replicated volumes: where it is mounted at every site, and what must hold of it after a loss."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from isochrone.testing.processes import ControllerProcess
from support.block_device import block_device, mounted
from support.postgres import Cluster, CommitLog
from support.programs import run

VOLUMES: Final = ("data", "wal")
"""Of the tables, and of the write-ahead log."""
_TABLES: Final = """
    CREATE EXTENSION amcheck;
    CREATE TABLE commits (writer int, number int, PRIMARY KEY (writer, number));
"""


class Places:
    """Where the volumes of one site are mounted: the same paths at every site, as a database expects.

    Args:
        folder: below it everything is mounted; users other than root must be able to pass.
    """

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder / "pg"
        for name in (*VOLUMES, "run"):
            (self.folder / name).mkdir(parents=True)
        self.cluster = Cluster(self.folder / "data", self.folder / "wal", self.folder / "run" / "log")
        self._mount_numbers = itertools.count(1)

    @contextlib.contextmanager
    def devices(self, data: ControllerProcess, wal: ControllerProcess) -> Iterator[tuple[Path, Path]]:
        """The two volumes as block devices."""
        folder = self.folder / f"fuse{next(self._mount_numbers)}"
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

    @contextlib.contextmanager
    def image(self, secondary: ControllerProcess, image: str) -> Iterator[Cluster]:
        """The cluster in a session's test image, on file systems of its own; not started."""
        folder = self.folder / f"image-{image}"
        cluster = Cluster(folder / "data", folder / "wal", folder / "run" / "log")
        (folder / "run").mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            for volume in VOLUMES:
                uri = secondary.uri(f"{volume}~{image}")
                device = stack.enter_context(block_device(uri, folder / f"fuse-{volume}"))
                stack.enter_context(mounted(device, folder / volume))
            cluster.move_in()
            yield cluster

    def create_database(self, data: ControllerProcess, wal: ControllerProcess) -> None:
        """File systems on the two empty volumes, a cluster on them, and its tables."""
        with self.devices(data, wal) as devices:
            for device in devices:
                run("mkfs.ext4", "-q", device)
        with self.mounts(data, wal):
            self.cluster.create()
            with self.cluster.running():
                self.cluster.fill_bench()
                self.cluster.query(_TABLES)

    def check_database(
        self,
        data: ControllerProcess,
        wal: ControllerProcess,
        writers: Sequence[CommitLog],
        through_ns: int,
    ) -> dict[int, int]:
        """Prove that the database on these volumes is sound and holds what was acknowledged through a time.

        Returns:
            For each writer the highest number in its table.
        """
        with self.devices(data, wal) as devices:
            with mounted(devices[0], self.folder / "data"), mounted(devices[1], self.folder / "wal"):
                with self.cluster.running():
                    highest = check_tables(self.cluster, writers, through_ns)
                    self.cluster.amcheck()
                self.cluster.check_checksums()
            for device in devices:
                run("e2fsck", "-f", "-n", device)
        return highest


def check_tables(cluster: Cluster, writers: Sequence[CommitLog], through_ns: int) -> dict[int, int]:
    """Hold the tables of a running cluster against what its writers were told; return each one's highest number."""
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
