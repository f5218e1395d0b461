"""Listening on a path: take over what a dead process left behind, never what a living one uses.

A unix socket file outlives its process, so it must be replaced at the next start; asyncio does that by
removing whatever socket is there, also one that another process listens on, which then goes on unreachable
and unaware. Here the file is dialled first: only when nobody listens is it removed. Two processes that start
together could still both find a dead file, and the slower would remove the quicker one's new socket; so the
check and the bind are done under a lock on the folder, which leaves nothing behind (a lock file would).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from isochrone.model.errors import BusyError, RefusedError

SOCKET_MODE: Final = 0o600
"""Only the user that runs the controller may connect."""

FOLDER_LOCK_TIMEOUT_S: Final = 5.0
_FOLDER_LOCK_RETRY_S: Final = 0.005


async def listen_on_path(path: str, backlog: int) -> socket.socket:
    """Return a listening, non-blocking socket bound to `path`, in place of a dead socket file if one is
    there.

    Raises BusyError when another process listens there, RefusedError when something else is in the way.
    """
    async with _folder_lock(Path(path).parent):
        _clear_the_way(path)
        return _bind(path, backlog)


def _bind(path: str, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(path)
        Path(path).chmod(SOCKET_MODE)  # before listen: nobody can connect in between
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise RefusedError(f"cannot listen on unix:{path}: {error.strerror}; choose another path") from error
    return listener


def remove_socket(path: str, identity: tuple[int, int]) -> None:
    """Remove the socket file at `path` if it still is the one of `identity` (see `socket_identity`)."""
    if socket_identity(path) == identity:
        Path(path).unlink(missing_ok=True)


def socket_identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of what is at `path`, None when nothing is."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@asynccontextmanager
async def _folder_lock(folder: Path) -> AsyncIterator[None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(
            f"the folder {folder} cannot be used: {error.strerror}; create it first"
        ) from error
    try:
        await _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


async def _lock(descriptor: int, folder: Path) -> None:
    deadline_s = asyncio.get_running_loop().time() + FOLDER_LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if asyncio.get_running_loop().time() >= deadline_s:
                raise BusyError(
                    f"another process holds a lock on the folder {folder}; find it with `fuser {folder}`, or "
                    "choose another folder"
                ) from error
            await asyncio.sleep(_FOLDER_LOCK_RETRY_S)
        else:
            return


def _clear_the_way(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise RefusedError(f"cannot look at {path}: {error.strerror}; choose another path") from error
    if not stat.S_ISSOCK(mode):
        raise RefusedError(f"{path} exists and is not a socket; choose another path, or remove it first")
    if _somebody_listens(path):
        raise BusyError(f"another process listens on unix:{path}; stop it, or choose another path")
    Path(path).unlink(missing_ok=True)


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(path)
    if result in (errno.ECONNREFUSED, errno.ENOENT):
        return False
    if result in (0, errno.EAGAIN, errno.EINPROGRESS, errno.EPROTOTYPE):
        return True  # EAGAIN: its backlog is full; EPROTOTYPE: a datagram socket in use
    raise RefusedError(
        f"cannot tell whether another process listens on unix:{path}: {os.strerror(result)}; choose another "
        "path, or remove the file if it is a leftover"
    )
