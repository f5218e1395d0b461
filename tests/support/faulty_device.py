"""A device that fails on command: a file of the kernel's FUSE, whose writes and reads return errors to whoever makes them.

::

    file  <-  nbdkit, error filter: EIO  <-  nbdkit, error filter: ENOSPC  <-  nbdkit, ... rarely  <-  nbdfuse: a file

Every error comes out of a system call, as from a broken disk or a full thin pool; nothing in the controller knows of it.
The device can also go away altogether, so that syncs and reads fail too, and come back as it was.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from isochrone.testing.processes import wait_until
from support.programs import ProgramError, run

START_S_MAX: Final = 20.0


class DeviceError(StrEnum):
    """What a failing device says, and to what."""

    EIO = "EIO"
    ENOSPC = "ENOSPC"
    EIO_RARELY = "EIO-rarely"
    """To one write in twenty, as where a disk has bad places."""
    READ_EIO = "read-EIO"
    """To every read."""


_ERRORS: Final = {
    DeviceError.EIO: ("pwrite", "EIO", "100%"),
    DeviceError.ENOSPC: ("pwrite", "ENOSPC", "100%"),
    DeviceError.EIO_RARELY: ("pwrite", "EIO", "5%"),
    DeviceError.READ_EIO: ("pread", "EIO", "100%"),
}
"""The call that fails, the value of errno, and how many of the calls meet it."""
_LAYERS: Final = (
    (DeviceError.EIO, DeviceError.READ_EIO),
    (DeviceError.ENOSPC,),
    (DeviceError.EIO_RARELY,),
)
"""Errors that one filter can make: one a call."""


class FaultyDevice:
    """The device; `faulty_device` makes and removes it. It works until told to fail.

    Attributes:
        path: the file to use.
        backing: the file that holds its bytes, for a copy.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.path = folder / "device"
        self.backing = folder / "backing"
        self._folder = folder
        self._size_bytes = size_bytes
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True)
        self.path.touch()
        with self.backing.open("wb") as file:
            file.truncate(size_bytes)

    def fail(self, error: DeviceError) -> None:
        """Answer with `error` from now on. What the page cache holds is forgotten, so that reads meet it too."""
        self._trigger(error).touch()
        with self.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def heal(self) -> None:
        """Work again after `fail`."""
        for error in DeviceError:
            self._trigger(error).unlink(missing_ok=True)

    def plug_in(self) -> None:
        """Make the device appear. Users start after it, and again after it was gone."""
        below = ["file", str(self.backing)]
        for layer in _LAYERS:
            server = self._folder / f"{layer[0]}.sock"
            faults: list[str] = []
            for error in layer:
                call, errno_name, share = _ERRORS[error]
                faults += [f"error-{call}={errno_name}", f"error-{call}-rate={share}"]
                faults.append(f"error-{call}-file={self._trigger(error)}")
            words = ["nbdkit", "--foreground", "--unix", str(server), "--filter=error", *below, *faults]
            process = self._start(words)
            self._wait(process, server.is_socket, f"{server.name} listens")
            below = ["nbd", f"socket={server}"]
        fuse = self._start(["nbdfuse", str(self.path), f"nbd+unix:///?socket={server}"])
        self._wait(fuse, lambda: self.path.stat().st_size == self._size_bytes, f"nbdfuse serves {self.path}")

    def pull_out(self) -> None:
        """Take the device away, whoever has it open: every call on it fails from now on."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        with contextlib.suppress(ProgramError):  # never mounted
            run("umount", "--lazy", self.path)
        for error in DeviceError:
            (self._folder / f"{error}.sock").unlink(missing_ok=True)

    def _trigger(self, error: DeviceError) -> Path:
        return self._folder / f"fail-{error}"

    def _start(self, words: list[str]) -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C must not take the device from under its users.
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(
            words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        self._processes.append(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], is_there: Callable[[], bool], what: str) -> None:
        wait_until(lambda: process.poll() is not None or is_there(), what, deadline_s=START_S_MAX)
        if process.poll() is not None:
            raise ProgramError(f"{process.args!r} ended with exit code {process.returncode}")


@contextlib.contextmanager
def faulty_device(folder: Path, size_bytes: int) -> Iterator[FaultyDevice]:
    """Make a device of `size_bytes` in `folder` (made for it); it goes with the block, whoever has it open."""
    device = FaultyDevice(folder, size_bytes)
    try:
        device.plug_in()
        yield device
    finally:
        device.pull_out()
