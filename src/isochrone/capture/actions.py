"""What the capture core asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from isochrone.link.messages import Message


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send `message` on link number `link`."""

    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class SendDurably:
    """Send `message` on link number `link` once all that the pool holds now is durable; never, if that fails.

    For answers on whose strength the other site goes on without this one: what they say must outlive a power loss.
    """

    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close link number `link` once what was sent on it is out; `reason` is for the log."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Replies to writes that wait for room in the side file leave now."""


Action = SendMessage | SendDurably | CloseLink | ReleaseHeld
