"""The files that a pool is made of, opened."""

from __future__ import annotations

from isochrone.model.errors import DamagedError
from isochrone.store.disk import Disk, File


def open_part(disk: Disk, name: str) -> File:
    """Open a file that a pool must have."""
    try:
        return disk.open(name)
    except FileNotFoundError:
        raise DamagedError(
            f"{name} is missing from the pool: restore the file, or recover the volumes from the other site",
            file=name,
        ) from None
