"""What an operator chooses for a session: the same in requests, documents, messages and reports."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP_INTERVAL_NS_DEFAULT: Final = 10_000_000
"""How often a consistency group is formed."""

RETRY_NS_MAX_DEFAULT: Final = 60_000_000_000
"""How long what the secondary's device does not take is tried again before the session suspends."""

RETRY_TRACKS_MAX_DEFAULT: Final = 1024
"""How many tracks may wait for that."""

GROUP_BYTES_MAX_DEFAULT: Final = 32 << 20
"""A consistency group is formed early when this much was received."""


class Compression(StrEnum):
    """How payloads travel on one link."""

    OFF = "off"
    LZ4 = "lz4"
    ZSTD = "zstd"


class MarkPolicy(StrEnum):
    """What the marks of changed tracks at a primary survive."""

    MEMORY = "memory"
    """The death of the process. After a power loss all of every volume is suspected."""
    DURABLE = "durable"
    """Power loss too: then only regions that were written lately, or have marks, are suspected."""


class OverflowPolicy(StrEnum):
    """What the primary does when the side file approaches its limit."""

    PACE = "pace"
    """Delay acknowledgements, growing with the backlog up to a maximum; suspend when the limit is reached even so."""
    SUSPEND = "suspend"
    """Never delay; suspend at the limit."""
    HOLD = "hold"
    """Delay as PACE does; at the limit hold writes until there is room, for a bounded time, and only then suspend."""


class PaceLevel(StrEnum):
    """How early and how steeply acknowledgements are delayed as the side file fills (see capture.pacing)."""

    OFF = "off"
    GENTLE = "gentle"
    STEADY = "steady"
    FIRM = "firm"


class ComparePolicy(StrEnum):
    """Which marked tracks are compared with the secondary's before they are sent."""

    SUSPECTED = "suspected"
    """Those that nobody knows to differ, after a power loss say."""
    ALWAYS = "always"
    """All: where the link is slow, and writes often bring back what was there."""
    NEVER = "never"
    """None: where reading and hashing at both sites costs more than sending."""
