"""A volume as a kernel block device: NBD -> nbdfuse -> loop, and a file system on it.

Where the machine forbids FUSE or loop devices, `require_block_devices` skips the test and says which.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from isochrone.testing.processes import wait_until
from support.programs import ProgramError, run

MOUNT_S_MAX: Final = 20.0


def require_block_devices() -> None:
    """Skip the test, with the reason, where FUSE or loop devices cannot be used."""
    reason = block_devices_forbidden()
    if reason:
        pytest.skip(reason)


@functools.cache
def block_devices_forbidden() -> str:
    """Return why FUSE or loop devices cannot be used, "" when they can."""
    if os.geteuid() != 0:
        return "FUSE and loop devices are tested as root only: this user may not attach loop devices"
    for path in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError as error:
            return f"this machine does not allow {path}: {error.strerror}"
    return ""


@contextlib.contextmanager
def fuse_file(uri: str, folder: Path) -> Iterator[Path]:
    """Yield the path of a file that is the volume at `uri`; `folder` is made for it.

    The server may die meanwhile: taking the file away then still succeeds.
    """
    folder.mkdir(parents=True)
    fuse = subprocess.Popen(["nbdfuse", str(folder), uri], stderr=subprocess.PIPE, text=True)
    try:
        image = folder / "nbd"
        wait_until(lambda: _is_there(image, fuse), f"nbdfuse serves {uri}", deadline_s=MOUNT_S_MAX)
        yield image
    finally:
        with contextlib.suppress(ProgramError):  # already gone with its server
            run("umount", "--lazy", folder)
        fuse.terminate()
        fuse.communicate(timeout=MOUNT_S_MAX)


@contextlib.contextmanager
def block_device(uri: str, folder: Path) -> Iterator[Path]:
    """Yield the path of a loop device over the volume at `uri`; `folder` is made for it."""
    with fuse_file(uri, folder) as image:
        device = Path(run("losetup", "--find", "--show", "--direct-io=off", image).strip())
        try:
            yield device
        finally:
            run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(device: Path, folder: Path, *options: str) -> Iterator[Path]:
    """Mount the file system of `device` on `folder`; unmount also when the device has failed.

    Whoever has files open there must be on its way out: the unmount waits for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--options", ",".join(options)] if options else []
    run("mount", *words, device, folder)
    try:
        yield folder
    finally:
        wait_until(lambda: _unmount(folder), f"{folder} is unmounted", deadline_s=MOUNT_S_MAX)


def _unmount(folder: Path) -> bool:
    try:
        run("umount", folder)
    except ProgramError as error:
        if "busy" in str(error):
            return False
        raise
    return True


def _is_there(image: Path, fuse: subprocess.Popen[str]) -> bool:
    if fuse.poll() is not None:
        raise ProgramError(f"nbdfuse ended: {fuse.communicate()[1]}")
    return image.exists()
