"""Proof that a state agrees with itself: everything that is kept by adding up is computed anew and compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isochrone.store.holds import HELD
from isochrone.store.limits import REFERENCE_COUNT_MAX, STAGED_REFERENCE_COUNT
from isochrone.store.rebuild import count_mapped, count_references, count_repeats
from isochrone.store.state import PoolState
from isochrone.store.tables import VolumeTable, page_count_for
from isochrone.store.verify_history import history_findings

_NAMED_MAX = 5
"""Numbers named in one finding."""


def verify_state(state: PoolState) -> list[str]:
    """Return what contradicts itself in `state`; empty when all agrees (P5.2, P10.4)."""
    mapped_of_page = count_mapped(state.arena)
    counts = np.zeros(state.allocator.track_count + 1, np.uint16)
    findings = []
    for table in state.volumes.values():
        findings += _volume_findings(state, table, mapped_of_page, counts)
    findings += _page_findings(state)
    findings += _track_findings(state)
    findings += _staging_findings(state)
    findings += history_findings(state)
    return findings


def _volume_findings(
    state: PoolState, table: VolumeTable, mapped_of_page: NDArray[np.uint16], counts: NDArray[np.uint16]
) -> list[str]:
    findings = []
    what = f"volume {table.name} ({table.number})"
    if table.track_count * state.track_size_bytes != table.size_bytes:
        findings.append(f"{what}: {table.track_count} tracks do not make {table.size_bytes} bytes")
    if len(table.pages) != page_count_for(table.track_count):
        findings.append(f"{what}: {len(table.pages)} pages for {table.track_count} tracks")
        return findings
    used = table.pages[table.pages != 0]
    if len(used) and int(used.max()) >= state.arena.top:
        findings.append(f"{what}: points at a page that does not exist")
        return findings
    mapped = int(mapped_of_page[used].sum(dtype=np.int64))
    if mapped != table.mapped_track_count:
        findings.append(f"{what}: {mapped} tracks are mapped, {table.mapped_track_count} counted")
    kept = table.used_pages
    if kept is not None and not np.array_equal(kept.numbers, table.pages[table.pages != 0]):
        findings.append(f"{what}: what is kept of its pages is not what they are")
    repeats = count_repeats(state.tables, table, counts)
    if repeats > table.repeat_count_max:
        findings.append(
            f"{what}: holds a track or page {repeats} times, {table.repeat_count_max} are the most it should"
        )
    tail = table.track_count % 1024
    if tail and table.pages[-1] and state.arena.page(int(table.pages[-1]))[tail:].any():
        findings.append(f"{what}: has entries beyond its last track")
    return findings


def _page_findings(state: PoolState) -> list[str]:
    arena = state.arena
    counts = np.zeros(arena.capacity, np.uint16)
    for table in state.volumes.values():
        np.add.at(counts, table.pages[table.pages < arena.capacity], np.uint16(1))
    counts[0] = 0
    findings = []
    wrong = np.flatnonzero(counts != arena.references())
    if len(wrong):
        findings.append(f"reference counts of pages {_named(wrong)} do not match the volumes")
    if arena.live_count != np.count_nonzero(arena.counts):
        findings.append(f"{np.count_nonzero(arena.counts)} pages are live, {arena.live_count} counted")
    repeats = sum(table.repeat_count_max for table in state.volumes.values())
    if repeats + STAGED_REFERENCE_COUNT > REFERENCE_COUNT_MAX:
        findings.append(f"volumes may refer to a track {repeats} times, its count has no room for that")
    if arena.page(0).any():
        findings.append("the null page has entries")
    return findings


def _track_findings(state: PoolState) -> list[str]:
    allocator = state.allocator
    findings = []
    counts = count_references(state.tables, state.entry_tracks())
    wrong = np.flatnonzero(counts != allocator.references())
    if len(wrong):
        findings.append(f"reference counts of tracks {_named(wrong)} do not match tables and staged entries")
    held = np.flatnonzero(allocator.counts & HELD)
    if not np.array_equal(held, allocator.held_tracks()):
        findings.append(f"tracks {_named(held)} are held, not those that were given up")
    free = allocator.free_map()
    both = np.flatnonzero(free & (counts != 0))
    if len(both):
        findings.append(f"tracks {_named(both)} are free and referred to")
    if int(np.count_nonzero(free)) != allocator.free_count:
        findings.append(f"{np.count_nonzero(free)} tracks are free, {allocator.free_count} counted")
    linked = int(np.count_nonzero(counts))
    unlinked = allocator.free_count + allocator.pending_count + allocator.quarantined_count
    if linked + unlinked != allocator.track_count:
        findings.append(
            f"{linked} linked, {allocator.free_count} free, {allocator.pending_count} pending and "
            f"{allocator.quarantined_count} quarantined tracks do not make {allocator.track_count}"
        )
    pending = allocator.pending_tracks()
    if free[pending].any() or counts[pending].any():
        findings.append("pending tracks are free or referred to")
    return findings


def _staging_findings(state: PoolState) -> list[str]:
    findings = []
    for number, session in state.sessions.items():
        record_count = entry_count = track_count = 0
        for source, stage in session.sources.items():
            newest_ns = 0
            for chunk in stage.chunks:
                record_count += len(chunk.records)
                entry_count += chunk.entry_count
                track_count += len(chunk.physicals)
                times = chunk.records["time_ns"]
                if int(times[0]) < newest_ns or (times[1:] < times[:-1]).any():
                    findings.append(f"session {number}, source {source}: staged records are not in order")
                newest_ns = int(times[-1])
        kept = (session.record_count, session.entry_count, session.track_count)
        if (record_count, entry_count, track_count) != kept:
            findings.append(
                f"session {number}: {entry_count} entries are staged, {session.entry_count} counted"
            )
    return findings


def _named(numbers: NDArray[np.integer]) -> str:
    named = ", ".join(map(str, numbers[:_NAMED_MAX].tolist()))
    return named if len(numbers) <= _NAMED_MAX else f"{named} and {len(numbers) - _NAMED_MAX} more"
