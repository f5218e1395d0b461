"""Errors that end as an error value in a reply.

An export raises what its own room raises; `errno_of` decides what the client hears. The specification names
the values for bad requests (those are `requests.validate_request`'s); for troubles of the server it leaves
the choice open.
"""

from __future__ import annotations

import errno as os_errno
from typing import Final

from isochrone.model.errors import IsochroneError, PoolFullError, RefusedError
from isochrone.nbd.constants import Errno

_BY_OS_ERRNO: Final = {
    os_errno.ENOSPC: Errno.ENOSPC,
    os_errno.EDQUOT: Errno.ENOSPC,
    os_errno.EFBIG: Errno.ENOSPC,
    os_errno.EPERM: Errno.EPERM,
    os_errno.EACCES: Errno.EPERM,
    os_errno.EROFS: Errno.EPERM,
    os_errno.ENOMEM: Errno.ENOMEM,
}


class NbdError(IsochroneError):
    """A request failed with the NBD error value `errno`."""

    code = "nbd"

    def __init__(self, errno: Errno, message: str) -> None:
        super().__init__(message, errno=int(errno))
        self.errno = errno


def errno_of(error: Exception) -> Errno:
    """Return the error value a client is told for `error`, raised by an export on a request that was valid.

    A pool that stopped taking writes answers EIO, not EPERM: EPERM is for exports offered read-only, and what
    the client has to learn here is that a device failed under its data.
    """
    if isinstance(error, NbdError):
        return error.errno
    if isinstance(error, PoolFullError):
        return Errno.ENOSPC
    if isinstance(error, RefusedError):
        return Errno.EINVAL
    if isinstance(error, OSError) and error.errno is not None:
        return _BY_OS_ERRNO.get(error.errno, Errno.EIO)
    if isinstance(error, MemoryError):
        return Errno.ENOMEM
    return Errno.EIO


def is_expected(error: Exception) -> bool:
    """Return whether `error` is one the rooms raise on purpose, so that a log needs no traceback."""
    return isinstance(error, IsochroneError | OSError | MemoryError)
