"""What a session asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.link.messages import Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to source number `source`; answer with `link_opened` or `link_lost`."""

    source: int
    address: str


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send `message` to source number `source`.

    With `durably`, on the link that is open now, once all that the pool holds now is durable; never, if that fails: what a
    primary is told of the session's pairs must not be undone here by a power loss.
    """

    source: int
    message: Message
    durably: bool = False


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close the link to source number `source`; `reason` is for the log. `link_lost` need not follow."""

    source: int
    reason: str


@dataclass(frozen=True, slots=True)
class Harden:
    """Run the pool's sync to its end, then call `hardened`, or `harden_failed` when it raised."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """Drive the pool's history_rewind to `at_ns` to its end, then call `rewound` with its result, or `rewind_failed`.

    Its calls may be made in a thread; nothing comes between its end and `rewound`.
    """

    at_ns: int


Action = Dial | SendMessage | CloseLink | Harden | Rewind
