"""The same copy by a file system that shares blocks: `cp --reflink` on XFS."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.hole_pool import PIECE_BYTES, SEED

FICLONERANGE: Final = 0x4020940D
"""linux/fs.h"""
_RANGE: Final = struct.Struct("=qQQQ")
IMAGE_BYTES: Final = 4 << 30
SEED_BYTES: Final = 512 << 20
"""Written for real; the file's other pieces share these blocks, so that 16 GiB of it need no more memory."""
ROUNDS: Final = 3
COMMAND_S_MAX: Final = 120.0


@dataclass(frozen=True, slots=True)
class Reflink:
    """Copies of one file.

    Attributes:
        seconds: of each `cp --reflink`, durable; empty where it is not possible.
        why_not: the reason of that.
    """

    extent_count: int
    seconds: list[float]
    why_not: str = ""

    def row(self) -> list[str]:
        """Return a line for the table of copies."""
        if not self.seconds:
            return [f"cp --reflink on XFS: {self.why_not}"]
        middle_ms = sorted(self.seconds)[len(self.seconds) // 2] * 1e3
        return [f"cp --reflink on XFS, {self.extent_count:,} extents", "", "", f"{middle_ms:,.0f}"]


def measure_reflink(folder: Path, *, size_bytes: int, mapped_bytes: int) -> Reflink:
    """Copy a file as large and as fragmented as the volume, in an XFS on a file in `folder`."""
    count = mapped_bytes // PIECE_BYTES
    try:
        with _mounted(folder) as place:
            file = place / "file"
            _fragment(file, place / "seed", size_bytes, count)
            return Reflink(count, [_copy(file, place / f"copy{number}") for number in range(ROUNDS)])
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None)
        return Reflink(count, [], said.decode().strip() if said else str(error))


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[Path]:
    image, place = folder / "xfs.img", folder / "xfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run("mkfs.xfs", "-q", "-m", "reflink=1", image)
    _run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        _run("umount", place)
        image.unlink()
        place.rmdir()


def _fragment(path: Path, seed: Path, size_bytes: int, count: int) -> None:
    """Make a file with `count` mapped pieces here and there."""
    with seed.open("wb") as file:
        for _ in range(SEED_BYTES // PIECE_BYTES):
            file.write(os.urandom(PIECE_BYTES))
    pieces = SEED_BYTES // PIECE_BYTES
    places = np.random.default_rng(SEED).permutation(size_bytes // PIECE_BYTES)[:count].tolist()
    with seed.open("rb") as source, path.open("wb") as file:
        file.truncate(size_bytes)
        for number, place in enumerate(places):
            at, to = number % pieces * PIECE_BYTES, place * PIECE_BYTES
            fcntl.ioctl(file, FICLONERANGE, _RANGE.pack(source.fileno(), at, PIECE_BYTES, to))
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> float:
    began_s = time.monotonic()
    _run("cp", "--reflink=always", source, target)
    _run("sync", target)
    return time.monotonic() - began_s


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=COMMAND_S_MAX)
