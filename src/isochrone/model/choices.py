"""What an operator chooses for a session, as words: the same in requests, documents, messages and reports."""

from __future__ import annotations

from enum import StrEnum


class Compression(StrEnum):
    """How payloads travel on one link."""

    OFF = "off"
    LZ4 = "lz4"
    ZSTD = "zstd"


class OverflowPolicy(StrEnum):
    """What the primary does when the side file approaches its limit."""

    PACE = "pace"
    """Delay acknowledgements, growing with the backlog up to a maximum; suspend when the limit is reached even so."""
    SUSPEND = "suspend"
    """Never delay; suspend at the limit."""
