"""The servers that are measured, each on files of the same tmpfs, prepared alike.

A server has its volumes spread over as many processes as its kind asks for. Between its turns it is paused,
so that it costs the one being measured nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.processes import pause, unpause
from isochrone.store.superblock import TRACKS_NAME
from isochrone.testing.processes import ControllerProcess, wait_until

VOLUME_COUNT: Final = 4
"""Of nbdkit and qemu-nbd."""
POOL_SPARE_BYTES: Final = 512 << 20
"""Room in a pool beyond its volumes, for tracks that are staged or wait to be freed."""
WRITE_BYTES: Final = 1 << 20
SESSION: Final = "bench"
READY_S_MAX: Final = 30.0
DUPLEX_S_MAX: Final = 180.0
CALM_LAG_MS: Final = 60.0
"""A session is measured again only when its lag has come down to this."""


@dataclass(frozen=True, slots=True)
class Server:
    """Something to measure.

    Attributes:
        uris: of its volumes. Jobs on one volume use the first.
        pids: every process whose CPU time the server costs, both sites.
        mover: the controller that reports lag; None without a session.
        controllers: Isochrone's processes, for their memory; empty for others.
    """

    name: str
    uris: tuple[str, ...]
    pids: tuple[int, ...]
    mover: ControllerProcess | None = None
    controllers: tuple[ControllerProcess, ...] = field(default=())

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let the server run for the length of the block, from a calm state."""
        unpause(self.pids)
        try:
            if self.mover is not None:
                wait_until(self._is_calm, f"the session of {self.name} is calm", deadline_s=DUPLEX_S_MAX)
            yield
        finally:
            pause(self.pids)

    def session(self) -> dict[str, Any]:
        """Return the session's report."""
        assert self.mover is not None
        report: dict[str, Any] = self.mover.get(f"/v1/sessions/{SESSION}")
        return report

    def _is_calm(self) -> bool:
        report = self.session()
        lag_ms = report["consistency"]["lag_ms"]
        duplex = all(pair["state"] == "DUPLEX" for pair in report["pairs"])
        return duplex and lag_ms is not None and lag_ms < CALM_LAG_MS


@contextlib.contextmanager
def nbdkit(folder: Path, *, volume_size_bytes: int) -> Iterator[Server]:
    """Two nbdkit processes with the file plugin, two files each."""
    commands, sockets, uris = [], [], []
    for number in range(2):
        place = folder / f"nbdkit-{number}"
        place.mkdir(parents=True)
        for volume in range(VOLUME_COUNT // 2):
            _make_file(place / f"v{volume}", volume_size_bytes)
        socket = folder / f"nbdkit-{number}.sock"
        commands.append(["nbdkit", "--foreground", "--unix", str(socket), "file", f"dir={place}"])
        sockets.append(socket)
        uris += [f"nbd+unix:///v{volume}?socket={socket}" for volume in range(VOLUME_COUNT // 2)]
    with _running(commands, sockets) as pids:
        yield Server("nbdkit", tuple(uris), pids)


@contextlib.contextmanager
def qemu_nbd(folder: Path, *, volume_size_bytes: int) -> Iterator[Server]:
    """One qemu-nbd process for each volume: it serves one file."""
    commands, sockets, uris = [], [], []
    for volume in range(VOLUME_COUNT):
        path = folder / f"qemu-{volume}"
        _make_file(path, volume_size_bytes)
        socket = folder / f"qemu-{volume}.sock"
        options = ["--persistent", "--format=raw", "--shared=8", "--export-name=v", f"--socket={socket}"]
        commands.append(["qemu-nbd", *options, str(path)])
        sockets.append(socket)
        uris.append(f"nbd+unix:///v?socket={socket}")
    with _running(commands, sockets) as pids:
        yield Server("qemu-nbd", tuple(uris), pids)


@contextlib.contextmanager
def isochrone(
    name: str,
    folder: Path,
    *,
    volume_count: int,
    primary_count: int,
    replicated: bool,
    volume_size_bytes: int,
    session_settings: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    """Isochrone, its volumes spread over `primary_count` controllers; `replicated`: copied to one more.

    Args:
        session_settings: as in the request that creates a session.
    """
    place = folder / name.replace(" ", "-")
    pool_size = str(volume_count // primary_count * volume_size_bytes + POOL_SPARE_BYTES)
    mover_pool_size = str(volume_count * volume_size_bytes + 2 * POOL_SPARE_BYTES)
    with contextlib.ExitStack() as stack:
        primaries = []
        for number in range(primary_count):
            controller = ControllerProcess(
                place / f"east-{number}", f"east-{number}", runtime_dir=place / "run", pool_size=pool_size
            )
            primaries.append(stack.enter_context(controller))
            start_on_written_pool(controller)
        volumes = [(primaries[n * primary_count // volume_count], f"v{n}") for n in range(volume_count)]
        for controller, volume in volumes:
            controller.command("volume", "create", volume, str(volume_size_bytes))
        mover = None
        if replicated:
            mover = stack.enter_context(
                ControllerProcess(
                    place / "west", "west", runtime_dir=place / "run", pool_size=mover_pool_size
                )
            )
            start_on_written_pool(mover)
            addresses = [{"name": primary.name, "address": primary.link_address} for primary in primaries]
            pairs = [
                {"primary": controller.name, "primary_volume": volume, "secondary_volume": volume}
                for controller, volume in volumes
            ]
            request = {"name": SESSION, "primaries": addresses, "pairs": pairs, **(session_settings or {})}
            mover.post("/v1/sessions", request)
        controllers = (*primaries, *([mover] if mover else []))
        yield Server(
            name,
            tuple(controller.uri(volume) for controller, volume in volumes),
            tuple(controller.pid for controller in controllers),
            mover,
            controllers,
        )


@contextlib.contextmanager
def _running(commands: Sequence[Sequence[str]], sockets: Sequence[Path]) -> Iterator[tuple[int, ...]]:
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        for socket in sockets:
            wait_until(socket.exists, f"{socket.name} is there", deadline_s=READY_S_MAX)
        yield tuple(process.pid for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _make_file(path: Path, size_bytes: int) -> None:
    """Make a backing file of which every byte has been written once.

    The first write to a page of memory costs twenty times a later one on a virtual machine whose host gives memory
    out as it is touched; that is nothing of a server's.
    """
    with path.open("wb") as file:
        file.truncate(size_bytes)
    write_once(path)


def write_once(path: Path) -> None:
    """Write every byte of a file, as `_make_file` says."""
    zeros = bytes(WRITE_BYTES)
    left_bytes = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        while left_bytes:
            left_bytes -= file.write(zeros[:left_bytes])


def start_on_written_pool(controller: ControllerProcess) -> None:
    """Start a controller on a new pool whose tracks have been written once, as every other server's files have."""
    controller.start()  # makes the pool
    controller.stop()
    write_once(controller.folder / "pool" / TRACKS_NAME)
    controller.start()


def describe_versions() -> dict[str, str]:
    """Return the first line of each rival's version."""
    found = {}
    for program in ("nbdkit", "qemu-nbd", "fio", "nbdcopy", "rsync", "qemu-storage-daemon"):
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        found[program] = done.stdout.splitlines()[0]
    return found
