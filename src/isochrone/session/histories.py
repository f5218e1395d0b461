"""What each side wrote since the last common time: what an operator must see before a side is discarded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isochrone.model.split import Divergence, Written
from isochrone.session.document import SessionDocument


@dataclass(frozen=True, slots=True)
class SideHistory:
    """One controller's writes since the last common time.

    Attributes:
        name: of the primary within the session; "" for the recovered site itself.
        wrote: whether applications wrote there since; None while it has not said so.
        last_write_ns: when they did last, 0 never; None while not known.
        tracks: by volume of that controller, what may differ from the last common image because of it; None: not known.
    """

    name: str
    wrote: bool | None
    last_write_ns: int | None
    tracks: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Histories:
    """Both sides of a recovered session.

    Attributes:
        last_common_ns: everything up to it is at both sides, as far as it was hardened: the recovered time.
    """

    divergence: Divergence
    last_common_ns: int
    primaries: tuple[SideHistory, ...]
    secondary: SideHistory


def histories(document: SessionDocument, written: Written | None) -> Histories:
    """Return both histories of a session that was recovered here.

    Args:
        written: what was written here since; None when it was not noted: then it may be anything.
    """
    primaries = tuple(_primary_history(document, source) for source in sorted(document.sources_in_use))
    secondary = _secondary_history(document, written)
    return Histories(_divergence(primaries, secondary), document.recovered_ns, primaries, secondary)


def _primary_history(document: SessionDocument, source: int) -> SideHistory:
    known = document.sources[source]
    last_write_ns = known.last_write_ns
    return SideHistory(
        known.name,
        None if last_write_ns is None else last_write_ns > document.recovered_ns,
        last_write_ns,
        {p.primary_volume: p.primary_marked_tracks for p in document.pairs if p.source == source},
    )


def _secondary_history(document: SessionDocument, written: Written | None) -> SideHistory:
    tracks = {
        pair.secondary_volume: None if written is None else written.tracks.get(pair.secondary_number or -1)
        for pair in document.pairs
    }
    # Marks begin empty at the last common time, and by this host's clock alone; so they, not times, tell whether.
    # One marked track is proof enough; that there is none is known only when every volume was noted.
    wrote = True if any(tracks.values()) else None if None in tracks.values() else False
    if wrote and written and document.rewound_from_ns:
        # What changed since the time that was gone back to is marked, too, and nobody has written it.
        wrote = written.last_write_ns > 0
    return SideHistory("", wrote, written.last_write_ns if written else None, tracks)


def _divergence(primaries: tuple[SideHistory, ...], secondary: SideHistory) -> Divergence:
    there = [side.wrote for side in primaries]
    if any(there) and secondary.wrote:
        return Divergence.DIVERGED
    if None in there or secondary.wrote is None:
        return Divergence.UNKNOWN
    if any(there):
        return Divergence.PRIMARY
    return Divergence.SECONDARY if secondary.wrote else Divergence.NONE
