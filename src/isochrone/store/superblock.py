"""The superblock: what a pool is. One block, written once, read before anything else (docs/formats.md)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError, RefusedError
from isochrone.model.sizes import TRACK_SIZE_MAX_BYTES, TRACK_SIZE_MIN_BYTES

SUPERBLOCK_NAME: Final = "superblock"
TRACKS_NAME: Final = "tracks"
SUPERBLOCK_SIZE_BYTES: Final = 4096
FORMAT_VERSION: Final = 1
"""Version 1: first release."""
FEATURES_KNOWN: Final = 0
"""Bits of features without whose knowledge a pool must not be touched. None yet."""
TRACK_COUNT_MAX: Final = (1 << 32) - 2
"""Physical numbers are unsigned 32-bit integers from 1."""
TRACKS_PATH_LENGTH_MAX: Final = 1024

_MAGIC: Final = b"ISOCPOOL"
_FIXED: Final = Struct("<8sII16sQQIIIH")
_CHECKSUM: Final = Struct("<Q")


@dataclass(frozen=True, slots=True)
class Superblock:
    """What is fixed for the life of a pool.

    Attributes:
        uuid: 16 random bytes; also the seed of the log's checksums, so that no record of another pool is
            taken.
        track_size_bytes: a power of two.
        track_count: physical tracks, numbered 1 to track_count; track p is at byte (p - 1) *
            track_size_bytes.
        log_segment_size_bytes: size of each of the two log files.
        preallocate: files below are given real space when they grow.
        tracks_path: where the tracks are: TRACKS_NAME in the pool's folder, or an absolute path.
        features: bits that an opener must know.
    """

    uuid: bytes
    track_size_bytes: int
    track_count: int
    log_segment_size_bytes: int
    preallocate: bool
    tracks_path: str = TRACKS_NAME
    features: int = 0

    @property
    def seed(self) -> int:
        """Seed of this pool's checksums, unsigned 64-bit."""
        return int.from_bytes(self.uuid[:8], "little")

    @property
    def tracks_size_bytes(self) -> int:
        """Bytes that the tracks take."""
        return self.track_count * self.track_size_bytes


def encode_superblock(superblock: Superblock) -> bytes:
    """Return the SUPERBLOCK_SIZE_BYTES bytes of the file."""
    path = superblock.tracks_path.encode()
    body = _FIXED.pack(
        _MAGIC,
        FORMAT_VERSION,
        SUPERBLOCK_SIZE_BYTES,
        superblock.uuid,
        superblock.features,
        superblock.track_count,
        superblock.track_size_bytes,
        superblock.log_segment_size_bytes,
        int(superblock.preallocate),
        len(path),
    )
    body = (body + path).ljust(SUPERBLOCK_SIZE_BYTES - _CHECKSUM.size, b"\0")
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def decode_superblock(data: bytes) -> Superblock:
    """Return what `data` says.

    Raises:
        DamagedError: not a superblock, or its bytes contradict its checksum.
        RefusedError: written by a later version, or with features unknown here.
    """
    if len(data) != SUPERBLOCK_SIZE_BYTES or data[:8] != _MAGIC:
        raise _damaged("it does not begin like one", 0)
    (checksum,) = _CHECKSUM.unpack_from(data, SUPERBLOCK_SIZE_BYTES - _CHECKSUM.size)
    if xxh3_64_intdigest(data[: -_CHECKSUM.size]) != checksum:
        raise _damaged("its checksum does not match", SUPERBLOCK_SIZE_BYTES - _CHECKSUM.size)
    _, version, _, uuid, features, track_count, track_size, segment_size, preallocate, path_length = (
        _FIXED.unpack_from(data)
    )
    if version != FORMAT_VERSION or features & ~FEATURES_KNOWN:
        raise RefusedError(
            f"the pool has format version {version} and features {features:#x}; this program knows version "
            f"{FORMAT_VERSION} and features {FEATURES_KNOWN:#x}: open it with the version that wrote it, or a later one",
            version=version,
            features=features,
        )
    path = data[_FIXED.size : _FIXED.size + path_length].decode()
    return Superblock(uuid, track_size, track_count, segment_size, bool(preallocate), path, features)


def check_track_size(track_size_bytes: int) -> None:
    """Raise RefusedError unless tracks can have this size."""
    sizes_ok = TRACK_SIZE_MIN_BYTES <= track_size_bytes <= TRACK_SIZE_MAX_BYTES
    if not sizes_ok or track_size_bytes & (track_size_bytes - 1):
        raise RefusedError(
            f"track size {track_size_bytes} is not usable: choose a power of two from {TRACK_SIZE_MIN_BYTES} to "
            f"{TRACK_SIZE_MAX_BYTES}",
            track_size_bytes=track_size_bytes,
        )


def _damaged(what: str, offset: int) -> DamagedError:
    return DamagedError(
        f"{SUPERBLOCK_NAME}, byte {offset}: not the superblock of a pool: {what}; check the folder's path, or recover "
        "the pool from the other site",
        file=SUPERBLOCK_NAME,
        offset=offset,
    )
