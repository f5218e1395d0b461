"""The terms of a connection: what the negotiation settled and every request is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.nbd import constants as c
from isochrone.nbd.export import Export


@dataclass(frozen=True, slots=True)
class Terms:
    """What client and server agreed on; fixed for the life of the connection.

    `structured_replies`: reads and block status are answered in chunks. `context_count`: metadata contexts that were
    selected. `flags`: the transmission flags that were sent.
    """

    size_bytes: int
    read_only: bool
    block_size_min: int
    block_size_preferred: int
    structured_replies: bool
    context_count: int
    flags: int


def terms_of(export: Export, *, structured_replies: bool, context_count: int) -> Terms:
    """Return the terms on which `export` is offered."""
    return Terms(
        size_bytes=export.size_bytes,
        read_only=export.read_only,
        block_size_min=export.block_size_min,
        block_size_preferred=export.block_size_preferred,
        structured_replies=structured_replies,
        context_count=context_count,
        flags=transmission_flags(read_only=export.read_only, structured_replies=structured_replies),
    )


def transmission_flags(*, read_only: bool, structured_replies: bool) -> int:
    """Return the transmission flags: everything we can do, less what the export or the negotiation rules out.

    CAN_MULTI_CONN holds because all connections act on the volume itself, with nothing kept per connection.
    """
    flags = c.FLAG_HAS_FLAGS | c.FLAG_SEND_FLUSH | c.FLAG_SEND_FUA | c.FLAG_CAN_MULTI_CONN | c.FLAG_SEND_CACHE
    if read_only:
        flags |= c.FLAG_READ_ONLY
    else:
        flags |= c.FLAG_SEND_TRIM | c.FLAG_SEND_WRITE_ZEROES | c.FLAG_SEND_FAST_ZERO
    if structured_replies:
        flags |= c.FLAG_SEND_DF
    return flags
