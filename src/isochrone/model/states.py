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
