"""Why a session does not move on, in words (promise 3: blocked is not zero, and says what it waits for)."""

from __future__ import annotations

from isochrone.model.states import PairState, SessionState
from isochrone.session import transitions
from isochrone.session.contact import ContactState
from isochrone.session.document import PairDocument
from isochrone.session.retry_budget import waiting_words
from isochrone.session.session import Session


def blocked_on(session: Session, now_ns: int) -> str:
    """Return what keeps C from following the primaries' time, "" when nothing does."""
    document = session.document
    if document.state is SessionState.SUSPENDED:
        return f"suspended: {document.reason}"
    if document.is_over:
        return ""
    reasons: list[str] = []
    if session.mover.full_reason:
        reasons.append(f"received writes cannot be stored: {session.mover.full_reason}")
    if session.mover.waiting_ns is not None:
        words = waiting_words(document, session.mover.waiting_summary(), now_ns)
        reasons.append(f"{words}; tried again up to {document.retry_ns_max / 1e9:g} s")
    for source in sorted(document.sources_in_use):
        contact = session.contacts[source]
        name = document.sources[source].name
        seconds = max(0, now_ns - contact.since_ns) / 1e9
        if contact.state is ContactState.APPOINTING:
            reasons.append(
                f"primary {name} is being told what was written here; then it is the primary again ({seconds:.1f} s)"
            )
        elif contact.state is not ContactState.STREAMING:
            reasons.append(
                f"primary {name} is not streaming for {seconds:.1f} s: {contact.error or contact.state.lower()}"
            )
        elif contact.suspended:
            reasons.append(f"primary {name} is suspended")
        reasons += [f"primary {name}, volume {volume}: {text}" for volume, text in contact.refused.items()]
    reasons += [text for pair in document.pairs if (text := unreadable_text(session, pair))]
    if document.hold_floor_ns is not None:
        reasons.append("a resync: the last complete image stays in service until it is done")
    if session.is_draining:
        reasons.append(
            "a planned switchover: the primaries refuse writes until everything acknowledged is here"
        )
    return "; ".join(reasons)


def pair_state(session: Session, pair: PairDocument) -> PairState:
    """Return the state of `pair` as PairState defines it."""
    document = session.document
    if document.is_over:
        return PairState.SIMPLEX
    if document.state is SessionState.SUSPENDED:
        return PairState.SUSPENDED
    if pair.suspended:
        return PairState.SUSPENDED
    if pair.duplex:
        return PairState.DUPLEX
    contact = session.contacts[pair.source]
    if pair.primary_number is not None and pair.primary_number in contact.tracks_remaining:
        return PairState.COPY
    return PairState.PENDING


def unreadable_text(session: Session, pair: PairDocument) -> str:
    """Return which tracks of the pair's primary cannot be read there, and what helps; "" when all can."""
    copy = session.contacts[pair.source].copies.get(pair.primary_number or 0)
    if pair.primary_number is None or copy is None or not copy.unreadable_count:
        return ""
    runs = ", ".join(
        str(run.track) if run.count == 1 else f"{run.track}-{run.track + run.count - 1}"
        for run in copy.unreadable
    )
    more = " and more" if copy.unreadable_count > sum(run.count for run in copy.unreadable) else ""
    return (
        f"primary {session.document.sources[pair.source].name}, volume {pair.primary_volume}: {copy.unreadable_count} "
        f"tracks cannot be read there ({runs}{more}); the rest is copied: write or trim them, or repair the device"
    )


def image_incomplete_because(session: Session) -> str:
    """Return why the committed image is not yet one instant of all volumes, "" when it is."""
    return transitions.incompleteness(session.document)
