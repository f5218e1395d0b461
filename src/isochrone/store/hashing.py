"""Hashes of tracks, to find out at two sites which tracks differ without sending them.

xxh3-128, seeded: two contents that collide under one seed do not under another, so nobody who writes both can count on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xxhash import xxh3_128_digest

from isochrone.store.allocator import TrackNumbers
from isochrone.store.disk import File
from isochrone.store.runs import runs_of

HASH_BYTES: Final = 16
READ_BYTES_MAX: Final = 1 << 20
"""Content held at a time while it is hashed."""


@dataclass(frozen=True, slots=True)
class TrackHashes:
    """Hashes of tracks in order.

    Attributes:
        hashes: HASH_BYTES each, back to back; zeros for one that cannot be read.
        unreadable: places of those that the device could not read.
    """

    hashes: bytes
    unreadable: tuple[int, ...] = ()

    def __getitem__(self, index: int) -> bytes:
        return self.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def hash_tracks(tracks: File, track_size_bytes: int, physicals: TrackNumbers, seed: int) -> TrackHashes:
    """Return the hash of each of `physicals` in the file `tracks`; 0 stands for zeros and is not read."""
    size = track_size_bytes
    zeros = xxh3_128_digest(bytes(size), seed=seed)
    hashes: list[bytes] = []
    unreadable: list[int] = []
    step = max(1, READ_BYTES_MAX // size)
    for _, count, physical in runs_of(physicals) if len(physicals) else ():
        if not physical:
            hashes += [zeros] * count
            continue
        for first in range(physical, physical + count, step):
            for digest in _hash_run(tracks, size, first, min(step, physical + count - first), seed):
                if digest is None:
                    unreadable.append(len(hashes))
                hashes.append(digest or bytes(HASH_BYTES))
    return TrackHashes(b"".join(hashes), tuple(unreadable))


def _hash_run(tracks: File, size: int, physical: int, count: int, seed: int) -> list[bytes | None]:
    """Return the hashes of neighbouring physical tracks, None for those that cannot be read."""
    try:
        content = memoryview(tracks.pread(count * size, (physical - 1) * size))
    except OSError:
        if count == 1:
            return [None]
        return [_hash_run(tracks, size, physical + index, 1, seed)[0] for index in range(count)]
    return [xxh3_128_digest(content[at : at + size], seed=seed) for at in range(0, len(content), size)]
