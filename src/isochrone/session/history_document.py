"""What a session remembers beside its history in the pool: named instants, and times without a consistent image.

A document of its own, because it changes seldom and the session's document often. It is written before whatever makes it
true (the end of a hold, a J past a named instant), in the order of the pool's log.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from isochrone.link.messages import U32, U64, InstantText, Name
from isochrone.model.errors import DamagedError

HISTORY_PREFIX: Final = "session-history/"
INSTANTS_MAX: Final = 256
"""Named instants that are kept; the oldest goes first. Together with the gaps, 300 KB at most."""
GAPS_MAX: Final = 256
"""Gaps that are told apart; of more, the two oldest become one."""


class InstantDocument(BaseModel):
    """An instant that somebody named at primary `source` of the session."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    time_ns: U64
    text: InstantText
    source: U32


class GapDocument(BaseModel):
    """Between two times, which both have one, there is no consistent image of all volumes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    from_ns: U64
    to_ns: U64


class HistoryDocument(BaseModel):
    """See the module.

    Attributes:
        name: of the session.
        instants: in the order of their times.
        gaps: ascending and apart.
        given_up_ns: history up to here was given up before its window had passed, because space ran out; 0 for never.
        given_up_reason: of the last time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    instants: tuple[InstantDocument, ...] = ()
    gaps: tuple[GapDocument, ...] = ()
    given_up_ns: U64 = 0
    given_up_reason: str = ""

    @property
    def key(self) -> str:
        """Name of the document in the pool."""
        return HISTORY_PREFIX + self.name

    def changed(self, **fields: object) -> HistoryDocument:
        """Return a copy with `fields` replaced."""
        return self.model_copy(update=fields)


def load_history(key: str, value: bytes) -> HistoryDocument:
    """Return the document stored under `key`. Raises DamagedError when it does not read."""
    try:
        return HistoryDocument.model_validate_json(value)
    except ValidationError as error:
        raise DamagedError(f"pool document {key!r} does not read: {error}", document=key) from error


def with_instant(document: HistoryDocument, instant: InstantDocument) -> HistoryDocument:
    """Add a named instant; one that is known stays as it is."""
    if any(i.time_ns == instant.time_ns and i.source == instant.source for i in document.instants):
        return document
    instants = sorted([*document.instants, instant], key=lambda each: (each.time_ns, each.source))
    return document.changed(instants=tuple(instants[-INSTANTS_MAX:]))


def with_gap_recorded(document: HistoryDocument, from_ns: int, to_ns: int) -> HistoryDocument:
    """Add a gap; those that overlap become one."""
    if to_ns <= from_ns:
        return document
    gaps: list[GapDocument] = []
    for gap in sorted([*document.gaps, GapDocument(from_ns=from_ns, to_ns=to_ns)], key=lambda g: g.from_ns):
        if gaps and gap.from_ns < gaps[-1].to_ns:
            gaps[-1] = GapDocument(from_ns=gaps[-1].from_ns, to_ns=max(gaps[-1].to_ns, gap.to_ns))
        else:
            gaps.append(gap)
    while len(gaps) > GAPS_MAX:
        gaps[:2] = [GapDocument(from_ns=gaps[0].from_ns, to_ns=gaps[1].to_ns)]
    return document.changed(gaps=tuple(gaps))


def pruned(document: HistoryDocument, first_ns: int) -> HistoryDocument:
    """Forget what is said of times before `first_ns`, the first that can be reached."""
    instants = tuple(instant for instant in document.instants if instant.time_ns >= first_ns)
    gaps = tuple(gap for gap in document.gaps if gap.to_ns > first_ns)
    if len(instants) == len(document.instants) and len(gaps) == len(document.gaps):
        return document
    return document.changed(instants=instants, gaps=gaps)
