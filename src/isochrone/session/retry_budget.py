"""How long a session puts up with a device, a full pool or a damaging link before it suspends (S6, never-ending failure).

While tracks wait, C stands still and the primaries' side files fill: trouble here must not become trouble of the
applications. So retrying has a budget of time and of tracks, and past it the session suspends, consistently, with words
that say what could not be stored, where, why and since when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from isochrone.mover.mover import Mover
from isochrone.mover.waiting import WaitingSummary
from isochrone.session.contact import Contact
from isochrone.session.document import SessionDocument

NS_PER_S: Final = 1_000_000_000
VOLUMES_NAMED_MAX: Final = 3
OVER_BUDGET: Final = "tried again to the limit"


def over_budget_because(
    document: SessionDocument, mover: Mover, contacts: Mapping[int, Contact], now_ns: int
) -> str:
    """Return what went on for longer than the session allows, in words; "" when all is within the budget.

    What waits of a primary that is to resume does not count: it will be copied, and goes when the answer comes.
    """
    if mover.waiting_ns is not None:
        resuming = {
            source for source, contact in contacts.items()
            if contact.resuming or document.sources[source].resume_wanted
        }  # fmt: skip
        waiting = mover.waiting_summary(without=resuming)
        age_ns = 0 if waiting.since_ns is None else now_ns - waiting.since_ns
        if age_ns > document.retry_ns_max or waiting.track_count > document.retry_tracks_max:
            return f"{OVER_BUDGET}: {waiting_words(document, waiting, now_ns)}"
    if mover.no_room_since_ns is not None and now_ns - mover.no_room_since_ns > document.retry_ns_max:
        seconds = (now_ns - mover.no_room_since_ns) / NS_PER_S
        return f"received writes could not be stored for {seconds:.1f} s: {mover.full_reason}"
    for source, contact in contacts.items():
        since_ns = contact.rejected_since_ns
        if since_ns is not None and now_ns - since_ns > document.retry_ns_max:
            return (
                f"record sets of primary {document.sources[source].name} were rejected {contact.rejected_count} times in "
                f"{(now_ns - since_ns) / NS_PER_S:.1f} s, and none arrived whole: {contact.rejected_because}"
            )
    return ""


def waiting_words(document: SessionDocument, waiting: WaitingSummary, now_ns: int) -> str:
    """Return in words which tracks wait, since when, and what the device said."""
    seconds = 0.0 if waiting.since_ns is None else max(0, now_ns - waiting.since_ns) / NS_PER_S
    names = {pair.secondary_number: pair.secondary_volume for pair in document.pairs}
    most = sorted(waiting.by_volume.items(), key=lambda item: -item[1])
    volumes = ", ".join(names.get(number, str(number)) for number, _ in most[:VOLUMES_NAMED_MAX])
    if len(most) > VOLUMES_NAMED_MAX:
        volumes += f" and {len(most) - VOLUMES_NAMED_MAX} more"
    tracks = "1 track" if waiting.track_count == 1 else f"{waiting.track_count} tracks"
    return f"{tracks} of {volumes} could not be stored for {seconds:.1f} s ({waiting.reason})"
