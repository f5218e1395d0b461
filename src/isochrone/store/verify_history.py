"""Proof that histories agree with themselves and with the volumes; a part of `verify`."""

from __future__ import annotations

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history import History
from isochrone.store.kept_entries import KeptEntries, Piece
from isochrone.store.state import PoolState


def history_findings(state: PoolState) -> list[str]:
    """Return what contradicts itself in the histories of `state`; empty when all agrees."""
    findings = _entries_findings("entries that were given up", state.given_up)
    bases: set[int] = set()
    for session, history in state.histories.items():
        what = f"the history of session {session}"
        findings += _volumes_findings(what, state, history)
        findings += _entries_findings(what, history.entries)
        mine = {stay.base for stay in history.volumes}
        if mine & bases:
            findings.append(f"{what}: shares a base with another one")
        bases |= mine
    if bases & state.unfinished:
        findings.append("a base is an image that is being made")
    return findings


def _volumes_findings(what: str, state: PoolState, history: History) -> list[str]:
    findings = []
    if not history.volumes:
        findings.append(f"{what}: keeps no volume")
    for stay in history.volumes:
        base = state.volumes.get(stay.base)
        if base is None or base.kind is not VolumeKind.BASE:
            findings.append(f"{what}: the base {stay.base} of volume {stay.number} is missing")
        if stay.until_ns is None and stay.number not in state.volumes:
            findings.append(f"{what}: keeps volume {stay.number}, which does not exist")
        if stay.from_ns > history.through_ns or (stay.until_ns is not None and stay.until_ns < stay.from_ns):
            findings.append(f"{what}: volume {stay.number} is kept from {stay.from_ns} to {stay.until_ns}")
    current = [stay.number for stay in history.volumes if stay.until_ns is None]
    if len(set(current)) != len(current):
        findings.append(f"{what}: keeps a volume twice")
    if history.first_ns > history.through_ns:
        findings.append(f"{what}: goes from {history.first_ns} to {history.through_ns}")
    bases = {stay.base for stay in history.volumes}
    for piece in history.entries.pieces:
        if piece.newest_ns > history.through_ns:
            findings.append(f"{what}: has an entry of {piece.newest_ns}, behind its end {history.through_ns}")
        if not set(piece.chunk.records["volume"].tolist()) <= bases:
            findings.append(f"{what}: has entries of a volume that is not its base")
    return findings


def _entries_findings(what: str, entries: KeptEntries) -> list[str]:
    findings = [f"{what}: a piece is not what it says" for piece in entries.pieces if not _is_true(piece)]
    for name in ("record_count", "entry_count", "track_count"):
        found = sum(getattr(piece, name) for piece in entries.pieces)
        if found != getattr(entries, name):
            findings.append(f"{what}: {name} is {found}, {getattr(entries, name)} counted")
    return findings


def _is_true(piece: Piece) -> bool:
    chunk = piece.chunk
    times = chunk.records["time_ns"]
    return (
        len(times) == piece.record_count > 0
        and chunk.entry_count == piece.entry_count
        and len(chunk.physicals) == piece.track_count
        and (int(times.min()), int(times.max())) == (piece.oldest_ns, piece.newest_ns)
    )
