"""ext4 and XFS on a volume: what fsync promised is there after recovery, on a clean file system."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from isochrone.testing.processes import wait_until
from support.block_device import block_device, mounted, require_block_devices
from support.programs import run
from support.site import Site, replicate

pytestmark = pytest.mark.clients

FILES_BEFORE_LOSS = 60
FILE_SIZE_MAX = 300_000
WRITE_S_MAX = 60.0
FORMAT = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q")}
CHECK = {"ext4": ("e2fsck", "-f", "-n"), "xfs": ("xfs_repair", "-n")}


class FileWriter(threading.Thread):
    """Writes files with fsync, in a thread, until the disk is gone; keeps what it was promised."""

    def __init__(self, folder: Path, now_ns: Callable[[], int]) -> None:
        super().__init__(name="file writer", daemon=True)
        self.promised: list[tuple[str, bytes, int]] = []
        """(name, content, host time in ns at which fsync had returned)"""
        self._folder = folder
        self._now_ns = now_ns
        self._numbers = random.Random(7)

    def run(self) -> None:
        try:
            while True:
                name = f"file-{len(self.promised):05}"
                content = self._numbers.randbytes(self._numbers.randint(1, FILE_SIZE_MAX))
                self._write(self._folder / name, content)
                self.promised.append((name, content, self._now_ns()))
        except OSError:
            return  # the disk is gone

    def _write(self, path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_files_synced_before_the_recovered_time_are_intact_on_a_clean_file_system(
    site: Site, kind: str
) -> None:
    require_block_devices()
    site.expect_log("link")  # the mover says that its primary is gone
    east, west = site.controllers("east", "west")
    east.create_volume("files", 400 << 20)
    place = site.folder / "mount"
    with block_device(east.uri("files"), site.folder / "fuse-east") as device:
        run(*FORMAT[kind], device)
        with mounted(device, place):
            writer = FileWriter(place, site.host_time().now_ns)
            writer.start()
            replica = replicate("files", [(east, "files")], west)
            goal = len(writer.promised) + FILES_BEFORE_LOSS
            wait_until(lambda: len(writer.promised) >= goal, f"{goal} files", deadline_s=WRITE_S_MAX)
            due_ns = writer.promised[goal - 1][2]
            wait_until(
                lambda: replica.report()["consistency"]["time_ns"] >= due_ns,
                f"{goal} files are committed at the secondary",
                deadline_s=WRITE_S_MAX,
            )
            replica.lose_primaries()
            writer.join(WRITE_S_MAX)
            assert not writer.is_alive(), "the writer hangs on a lost disk"
    recovered_ns = replica.recover()

    due = [(name, content) for name, content, known_ns in writer.promised if known_ns <= recovered_ns]
    assert len(due) >= goal
    with block_device(west.uri("files"), site.folder / "fuse-west") as device:
        with mounted(device, place):
            for name, content in due:
                assert (place / name).read_bytes() == content, f"{name} differs"
            (place / "written-at-west").write_bytes(b"in service")
        run(*CHECK[kind], device)
