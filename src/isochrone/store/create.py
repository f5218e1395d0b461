"""Making a pool: its files in an order in which an interrupted creation never looks like a pool."""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np

from isochrone.model.errors import ConflictError, RefusedError
from isochrone.store.checkpoint import reserve_root
from isochrone.store.disk import Disk, File
from isochrone.store.head import HEAD_NAME, encode_head
from isochrone.store.log import (
    LOG_SEGMENT_SIZE_MAX_BYTES,
    LOG_SEGMENT_SIZE_MIN_BYTES,
    default_segment_size_bytes,
)
from isochrone.store.page_slots import PAGE_SIZE_BYTES, PAGES_NAME, SLOT_STEP
from isochrone.store.root import ROOT_NAME, Root, encode_root
from isochrone.store.segment import SEGMENT_NAMES, SegmentHeader, encode_segment_header
from isochrone.store.superblock import (
    SUPERBLOCK_NAME,
    TRACK_COUNT_MAX,
    TRACKS_NAME,
    TRACKS_PATH_LENGTH_MAX,
    Superblock,
    check_track_size,
    encode_superblock,
)

_UUID_VERSION: Final = 4


def create_pool(
    disk: Disk,
    *,
    size_bytes: int,
    track_size_bytes: int,
    preallocate: bool,
    tracks_path: str | None,
    log_segment_size_bytes: int | None,
) -> None:
    """Make an empty pool.

    The superblock comes last, so that only a complete pool has one. The folder is not locked: a pool that
    exists is refused, and a folder is created by one program at a time.

    Args:
        disk: the folder.
        size_bytes: room for tracks, rounded down to whole ones.
        track_size_bytes: a power of two, 4 KiB to 64 KiB.
        preallocate: give all files real space now; otherwise they grow as they are written. The log has its space in
            either case: what is pending for it has changed the state in memory already, and must find room.
        tracks_path: absolute path of a block device or file to use for the tracks instead of a file in the
            folder.
        log_segment_size_bytes: of each of the two log files, in whole KiB; chosen by the pool's size when
            None.

    Raises:
        RefusedError: a value is not usable.
        ConflictError: the folder holds a pool, or what looks like the rest of one.
        OSError: the file system below is too small.
    """
    check_track_size(track_size_bytes)
    track_count = size_bytes // track_size_bytes
    if not 1 <= track_count <= TRACK_COUNT_MAX:
        raise RefusedError(
            f"a pool of {size_bytes} bytes cannot be made of tracks of {track_size_bytes} bytes: choose a size of at "
            f"least one track, and bigger tracks for more than {TRACK_COUNT_MAX * track_size_bytes} bytes",
            size_bytes=size_bytes,
        )
    if tracks_path is not None and not (
        tracks_path.startswith("/") and len(tracks_path.encode()) <= TRACKS_PATH_LENGTH_MAX
    ):
        raise RefusedError(
            f"tracks path {tracks_path[:80]!r} is not usable: give an absolute path", path=tracks_path
        )
    segment_size = log_segment_size_bytes or default_segment_size_bytes(size_bytes)
    if not LOG_SEGMENT_SIZE_MIN_BYTES <= segment_size <= LOG_SEGMENT_SIZE_MAX_BYTES or segment_size % 1024:
        raise RefusedError(
            f"a log segment of {segment_size} bytes is not usable: choose {LOG_SEGMENT_SIZE_MIN_BYTES} to "
            f"{LOG_SEGMENT_SIZE_MAX_BYTES} bytes in whole KiB",
            log_segment_size_bytes=segment_size,
        )
    for name in (SUPERBLOCK_NAME, ROOT_NAME):
        if name in disk.names():
            raise ConflictError(
                f"the folder holds a pool already (file {name}): open it, or remove its files if you are sure",
                file=name,
            )
    superblock = Superblock(
        _new_uuid(), track_size_bytes, track_count, segment_size, preallocate, tracks_path or TRACKS_NAME
    )
    _make_files(disk, superblock)
    _write_new(disk, SUPERBLOCK_NAME, encode_superblock(superblock))
    disk.sync()


def _make_files(disk: Disk, superblock: Superblock) -> None:
    is_own = superblock.tracks_path == TRACKS_NAME
    tracks = disk.open(superblock.tracks_path, create=is_own)
    try:
        if superblock.preallocate:
            tracks.allocate(superblock.tracks_size_bytes)
        elif tracks.size_bytes() < superblock.tracks_size_bytes:
            tracks.truncate(superblock.tracks_size_bytes)
        tracks.datasync()
    finally:
        tracks.close()
    header = encode_segment_header(SegmentHeader(superblock.uuid, 0, 0, disk.boot_id))
    for name in SEGMENT_NAMES:
        _write_new(disk, name, header, superblock.log_segment_size_bytes, preallocate=True)
    _write_new(disk, HEAD_NAME, encode_head(0))
    pages_size = SLOT_STEP * PAGE_SIZE_BYTES if superblock.preallocate else 0
    _write_new(disk, PAGES_NAME, b"", pages_size, preallocate=superblock.preallocate)
    if superblock.preallocate:
        reserve_root(disk, 0)
    _write_new(disk, ROOT_NAME, encode_root(_empty_root(), superblock.uuid))
    disk.sync()


def _write_new(disk: Disk, name: str, data: bytes, size_bytes: int = 0, *, preallocate: bool = False) -> None:
    file: File = disk.open(name, create=True)
    try:
        file.truncate(0)
        if preallocate:
            file.allocate(size_bytes)
        elif size_bytes:
            file.truncate(size_bytes)
        if data:
            file.pwrite(data, 0)
        file.datasync()
    finally:
        file.close()


def _empty_root() -> Root:
    none = np.empty(0, np.uint32)
    return Root(1, 1, True, 1, [], none, none, np.empty(0, np.uint64), {}, {}, [], [], [], [])


def _new_uuid() -> bytes:
    """Return a random UUID (version 4)."""
    data = bytearray(secrets.token_bytes(16))
    data[6] = data[6] & 0x0F | _UUID_VERSION << 4
    data[8] = data[8] & 0x3F | 0x80
    return bytes(data)
