"""ext4 in use: every one of many snapshots is a sound file system with all that was synced before it."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from isochrone.testing.processes import ControllerProcess, wait_until
from support.block_device import block_device, fuse_file, mounted, require_block_devices
from support.programs import run
from support.site import Site

pytestmark = pytest.mark.clients

SNAPSHOTS = 50
VOLUME_BYTES = 128 << 20
FILES_KEPT = 40
FILE_BYTES_MAX = 200_000
WRITE_S_MAX = 60.0


class Churn:
    """Writes files with fsync under a temporary name, renames them, and deletes old ones, until it is stopped.

    Attributes:
        synced: the number of files that were written, renamed and made durable with their names.
        begun: the number of the file that may be under way. Files older than `begun - FILES_KEPT` may be gone.
    """

    def __init__(self, folder: Path) -> None:
        self.synced = 0
        self.begun = 0
        self._folder = folder
        self._draw = random.Random(3)
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="churn")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Write for the length of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join(WRITE_S_MAX)
            assert not self._thread.is_alive(), "the writer hangs"
            if self._failure is not None:
                raise self._failure

    def wait_for_more(self, count: int) -> None:
        """Return after so many further files."""
        goal = self.synced + count
        wait_until(
            lambda: self.synced >= goal or self._failure is not None, f"{goal} files", deadline_s=WRITE_S_MAX
        )

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._write_next()
        except OSError as error:
            self._failure = error

    def _write_next(self) -> None:
        self.begun = number = self.synced + 1
        scratch = self._folder / "scratch"
        with scratch.open("wb") as file:
            file.write(self._draw.randbytes(self._draw.randint(1, FILE_BYTES_MAX)))
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(self._folder / f"file-{number}")
        if number > FILES_KEPT:
            (self._folder / f"file-{number - FILES_KEPT}").unlink()
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.synced = number


def check(controller: ControllerProcess, name: str, folder: Path) -> set[int]:
    """Check snapshot `name` on a writable copy of it; return the numbers of its files.

    Its journal is replayed first, as a mount would do and nothing else; e2fsck may then find nothing at all to say.
    """
    trial = f"trial-{name}"
    controller.post("/v1/copies", {"volumes": [f"files@{name}"], "name": trial, "writable": True})
    with fuse_file(controller.uri(f"files-{trial}"), folder) as image:
        run("e2fsck", "-y", "-E", "journal_only", image)
        run("e2fsck", "-f", "-n", image)
        listed = run("debugfs", "-R", "ls -p /", image)
    controller.delete(f"/v1/copies/{trial}")
    names = (line.split("/")[5] for line in listed.splitlines() if line.startswith("/"))
    return {int(name.removeprefix("file-")) for name in names if name.startswith("file-")}


def test_each_of_many_snapshots_of_a_busy_ext4_is_clean_and_holds_what_was_synced_before_it(
    site: Site,
) -> None:
    require_block_devices()
    controller = site.controller("east", pool_size="1GiB")
    controller.create_volume("files", VOLUME_BYTES)
    due: dict[str, tuple[int, int]] = {}
    with block_device(controller.uri("files"), site.folder / "fuse") as device:
        run("mkfs.ext4", "-q", device)
        with mounted(device, site.folder / "mount") as place:
            churn = Churn(place)
            with churn.running():
                for number in range(SNAPSHOTS):
                    churn.wait_for_more(2)
                    synced = churn.synced
                    controller.post("/v1/copies", {"volumes": ["files"], "name": f"c{number}"})
                    due[f"c{number}"] = synced, churn.begun
    for number, (name, (synced, begun)) in enumerate(due.items()):
        found = check(controller, name, site.folder / f"check{number}")
        assert set(range(max(1, begun - FILES_KEPT + 1), synced + 1)) <= found, name
        assert max(found) <= begun, name
