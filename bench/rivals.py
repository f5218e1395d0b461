"""Others who bring a stale copy up to date, each with sparse files of the same tmpfs, and the same changes.

Every rival begins with a source and a target that are alike; then the source changes; its time is that until the target
has caught up. One that takes longer than its limit is given up.

- `rsync --inplace`: finds the changes itself, by reading and summing up both files.
- `nbdcopy`: copies everything that is mapped, from one nbdkit to another.
- `qemu mirror`: QEMU marked the changes in its own dirty bitmap (4 KiB) while its mirror job was paused; it goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.changes import Change, Extent, apply, in_file, over_nbd
from isochrone.testing.processes import wait_until

READY_S_MAX: Final = 30.0
JOB: Final = "mirror"
POLL_S: Final = 0.02
QMP_S_MAX: Final = 60.0
MIRROR_GRANULARITY_BYTES: Final = 4096
MIRROR_BUFFER_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Catching:
    """One catching up: its seconds, or None when the limit was not enough."""

    seconds: float | None


Rival = Callable[[Path, Change, Extent, float], Catching]
"""(folder, change, extent, limit in seconds) -> its time."""


def rsync(folder: Path, change: Change, extent: Extent, limit_s: float) -> Catching:
    """`rsync --inplace` from file to file, with its delta transfer, as between two hosts."""
    source, target = _pair(folder, change, extent)
    apply(change, extent, in_file(source), folder)
    os.utime(target, (0, 0))  # else rsync may find both of one second and size, and leave
    return _timed(["rsync", "--inplace", "--no-whole-file", str(source), str(target)], limit_s)


def nbdcopy(folder: Path, change: Change, extent: Extent, limit_s: float) -> Catching:
    """A full copy of what is mapped, over NBD at both ends."""
    source, target = _pair(folder, change, extent)
    apply(change, extent, in_file(source), folder)
    with _nbdkit(source) as source_uri, _nbdkit(target) as target_uri:
        return _timed(["nbdcopy", source_uri, target_uri], limit_s)


def qemu_mirror(folder: Path, change: Change, extent: Extent, limit_s: float) -> Catching:
    """QEMU's mirror job, paused for the outage, to another process's NBD export."""
    source, target = _pair(folder, change, extent)
    with _nbdkit(target) as target_uri, _storage_daemon(folder, source) as (daemon, source_uri):
        server = {"type": "unix", "path": target_uri.partition("?socket=")[2]}
        daemon.command("blockdev-add", driver="nbd", server=server, **{"node-name": "target"})
        settings = {"granularity": MIRROR_GRANULARITY_BYTES, "buf-size": MIRROR_BUFFER_BYTES}
        job = {"job-id": JOB, "device": "source", "target": "target", "sync": "none", **settings}
        daemon.command("blockdev-mirror", **job)
        daemon.command("block-job-pause", device=JOB)
        apply(change, extent, over_nbd(source_uri), folder)
        began_s = time.monotonic()
        daemon.command("block-job-resume", device=JOB)
        while daemon.remaining_bytes():
            if time.monotonic() - began_s > limit_s:
                return Catching(None)
            time.sleep(POLL_S)
        return Catching(time.monotonic() - began_s)


RIVALS: Final[dict[str, Rival]] = {"rsync --inplace": rsync, "nbdcopy": nbdcopy, "qemu mirror": qemu_mirror}


def _pair(folder: Path, change: Change, extent: Extent) -> tuple[Path, Path]:
    """Make source and target: sparse files, alike, with the places of `change` written once."""
    paths = folder / "source", folder / "target"
    for path in paths:
        with path.open("wb") as file:
            file.truncate(extent.volume_bytes)
        apply(change, extent, in_file(path), folder)
    return paths


def _timed(command: list[str], limit_s: float) -> Catching:
    began_s = time.monotonic()
    try:
        subprocess.run(command, check=True, timeout=limit_s, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Catching(None)
    return Catching(time.monotonic() - began_s)


@contextlib.contextmanager
def _nbdkit(path: Path) -> Iterator[str]:
    server = path.with_suffix(".sock")
    with _running(["nbdkit", "--foreground", "--unix", str(server), "file", str(path)], server):
        yield f"nbd+unix:///?socket={server}"


@contextlib.contextmanager
def _running(command: list[str], server: Path) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(server.is_socket, f"{server.name} is there", deadline_s=READY_S_MAX)
        yield
    finally:
        process.kill()
        process.wait()
        server.unlink(missing_ok=True)


class _Daemon:
    """A qemu-storage-daemon, spoken to by QMP."""

    def __init__(self, monitor: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(QMP_S_MAX)
        self._socket.connect(str(monitor))
        self._lines = self._socket.makefile("r")
        self._lines.readline()  # its greeting
        self.command("qmp_capabilities")

    def command(self, execute: str, **arguments: object) -> Any:
        """Return what a command returns. Raises RuntimeError."""
        self._socket.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode())
        while True:
            message = json.loads(self._lines.readline())
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise RuntimeError(f"{execute}: {message['error']}")

    def remaining_bytes(self) -> int:
        """Return what the mirror job has still to copy."""
        (job,) = self.command("query-block-jobs")
        remaining: int = job["len"] - job["offset"]
        return remaining

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


@contextlib.contextmanager
def _storage_daemon(folder: Path, source: Path) -> Iterator[tuple[_Daemon, str]]:
    monitor, server = folder / "qmp.sock", folder / "qemu.sock"
    words = ["--blockdev", f"driver=file,filename={source},node-name=file"]
    words += ["--blockdev", "driver=raw,file=file,node-name=source"]
    words += ["--nbd-server", f"addr.type=unix,addr.path={server}"]
    words += ["--export", "type=nbd,id=export,node-name=source,name=v,writable=on"]
    words += ["--chardev", f"socket,path={monitor},server=on,wait=off,id=qmp", "--monitor", "chardev=qmp"]
    with _running(["qemu-storage-daemon", *words], monitor):
        daemon = _Daemon(monitor)
        try:
            yield daemon, f"nbd+unix:///v?socket={server}"
        finally:
            daemon.close()
            server.unlink(missing_ok=True)
