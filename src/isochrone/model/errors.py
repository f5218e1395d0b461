"""Every error that crosses a room's door.

Four classes, by whose move is next::

    IsochroneError
    ├── RefusedError           bad input; nothing was changed; the caller must change the request
    │   ├── NotFoundError      names something that does not exist
    │   ├── ConflictError      is well formed, but not possible in the present state
    │   └── ProtocolError      a peer sent bytes that break a wire format; its connection is closed
    ├── UnavailableError       nothing wrong with the request; try again or make room
    │   ├── PoolFullError      no free track for a write that needs one
    │   ├── PoolReadOnlyError  the pool stopped taking writes after a device error
    │   └── BusyError          a limit is reached or the thing is in use
    ├── DamagedError           stored bytes contradict themselves: says what and where
    └── InternalError          our own bug; the message asks for a report

An error's text says what is wrong and what to do next; fields carry the values for programs.
"""

from __future__ import annotations


class IsochroneError(Exception):
    """Root of all errors of this package. `code` is a stable word for programs."""

    code = "error"

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class RefusedError(IsochroneError):
    """Bad input, refused at the edge; nothing was changed."""

    code = "refused"


class NotFoundError(RefusedError):
    """The request names something that does not exist."""

    code = "not-found"


class ConflictError(RefusedError):
    """The request is well formed but not possible in the present state."""

    code = "conflict"


class ProtocolError(RefusedError):
    """A peer sent bytes that break a wire format."""

    code = "protocol"


class UnavailableError(IsochroneError):
    """The request is fine but cannot be served now."""

    code = "unavailable"


class PoolFullError(UnavailableError):
    """No free track is left for a write that needs one."""

    code = "pool-full"


class PoolReadOnlyError(UnavailableError):
    """The pool stopped taking writes after a device error; restart the controller once the device is repaired."""

    code = "pool-read-only"


class BusyError(UnavailableError):
    """A named limit is reached, or the thing is in use."""

    code = "busy"


class DamagedError(IsochroneError):
    """Stored bytes contradict themselves; the message says what and where."""

    code = "damaged"


class InternalError(IsochroneError):
    """An invariant of ours does not hold: a bug to report."""

    code = "internal"
