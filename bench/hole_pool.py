"""Pools that are full of mapped tracks and take no space: their `tracks` file is a hole that forgets what is written to it.

For measuring what is done with pointers, of which there are as many as there would be. The store itself makes everything but
the contents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from isochrone.store.disk import Buffer
from isochrone.store.durability import Steps
from isochrone.store.os_disk import OsDisk, OsFile
from isochrone.store.pool import Pool
from isochrone.store.superblock import TRACKS_NAME

PIECE_BYTES: Final = 1 << 20
"""Mapped at a time, at a place drawn at random: volumes are fragmented like this."""
HEAD_BYTES: Final = 64 << 20
"""The beginning of each volume is mapped as a whole, for writers."""
SYNC_PIECES: Final = 1024
SEED: Final = 4


class _Hole(OsFile):
    """A file of which only the size counts."""

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Forget it."""

    def pwritev(self, buffers: object, offset: int) -> None:
        """Forget them."""


class _HoleDisk(OsDisk):
    """A folder whose file of tracks forgets."""

    def open(self, name: str, *, create: bool = False) -> OsFile:
        """Open a file (see Disk)."""
        file = super().open(name, create=create)
        if name != TRACKS_NAME:
            return file
        file.close()
        path = str(self.path / name)
        return _Hole(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)


def make_hole_pool(folder: Path, *, size_bytes: int, volumes: Mapping[str, tuple[int, int]]) -> None:
    """Make a pool with volumes (name -> size and mapped bytes), `PIECE_BYTES` here and there."""
    disk = _HoleDisk(folder, create=True)
    Pool.create(disk, size_bytes=size_bytes, preallocate=False)
    disk.close()
    disk = _HoleDisk(folder)
    pool = Pool.open(disk)
    draw = np.random.default_rng(SEED)
    piece = bytes(PIECE_BYTES)
    written = 0
    for name, (volume_bytes, mapped_bytes) in volumes.items():
        volume = pool.create_volume(name, volume_bytes)
        head = min(HEAD_BYTES, mapped_bytes) // PIECE_BYTES
        rest = head + draw.permutation(volume_bytes // PIECE_BYTES - head)
        for place in [*range(head), *rest[: mapped_bytes // PIECE_BYTES - head].tolist()]:
            volume.write(place * PIECE_BYTES, piece)
            written += 1
            if written % SYNC_PIECES == 0:
                pool.log_write()
                _carry_out(pool.sync())
    _carry_out(pool.checkpoint())
    pool.close()
    disk.close()


def _carry_out(steps: Steps) -> None:
    for call in steps:
        call()
