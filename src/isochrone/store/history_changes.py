"""What can happen to histories in memory; no I/O and no log, so that replaying the log is the same as having lived through
it.

Everything here is linking, or dropping what was never linked: see `history`. Tracks are counted once for each entry that is
    kept:
linking an entry into a base uses that reference up, linking it into an image counts one more first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.store.history import History, KeptVolume, redirected
from isochrone.store.holds import REFERENCES
from isochrone.store.pointer_copy import share
from isochrone.store.staging import Chunk
from isochrone.store.state import PoolState
from isochrone.store.tables import Assigned, VolumeTable

_COMPARED_PAGE_COUNT: Final = 1024
"""Pages compared at once: 8 MiB of temporary arrays."""


def begin_history(state: PoolState, session: int, pairs: Iterable[tuple[int, int]]) -> None:
    """Keep commits of volumes from now on: pairs of a volume and the base that was just copied from it."""
    at_ns = state.sessions[session].committed_through_ns if session in state.sessions else 0
    history = state.histories.setdefault(session, History(at_ns))
    history.through_ns = max(history.through_ns, at_ns)
    for number, base in pairs:
        history.join(KeptVolume(number, base, at_ns))


def end_volume(state: PoolState, session: int, number: int) -> list[int]:
    """A volume leaves: its commits are not kept any more. Returns bases that are gone because of it."""
    history = state.histories[session]
    history.leave(number, history.through_ns)
    return _forget_passed(state, session, history)


def drop_history(state: PoolState, session: int) -> list[int]:
    """Give a whole history up; `give_back` returns its tracks. Returns its bases, which are gone."""
    history = state.histories.pop(session)
    history.bases_changed_count += 1
    bases = [stay.base for stay in history.volumes]
    for base in bases:
        state.delete_volume(base)
    state.given_up.extend(history.entries.take_all())
    return bases


def give_back(state: PoolState, record_count: int) -> int:
    """Drop the tracks of the first entries that were given up; return how many tracks nothing refers to any more."""
    return sum(state.tables.drop(chunk.physicals) for chunk in state.given_up.take_first(record_count))


def release_history(state: PoolState, session: int, through_ns: int) -> tuple[Assigned, list[int]]:
    """Link everything up to a time into the bases, which stand for that time then. Returns also bases that are gone."""
    history = state.histories[session]
    if history.rewound_ns is not None and through_ns > history.rewound_ns:
        state.given_up.extend(history.leave_future())
    through_ns = min(through_ns, history.through_ns)
    history.bases_changed_count += 1
    linked = superseded = freed = 0
    for chunk in history.entries.take_through(through_ns):
        done = state.link(chunk)
        linked, superseded, freed = linked + done.linked, superseded + done.superseded, freed + done.freed
    history.first_ns = max(history.first_ns, through_ns)
    return Assigned(linked, superseded, freed), _forget_passed(state, session, history)


def link_image(state: PoolState, session: int, at_ns: int, targets: Mapping[int, int]) -> None:
    """Link everything up to a time into copies of the bases: `targets` gives the number of each base's copy."""
    for chunk in state.histories[session].entries.through(at_ns):
        share_and_link(state, redirected(chunk, targets))


def share_and_link(state: PoolState, chunk: Chunk) -> None:
    """Link entries that stay in the history, too."""
    if state.tables.accounting:
        state.allocator.share(chunk.physicals)
    state.link(chunk)


def rewind(state: PoolState, session: int, at_ns: int, pairs: Iterable[tuple[int, int]]) -> None:
    """Volumes become what they were at a time: pairs of a hidden image, which is gone then, and the volume."""
    for image, number in pairs:
        share(state.tables, state.volumes[image], state.volumes[number])
        state.delete_volume(image)
    state.histories[session].rewound_ns = at_ns
    if session in state.sessions:
        state.sessions[session].committed_through_ns = at_ns


def changed_tracks(state: PoolState, table: VolumeTable, other: VolumeTable) -> NDArray[np.int64]:
    """Return the tracks, ascending, whose pointers differ between two tables of one size."""
    indexes = np.flatnonzero(table.pages != other.pages)
    found = [np.empty(0, np.int64)]
    for start in range(0, len(indexes), _COMPARED_PAGE_COUNT):
        part = indexes[start : start + _COMPARED_PAGE_COUNT]
        pages = state.arena.pages(table.pages[part])
        rows, columns = np.nonzero(pages != state.arena.pages(other.pages[part]))
        found.append(part[rows] * pages.shape[1] + columns)
    return np.concatenate(found)


def held_by_bases(state: PoolState, history: History) -> int:
    """Return how many tracks only the bases of a history refer to."""
    count = 0
    for stay in history.volumes:
        pages = state.volumes[stay.base].pages
        own = pages[state.arena.counts[pages] == 1]
        for start in range(0, len(own), _COMPARED_PAGE_COUNT):
            entries = state.arena.pages(own[start : start + _COMPARED_PAGE_COUNT]).ravel()
            counts = state.allocator.counts[entries[entries != 0]]
            count += int(np.count_nonzero((counts & REFERENCES) == 1))
    return count


def _forget_passed(state: PoolState, session: int, history: History) -> list[int]:
    gone = [stay.base for stay in history.passed()]
    for base in gone:
        state.delete_volume(base)
    if not history.volumes:
        del state.histories[session]
        state.given_up.extend(history.entries.take_all())
    return gone
