"""Opens the controller's pool, and creates it at the first start."""

from __future__ import annotations

import structlog

from isochrone.controller.settings import PoolSection
from isochrone.model.errors import ConflictError, NotFoundError, RefusedError, UnavailableError
from isochrone.model.sizes import format_size
from isochrone.store.os_disk import OsDisk
from isochrone.store.pool import Pool
from isochrone.store.superblock import SUPERBLOCK_NAME

_log = structlog.get_logger(__name__)


def open_pool(settings: PoolSection) -> tuple[OsDisk, Pool]:
    """Return the pool's folder and the open pool. Blocks; nothing else runs yet.

    Raises:
        NotFoundError: there is no pool, and no size to create one with.
        BusyError: another controller has it.
        UnavailableError: the device failed, or this user may not use it.
        DamagedError: it cannot be read; says what and where.
        RefusedError: another version wrote it, or the settings contradict it.
    """
    disk = _open_folder(settings)
    try:
        if SUPERBLOCK_NAME not in disk.names():
            _create(disk, settings)
        pool = _open(disk, settings)
        _check_settings_fit(pool, settings)
        if pool.opening_note is not None:
            _log.warning("pool was not left in order", found=pool.opening_note, path=str(settings.path))
    except BaseException:
        disk.close()
        raise
    return disk, pool


def _open_folder(settings: PoolSection) -> OsDisk:
    try:
        return OsDisk(settings.path, create=settings.size is not None)
    except NotFoundError as error:
        raise NotFoundError(_no_pool(settings), path=str(settings.path)) from error
    except OSError as error:
        raise RefusedError(
            f"pool.path: {settings.path}: {error.strerror}; name a folder that this user may write to",
            path=str(settings.path),
        ) from error


def _open(disk: OsDisk, settings: PoolSection) -> Pool:
    try:
        return Pool.open(disk)
    except OSError as error:
        raise UnavailableError(
            f"pool.path: {error.filename or settings.path}: {error.strerror or error}; see to the device and the "
            "rights on the folder, then start again",
            path=str(settings.path),
        ) from error


def _no_pool(settings: PoolSection) -> str:
    return (
        f"pool.path: there is no pool in {settings.path}; write pool.size to create one, or correct the path"
    )


def _create(disk: OsDisk, settings: PoolSection) -> None:
    if settings.size is None:
        raise NotFoundError(_no_pool(settings), path=str(settings.path))
    _log.info("creating the pool", path=str(settings.path), size=format_size(settings.size))
    try:
        Pool.create(
            disk,
            size_bytes=settings.size,
            track_size_bytes=settings.track_size,
            preallocate=settings.preallocate,
            tracks_path=None if settings.tracks_path is None else str(settings.tracks_path),
        )
    except OSError as error:
        raise RefusedError(
            f"pool.size: {format_size(settings.size)} cannot be had in {error.filename or settings.path}: "
            f"{error.strerror}; make room, choose a smaller size, or write preallocate = false",
            path=str(settings.path),
        ) from error


def _check_settings_fit(pool: Pool, settings: PoolSection) -> None:
    """Refuse a track size that is not the pool's: it was chosen when the pool was created."""
    if "track_size" in settings.model_fields_set and settings.track_size != pool.track_size_bytes:
        raise ConflictError(
            f"pool.track_size is {settings.track_size}, but the pool in {settings.path} has tracks of "
            f"{pool.track_size_bytes} bytes; write that, or another pool.path",
            track_size_bytes=pool.track_size_bytes,
        )
