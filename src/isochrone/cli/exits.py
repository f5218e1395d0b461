"""What the program's exit code says."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from isochrone.model.errors import (
    ConflictError,
    DamagedError,
    IsochroneError,
    NotFoundError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)


class ExitCode(IntEnum):
    """Exit codes; they do not change between versions."""

    OK = 0
    FAILED = 1
    REFUSED = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    DAMAGED = 6
    PROTOCOL = 7
    INTERRUPTED = 130


EXIT_CODE_MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed; an error of Isochrone itself, please report it",
    ExitCode.REFUSED: "wrong usage or refused input; nothing was changed",
    ExitCode.NOT_FOUND: "no such volume, copy, session or file",
    ExitCode.CONFLICT: "not possible in the present state",
    ExitCode.UNAVAILABLE: "not possible now: busy, full, timed out, or no controller answers",
    ExitCode.DAMAGED: "stored data contradicts itself",
    ExitCode.PROTOCOL: "the other side does not speak the protocol",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C; work that the controller has begun goes on",
}

_BY_ERROR: Final[Mapping[type[IsochroneError], ExitCode]] = {
    IsochroneError: ExitCode.FAILED,
    RefusedError: ExitCode.REFUSED,
    NotFoundError: ExitCode.NOT_FOUND,
    ConflictError: ExitCode.CONFLICT,
    ProtocolError: ExitCode.PROTOCOL,
    UnavailableError: ExitCode.UNAVAILABLE,
    DamagedError: ExitCode.DAMAGED,
}


def exit_code(error: IsochroneError) -> ExitCode:
    """Return the exit code of the nearest listed class of `error`."""
    return next(_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR)
