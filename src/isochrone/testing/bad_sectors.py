"""Latent errors of a simulated device: sectors that cannot be read until they are written again."""

from __future__ import annotations

import errno

from isochrone.store.disk import SECTOR_SIZE_BYTES


class BadSectors:
    """Which sectors of which files cannot be read. Like a medium's, they outlive processes and power losses."""

    def __init__(self) -> None:
        self._sectors: dict[str, set[int]] = {}

    def spoil(self, name: str, offset: int, length: int) -> None:
        """Make every sector that the range touches unreadable."""
        first, end = offset // SECTOR_SIZE_BYTES, -(-(offset + length) // SECTOR_SIZE_BYTES)
        self._sectors.setdefault(name, set()).update(range(first, end))

    def check(self, name: str, offset: int, length: int) -> None:
        """Raise OSError (EIO) when a sector of the range cannot be read."""
        bad = self._sectors.get(name)
        if bad and length:
            for sector in range(offset // SECTOR_SIZE_BYTES, (offset + length - 1) // SECTOR_SIZE_BYTES + 1):
                if sector in bad:
                    raise OSError(errno.EIO, "simulated latent sector error", name)

    def written(self, name: str, offset: int, length: int) -> None:
        """Heal the sectors that a write covers as a whole: the device puts them elsewhere."""
        bad = self._sectors.get(name)
        if bad:
            bad.difference_update(
                range(-(-offset // SECTOR_SIZE_BYTES), (offset + length) // SECTOR_SIZE_BYTES)
            )

    def heal(self) -> None:
        """Heal everything: the device was repaired without loss."""
        self._sectors.clear()

    def __len__(self) -> int:
        return sum(map(len, self._sectors.values()))
