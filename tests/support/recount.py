"""Reference counts of an open pool, counted anew in plain Python from every place that can hold a reference (P5.2)."""

from __future__ import annotations

from collections import Counter

import numpy as np

from isochrone.store.history import KeptVolume
from isochrone.store.pool import Pool


def check_counts(pool: Pool) -> None:
    """Assert that every kept count is what the tables and the entries that wait or are kept add up to."""
    state = pool._state
    pages = Counter(page for table in state.volumes.values() for page in table.pages.tolist() if page)
    tracks: Counter[int] = Counter()
    for page in pages:
        entries = state.arena.page(page)
        tracks.update(entries[entries != 0].tolist())
    for physicals in state.entry_tracks():
        tracks.update(physicals.tolist())
    counted = state.arena.references()
    kept_pages = {page: int(counted[page]) for page in np.flatnonzero(counted).tolist()}
    assert kept_pages == dict(pages), "counts of pages are not what volumes point at"
    references = state.allocator.references()
    kept_tracks = {track: int(references[track]) for track in np.flatnonzero(references).tolist()}
    assert kept_tracks == dict(tracks), "counts of tracks are not what pages and entries hold"
    hidden = {number for number, table in state.volumes.items() if table.kind.is_hidden} - state.unfinished
    bases = [stay.base for session in pool.histories for stay in _stays(pool, session)]
    assert sorted(hidden) == sorted(bases), "hidden volumes are not the bases of histories"
    free = set(np.flatnonzero(state.allocator.free_map()).tolist())
    assert not free & set(tracks), "a track that something refers to is free"
    assert pool.used_track_count == len(tracks)


def _stays(pool: Pool, session: int) -> tuple[KeptVolume, ...]:
    stats = pool.history(session)
    return stats.volumes if stats else ()
