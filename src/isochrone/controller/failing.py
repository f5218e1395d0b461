"""What happens when one of our own cores raises what it never should: the process dies, at once.

After such an error the memory of the pool or a session may contradict itself. Going on, or even a clean stop
with its final checkpoint, could make that durable. The end of a kill -9 is the one that every part is built
to come back from.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

import structlog

EXIT_FAILED: Final = 1

_log = structlog.get_logger(__name__)


def die(error: BaseException) -> NoReturn:
    """Log `error` with its traceback and end the process with EXIT_FAILED."""
    _log.critical(
        "an error of Isochrone itself: the controller stops; please report it",
        error=f"{type(error).__name__}: {error}",
        exc_info=error,
    )
    sys.stderr.flush()
    os._exit(EXIT_FAILED)
