"""A file whose unsynced writes a power loss may lose, keep or tear.

Two images are kept: `data`, what the page cache shows, and `durable`, what the platter holds; between them,
in order, the changes that no datasync has confirmed. A change of content is kept as the page-cache image of
the whole sectors it touched, not as the bytes of the write: the kernel writes back pages, so a later small
write that reached the platter brings along every earlier byte of its sector. Power loss walks the changes
and keeps each sector of each with some probability; a sector so ends with any content that it had since the
last datasync, which is all the contract promises.

A size is metadata and goes through the file system's journal: of the changes of size a prefix survives. What
was written beyond the surviving size is gone; what was written after a lost cut is gone with it, because the
file system does not give freed blocks to new data before the cut is durable.

Stores through shared memory leave no trace to be walked. Dirty sectors are found by comparing with the image
at the last datasync, and lost or kept as they are now; contents in between are not tried.
"""

from __future__ import annotations

import errno
from random import Random
from typing import Final

from isochrone.store.disk import SECTOR_SIZE_BYTES, Buffer

BLOCK_SIZE_BYTES: Final = 4096
"""Unit in which space is taken from the simulated file system."""

Change = tuple[int, bytes] | int
"""(first byte of a sector, image of whole sectors), or a new size."""


class SimSpace:
    """Free space of one simulated file system, shared by its files."""

    def __init__(self, size_bytes_max: int | None = None) -> None:
        self.size_bytes_max = size_bytes_max
        self.used_bytes = 0

    def take(self, block_count: int) -> None:
        """Take space for `block_count` blocks, or raise OSError ENOSPC and take nothing."""
        used_bytes = self.used_bytes + block_count * BLOCK_SIZE_BYTES
        if self.size_bytes_max is not None and block_count and used_bytes > self.size_bytes_max:
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")
        self.used_bytes = used_bytes


class SimInode:
    """Content of one simulated file, independent of its names and handles."""

    def __init__(self, space: SimSpace) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self._space = space
        self._changes: list[Change] = []
        self._blocks = bytearray()  # one byte per block: 1 when it has space
        self._mapped_clean: bytes | None = None  # while mapped: the image at the last datasync

    def write(self, data: Buffer, offset: int) -> None:
        """Write `data` at `offset`; on OSError ENOSPC only the part before the first block denied."""
        length = self._take_space(offset, len(data))
        if length:
            if offset + length > len(self.data):
                self._set_size(offset + length)
            content = bytes(data)[:length]
            self.data[offset : offset + length] = content
            start = offset - offset % SECTOR_SIZE_BYTES
            end = offset + length + -(offset + length) % SECTOR_SIZE_BYTES
            if end - start != length:
                content = bytes(self.data[start:end])
            self._changes.append((start, content))
        if length < len(data):
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")

    def allocate(self, size_bytes: int) -> None:
        """Take space for the first `size_bytes` and extend to them, or raise OSError ENOSPC."""
        block_count = -(-size_bytes // BLOCK_SIZE_BYTES)
        self._blocks.extend(bytes(max(0, block_count - len(self._blocks))))
        self._space.take(self._blocks.count(0, 0, block_count))
        self._blocks[:block_count] = b"\x01" * block_count
        if size_bytes > len(self.data):
            self._set_size(size_bytes)

    def truncate(self, size_bytes: int) -> None:
        """Set the size; blocks wholly beyond it give their space back."""
        block_count = -(-size_bytes // BLOCK_SIZE_BYTES)
        self._space.used_bytes -= self._blocks.count(1, block_count) * BLOCK_SIZE_BYTES
        del self._blocks[block_count:]
        if size_bytes != len(self.data):
            self._set_size(size_bytes)

    def release_space(self) -> None:
        """Give all space back: the file has no name any more."""
        self._space.used_bytes -= self._blocks.count(1) * BLOCK_SIZE_BYTES
        self._blocks.clear()

    def map_shared(self) -> memoryview:
        """Return `data` as shared memory."""
        if self._mapped_clean is None:
            self._mapped_clean = bytes(self.data)  # earlier unsynced writes stay in the list
        return memoryview(self.data)

    def detach_mapping(self) -> None:
        """End every mapping: stores into old views no longer reach the file."""
        if self._mapped_clean is None:
            return
        self._log_stores()
        self._mapped_clean = None
        self.data = bytearray(self.data)

    def datasync(self) -> None:
        """Make everything durable."""
        self._log_stores()
        self.durable = _apply(self.durable, self._changes)
        self._changes.clear()

    def datasync_failed(self, rng: Random) -> None:
        """Store some changes, forget the others: as on Linux they read as written, but are clean."""
        self._log_stores()
        self.durable = self._survivors(rng, keep_sizes=True)
        self._changes.clear()

    def evict(self) -> None:
        """Drop clean pages from the cache: reads see what the platter holds and the changes still dirty."""
        if self._mapped_clean is None:
            self.data = _apply(bytearray(self.durable), self._changes)

    def power_loss(self, rng: Random) -> None:
        """Keep what is durable and, of the rest, whatever `rng` says."""
        self.detach_mapping()
        self.durable = self._survivors(rng, keep_sizes=False)
        self.data = bytearray(self.durable)
        self._changes.clear()

    def _take_space(self, offset: int, length: int) -> int:
        """Take space block by block for a write; return how many of its bytes have space."""
        first, last = offset // BLOCK_SIZE_BYTES, -(-(offset + length) // BLOCK_SIZE_BYTES)
        if last > len(self._blocks):
            self._blocks.extend(bytes(last - len(self._blocks)))
        while (block := self._blocks.find(0, first, last)) >= 0:
            try:
                self._space.take(1)
            except OSError:
                return max(0, block * BLOCK_SIZE_BYTES - offset)
            self._blocks[block] = 1
        return length

    def _set_size(self, size_bytes: int) -> None:
        if self._mapped_clean is not None:
            raise OSError(errno.EBUSY, "a mapped file must not be resized: close the handle first")
        _resize(self.data, size_bytes)
        self._changes.append(size_bytes)

    def _log_stores(self) -> None:
        """Turn stores through shared memory into changes, sector by sector, as the bytes stand now."""
        if self._mapped_clean is None:
            return
        now = bytes(self.data)
        if now != self._mapped_clean:
            for start in range(0, len(now), SECTOR_SIZE_BYTES):
                sector = now[start : start + SECTOR_SIZE_BYTES]
                if sector != self._mapped_clean[start : start + SECTOR_SIZE_BYTES]:
                    self._changes.append((start, sector))
            self._mapped_clean = now

    def _survivors(self, rng: Random, *, keep_sizes: bool) -> bytearray:
        """Return a content that may be on the platter while `_changes` are not confirmed.

        The first few changes of size survive; all of them with `keep_sizes`.
        """
        size_change_count = sum(isinstance(change, int) for change in self._changes)
        sizes_kept = size_change_count if keep_sizes else rng.randint(0, size_change_count)
        keep_probability = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        size_bytes = len(self.durable)
        kept: list[Change] = []
        for change in self._changes:
            if isinstance(change, int):
                if sizes_kept == 0 and change < size_bytes:
                    break
                if sizes_kept:
                    sizes_kept -= 1
                    size_bytes = change
                    kept.append(change)
            elif rng.random() < 0.5:
                if rng.random() < keep_probability:
                    kept.append(change)
            else:
                kept.extend(_torn(change, keep_probability, rng))
        image = _apply(bytearray(self.durable), kept)
        _resize(image, size_bytes)
        return image


def _torn(change: tuple[int, bytes], keep_probability: float, rng: Random) -> list[Change]:
    """Return the sectors of `change` that survive, each with `keep_probability`."""
    start, image = change
    return [
        (start + at, image[at : at + SECTOR_SIZE_BYTES])
        for at in range(0, len(image), SECTOR_SIZE_BYTES)
        if rng.random() < keep_probability
    ]


def _apply(image: bytearray, changes: list[Change]) -> bytearray:
    """Apply `changes` to `image` in place, clipped to its size at each moment, and return it."""
    for change in changes:
        if isinstance(change, int):
            _resize(image, change)
        else:
            start, sectors = change
            end = start + len(sectors)
            if end <= len(image):
                image[start:end] = sectors
            elif start < len(image):
                image[start:] = sectors[: len(image) - start]
    return image


def _resize(image: bytearray, size_bytes: int) -> None:
    if size_bytes < len(image):
        del image[size_bytes:]
    elif size_bytes > len(image):
        image.extend(bytes(size_bytes - len(image)))
