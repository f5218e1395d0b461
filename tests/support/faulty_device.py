"""A device that fails on command: a file of the kernel's FUSE, whose writes return EIO or ENOSPC to whoever makes them.

::

    file  <-  nbdkit file plugin, error filter (EIO)  <-  nbdkit nbd plugin, error filter (ENOSPC)  <-  nbdfuse: a file

Every error comes out of a system call, as from a broken disk or a full thin pool; nothing in the controller knows of it.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from isochrone.testing.processes import wait_until
from support.programs import ProgramError, run

START_S_MAX: Final = 20.0


class DeviceError(StrEnum):
    """What a failing device says to a write."""

    EIO = "EIO"
    ENOSPC = "ENOSPC"


@dataclass(frozen=True, slots=True)
class FaultyDevice:
    """The device; it works until told to fail.

    Attributes:
        path: the file to use.
        backing: the file that holds its bytes, for a copy.
    """

    path: Path
    backing: Path

    def fail_writes(self, error: DeviceError) -> None:
        """Answer every write with `error` from now on."""
        self._trigger(error).touch()

    def heal(self) -> None:
        """Work again."""
        for error in DeviceError:
            self._trigger(error).unlink(missing_ok=True)

    def _trigger(self, error: DeviceError) -> Path:
        return self.backing.parent / f"fail-{error}"


@contextlib.contextmanager
def faulty_device(folder: Path, size_bytes: int) -> Iterator[FaultyDevice]:
    """Make a device of `size_bytes` in `folder` (made for it); it goes with the block, whoever has it open.

    Users start after it: it must have been there when their mount namespace was made.
    """
    folder.mkdir(parents=True)
    device = FaultyDevice(folder / "device", folder / "backing")
    device.path.touch()
    with device.backing.open("wb") as file:
        file.truncate(size_bytes)
    servers = [folder / f"{error}.sock" for error in DeviceError]
    with contextlib.ExitStack() as stack:
        below = ["file", str(device.backing)]
        for server, error in zip(servers, DeviceError, strict=True):
            trigger = device.backing.parent / f"fail-{error}"
            faults = [f"error-pwrite={error}", "error-pwrite-rate=100%", f"error-pwrite-file={trigger}"]
            words = ["nbdkit", "--foreground", "--unix", str(server), "--filter=error", *below, *faults]
            process = stack.enter_context(_running(words))
            _wait_for(server, process)
            below = ["nbd", f"socket={server}"]
        uri = f"nbd+unix:///?socket={servers[-1]}"
        fuse = stack.enter_context(_running(["nbdfuse", str(device.path), uri]))
        stack.callback(_unmount, device.path)
        wait_until(
            lambda: fuse.poll() is not None or device.path.stat().st_size == size_bytes,
            f"nbdfuse serves {device.path}",
            deadline_s=START_S_MAX,
        )
        if fuse.poll() is not None:
            raise ProgramError(f"nbdfuse ended with exit code {fuse.returncode}")
        yield device


@contextlib.contextmanager
def _running(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    # In a session of its own: Ctrl-C must not take the device from under its users.
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START_S_MAX)


def _wait_for(server: Path, process: subprocess.Popen[bytes]) -> None:
    wait_until(
        lambda: process.poll() is not None or server.is_socket(),
        f"{server.name} listens",
        deadline_s=START_S_MAX,
    )
    if process.poll() is not None:
        raise ProgramError(f"{process.args!r} ended with exit code {process.returncode}")


def _unmount(path: Path) -> None:
    with contextlib.suppress(ProgramError):  # never mounted, or already gone
        run("umount", "--lazy", path)
