"""What a source's tracks will hold at the secondary once everything staged is committed.

The newest staged entry of each track is indexed once, at a time when all that is asked for has been staged; an entry that a
commit has linked since is still the newest, and where it was. What was staged later is not looked at: who asks promises that
it concerns none of the tracks it asks for. Times say nothing here: of a source that joined late, records come that are older
than what is committed, and wait for the next commit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isochrone.store.allocator import TrackNumbers
from isochrone.store.arena import PAGE_MASK, PAGE_SHIFT
from isochrone.store.runs import expand
from isochrone.store.staging import SessionStage, SourceStage, data_track_counts, join, newest_of
from isochrone.store.tables import TrackTables, VolumeTable


class NewestEntries:
    """Index of what one source has staged.

    Attributes:
        through_ns: everything of the source up to here is known to it.
    """

    def __init__(self, session: SessionStage, source: int, tables: TrackTables) -> None:
        stage = session.sources.get(source, SourceStage())
        self.through_ns = stage.through_ns
        self._session = session
        self._withdrawals = session.withdrawal_count
        self._tables = tables
        newest = newest_of(join(stage.chunks))[0] if stage.chunks else join([])
        counts = newest.records["track_count"]
        volumes = np.repeat(newest.records["volume"].astype(np.int64), counts)
        keys = (volumes << 32) | expand(newest.records["track"], counts)
        physicals = np.zeros(len(keys), np.uint32)
        physicals[np.repeat(data_track_counts(newest.records) != 0, counts)] = newest.physicals
        order = np.argsort(keys)
        self._keys = keys[order]
        self._physicals = physicals[order]

    @property
    def is_valid(self) -> bool:
        """Whether nothing that it knows was withdrawn since: dropped without ever being committed."""
        return self._session.withdrawal_count == self._withdrawals

    def physicals(self, table: VolumeTable, tracks: NDArray[np.int64]) -> TrackNumbers:
        """Return where the content of `tracks` (ascending, within the volume) is stored; 0 for zeros."""
        pages = table.pages[tracks >> PAGE_SHIFT].astype(np.intp)
        entries: TrackNumbers = self._tables.arena.entries[(pages << PAGE_SHIFT) | (tracks & PAGE_MASK)]
        if len(self._keys):
            wanted = (table.number << 32) | tracks
            places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            staged = self._keys[places] == wanted
            entries[staged] = self._physicals[places[staged]]
        return entries
