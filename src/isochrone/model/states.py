"""States of pairs and sessions, and what each allows."""

from __future__ import annotations

from enum import StrEnum


class PairState(StrEnum):
    """State of one pair of volumes, as the session's mover sees it.

    ::

        SIMPLEX --add--> PENDING --copier starts--> COPY --C passes the last image--> DUPLEX
                            ^                        |                                  |
                            |                        +------------- suspend ------------+
                            |                                          v
                            +----------- resume --------------- SUSPENDED

    DUPLEX is said only when the group that holds the pair's last image has been committed.
    """

    SIMPLEX = "SIMPLEX"
    """Not in a session."""
    PENDING = "PENDING"
    """Accepted; its copy has not begun."""
    COPY = "COPY"
    """Images are being copied; the pair's own image is not complete, or (resync) the last one is kept in service."""
    DUPLEX = "DUPLEX"
    """The committed image holds every write up to the consistency time."""
    SUSPENDED = "SUSPENDED"
    """Copying stopped; the primary marks changes; the last committed image is kept."""


class SessionState(StrEnum):
    """State of a session at its mover.

    ::

        ACTIVE <--resume/suspend--> SUSPENDED
           |                           |
           +--------- recover ---------+--> RECOVERY --committed through J--> ENDED
           +--------- delete ----------+--> ENDED
        ENDED --resync --discard secondary--> ACTIVE, under a newer epoch

    RECOVERY and ENDED never go back by themselves: after a split a person says whose writes are given up.
    """

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    RECOVERY = "RECOVERY"
    ENDED = "ENDED"


class SuspendCause(StrEnum):
    """Why a session is SUSPENDED. All but COMMAND may resume by themselves, once what caused them is over."""

    COMMAND = "command"
    """An operator asked for it."""
    SIDE_FILE = "side-file"
    """A side file reached its limit."""
    LINK = "link"
    """A primary was without its link for longer than the session's time-out."""
    RETRY = "retry"
    """Tracks could not be stored within the budget of retries."""
    ERROR = "error"
    """Something that cannot be retried: a write that failed and cannot be read back, a track that cannot be read."""
