"""Applications of the soak: each knows what it was told, and can prove an image.

Every load lives on while links and the second site fail. When a primary dies, those that had it open are brought down
and begin again when it is back, as its applications would.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from array import array
from bisect import bisect_right
from typing import Final, Protocol

from isochrone.demo.chain import ChainLayout, check_chain, make_block
from isochrone.model.errors import IsochroneError
from isochrone.nbd.client import NbdClient, connect
from isochrone.testing.processes import ControllerProcess
from soak.sites import Place, Sites
from soak.versions import BLOCK_BYTES, check_versions
from soak.versions import Places as VersionPlaces
from soak.versions import make_block as make_version
from support.database import VOLUMES, Places, check_tables
from support.postgres import CommitLog
from support.programs import run

MIB: Final = 1 << 20
CHAIN_LAYOUT: Final = ChainLayout(volume_count=2, slot_count=1000)
CHAIN_VOLUMES: Final = ("orders", "ledger")
FIO_SIZE_BYTES: Final = 32 * MIB
DATABASE_SIZE_BYTES: Final = 160 * MIB
VERSIONS_SIZE_BYTES: Final = 16 * MIB
RECONNECT_S: Final = 0.2
STOP_S_MAX: Final = 60.0
COMMIT_WRITERS: Final = 2
COMMIT_PAUSE_S: Final = 0.02
BENCH_PER_S: Final = 20
CHAIN_WRITES_PER_S: Final = 150
FIO_WRITES_PER_S: Final = 150
VERSIONS_PER_S: Final = 100
"""Of each volume. Rates are multiplied by the factor a soak is given."""


class Load(Protocol):
    """One application."""

    def start(self) -> None:
        """Begin, or go on after `stop` or `primaries_lost`. What the primaries hold is checked where it can be."""

    def stop(self) -> None:
        """End cleanly: everything it wrote is acknowledged."""

    def primaries_lost(self, lost: tuple[ControllerProcess, ...]) -> None:
        """Primaries were killed: give up what cannot go on."""

    def check(self, controller: ControllerProcess, recovered_ns: int) -> str:
        """Prove the image that `controller` serves, of a time; return what was proved. Raises AssertionError."""


class CountingWriter:
    """A thread that issues numbered writes one after the other and keeps the time at which each was acknowledged."""

    def __init__(self, sites: Sites, name: str) -> None:
        self._sites = sites
        self._name = name
        self.issued = 0
        self._acknowledged_ns = array("q")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def acknowledged(self) -> int:
        """The newest write that was acknowledged."""
        return len(self._acknowledged_ns)

    def start(self) -> None:
        """Begin, or go on."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after an acknowledged write."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join(STOP_S_MAX)
            assert not self._thread.is_alive(), f"the writer of {self._name} hangs"
            self._thread = None

    def primaries_lost(self, lost: tuple[ControllerProcess, ...]) -> None:  # it waits for them
        """Go on trying."""

    def check_newest(self, newest: int, recovered_ns: int) -> None:
        """An image recovered to a time holds all that was acknowledged by then, and nothing that was never issued."""
        assert newest <= self.issued, f"{self._name}: write {newest} was never issued"
        known = bisect_right(self._acknowledged_ns, recovered_ns)
        assert newest >= known, (
            f"{self._name}: write {known} was acknowledged by the recovered time, the image ends with {newest}"
        )

    def _run(self) -> None:
        """Write until told to stop and nothing is unacknowledged."""
        raise NotImplementedError


class ChainLoad(CountingWriter):
    """Dependent writes over the volumes of two primaries, see isochrone.demo.chain; it connects again by itself.

    A write whose acknowledgement was lost is issued again before the next one, so the chain stays whole.
    """

    def __init__(self, sites: Sites, rate_factor: float) -> None:
        super().__init__(sites, "chain")
        self._pause_s = 1 / (rate_factor * CHAIN_WRITES_PER_S)
        owners = sites.east[:2]
        self._places = [
            sites.create_volume(owner, volume, 16 * MIB)
            for owner, volume in zip(owners, CHAIN_VOLUMES, strict=True)
        ]

    def check(self, controller: ControllerProcess, recovered_ns: int) -> str:
        """See Load."""
        images = [self._sites.image(controller, place) for place in self._places]
        finding = check_chain([image[: CHAIN_LAYOUT.volume_size_bytes] for image in images], CHAIN_LAYOUT)
        assert not finding.faults, "\n".join(finding.faults)
        self.check_newest(finding.newest, recovered_ns)
        return f"chain of {finding.newest} writes"

    def _run(self) -> None:
        clients: dict[int, NbdClient] = {}
        try:
            while not self._stopping.is_set() or self.acknowledged < self.issued:
                number = self.acknowledged + 1
                volume, offset = CHAIN_LAYOUT.place(number)
                self.issued = number
                try:
                    if volume not in clients:
                        place = self._places[volume]
                        clients[volume] = connect(place.controller.nbd_socket, place.volume)
                    clients[volume].write(offset, make_block(number))
                except (IsochroneError, OSError):
                    if volume in clients:
                        clients.pop(volume).close()
                    time.sleep(RECONNECT_S)
                    continue
                self._acknowledged_ns.append(self._sites.host_time_ns())
                time.sleep(self._pause_s)
        finally:
            for client in clients.values():
                client.close()


class FioLoad:
    """fio's random writes on one volume; every block carries its checksum, its place and a number."""

    def __init__(self, sites: Sites, owner: ControllerProcess, volume: str, rate_factor: float) -> None:
        self._sites = sites
        self._writes_per_s = max(1, round(rate_factor * FIO_WRITES_PER_S))
        self._place: Place = sites.create_volume(owner, volume, FIO_SIZE_BYTES)
        self._process: subprocess.Popen[bytes] | None = None
        fill = [*self._words(), "--do_verify=0", "--rw=write", "--bs=4k", "--iodepth=16"]
        run("fio", *fill)

    def start(self) -> None:
        """Begin, or go on."""
        if self._process is None:
            words = [
                *self._words(),
                "--do_verify=0",
                "--rw=randwrite",
                "--bs=4k",
                "--iodepth=4",
                "--norandommap",
            ]
            words += ["--time_based", "--runtime=1d", f"--rate_iops={self._writes_per_s}", "--randrepeat=0"]
            self._process = subprocess.Popen(
                ["fio", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self._sites.folder,
            )

    def stop(self) -> None:
        """SIGINT: fio ends when what it has in flight is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_S_MAX)
            self._process = None

    def primaries_lost(self, lost: tuple[ControllerProcess, ...]) -> None:
        """fio cannot connect again: it ends."""
        if self._place.controller in lost and self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self, controller: ControllerProcess, recovered_ns: int) -> str:  # noqa: ARG002  # blocks say nothing of time
        """See Load: every block is whole and in its place."""
        path = self._sites.folder / f"verify-{self._place.volume}"
        path.write_bytes(self._sites.image(controller, self._place))
        try:
            words = ["--name=verify", "--ioengine=psync", f"--filename={path}", "--verify=crc32c"]
            run("fio", *words, "--rw=read", "--bs=4k", f"--size={FIO_SIZE_BYTES}")
        finally:
            path.unlink()
        return f"{FIO_SIZE_BYTES // 4096} blocks of fio in {self._place.volume}"

    def _words(self) -> list[str]:
        uri = self._place.controller.uri(self._place.volume)
        return [
            f"--name={self._place.volume}",
            "--ioengine=nbd",
            "--thread",  # a job of its own process starts a session, so that no signal to fio ends it
            f"--uri={uri}",
            "--verify=crc32c",
            "--verify_state_save=0",
            f"--size={FIO_SIZE_BYTES}",
        ]


class VersionLoad(CountingWriter):
    """Random writes to the volume of one primary, whose device may fail: a write is issued until it is acknowledged.

    Each asks for stable storage: a device that fails to make writes durable may lose what was not flushed, as power does.

    Attributes:
        refused: writes that were answered with an error, or not at all.
    """

    def __init__(self, sites: Sites, owner: ControllerProcess, volume: str, rate_factor: float) -> None:
        super().__init__(sites, "versions")
        self._pause_s = 1 / (rate_factor * VERSIONS_PER_S)
        self._place = sites.create_volume(owner, volume, VERSIONS_SIZE_BYTES)
        self._places = VersionPlaces(1, VERSIONS_SIZE_BYTES // BLOCK_BYTES)
        self.refused = 0

    def check(self, controller: ControllerProcess, recovered_ns: int) -> str:
        """See Load."""
        finding = check_versions(self._sites.image(controller, self._place), self._places)
        assert not finding.fault_count, "\n".join(finding.faults)
        self.check_newest(finding.newest, recovered_ns)
        return f"{finding.newest} versions"

    def _run(self) -> None:
        client: NbdClient | None = None
        while not self._stopping.is_set() or self.acknowledged < self.issued:
            number = self.acknowledged + 1
            place = self._places.of(number)
            self.issued = number
            try:
                client = client or connect(self._place.controller.nbd_socket, self._place.volume)
                client.write(place * BLOCK_BYTES, make_version(number, place), fua=True)
            except (IsochroneError, OSError):
                self.refused += 1
                if client is not None:
                    client.close()
                client = None
                time.sleep(RECONNECT_S)
                continue
            self._acknowledged_ns.append(self._sites.host_time_ns())
            time.sleep(self._pause_s)
        if client is not None:
            client.close()


class DatabaseLoad:
    """PostgreSQL with its tables at one primary and its log at the other: pgbench, and writers that keep count."""

    def __init__(self, sites: Sites, rate_factor: float) -> None:
        self._sites = sites
        self._bench_per_s = max(1, round(rate_factor * BENCH_PER_S))
        self._owners = sites.east[:2]
        for owner, volume in zip(self._owners, VOLUMES, strict=True):
            sites.create_volume(owner, volume, DATABASE_SIZE_BYTES)
        self._places = Places(sites.folder)
        self._cluster = self._places.cluster
        self._writers = [
            CommitLog(self._cluster, number, sites.host_time_ns, pause_s=COMMIT_PAUSE_S / rate_factor)
            for number in range(COMMIT_WRITERS)
        ]
        self._mounts = contextlib.ExitStack()
        self._bench: subprocess.Popen[bytes] | None = None
        self._places.create_database(*self._owners)
        self._was_lost = False

    @property
    def commit_count(self) -> int:
        """Commits that the writers know of."""
        return sum(len(writer.acknowledged) for writer in self._writers)

    def start(self) -> None:
        """Begin, or go on; after a loss the database is held against everything it ever acknowledged."""
        if self._bench is not None:
            return
        self._mounts.enter_context(self._places.mounts(*self._owners))
        self._cluster.start()
        if self._was_lost:
            highest = check_tables(self._cluster, self._writers, through_ns=1 << 62)
            for writer in self._writers:
                writer.next_number = highest[writer.writer] + 1
            self._was_lost = False
        self._bench = self._cluster.start_bench(self._bench_per_s)
        for writer in self._writers:
            writer.start()

    def stop(self) -> None:
        """Stop the server cleanly and unmount."""
        if self._bench is not None:
            self._end_clients()
            self._cluster.stop()
            self._mounts.close()
            self._was_lost = True

    def primaries_lost(self, lost: tuple[ControllerProcess, ...]) -> None:
        """If one of its disks is gone the server dies too, also in the middle of its start."""
        if not set(self._owners) & set(lost):
            return
        self._cluster.kill()
        if self._bench is not None:
            self._end_clients()
            self._was_lost = True
        self._mounts.close()

    def check(self, controller: ControllerProcess, recovered_ns: int) -> str:
        """See Load; the database must not run elsewhere."""
        assert self._bench is None
        highest = self._places.check_database(controller, controller, self._writers, recovered_ns)
        return f"PostgreSQL with {sum(highest.values())} commits"

    def _end_clients(self) -> None:
        assert self._bench is not None
        self._bench.kill()
        self._bench.wait()
        self._bench = None
        for writer in self._writers:
            writer.finish()
