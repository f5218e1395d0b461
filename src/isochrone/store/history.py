"""The history of a session: where it begins, and every committed entry since.

Redo, not undo. A history has a *base* for each volume that it keeps: a hidden volume that shares pages, and reads as the
volume did at `first_ns`. Beside it are the entries committed since, each with its time and its tracks. So

- the image at T is a copy of the bases with the entries up to T linked into it;
- the oldest history is given up by linking its entries into the bases themselves;
- going back to T is making the volumes what the image at T is.

All three are what a commit does: link entries in order. A commit pays for a history with one reference more per track and
    28 bytes
an entry; it looks nothing up. Undo records (what was replaced, by which commit) would have to be read at every commit, and
an image at T would cost all that happened *since* T, though one wants the recent instants most; they would make it no
easier to give up the oldest, which is what happens all the time.

Entries name the base, not the volume: a volume that left the session and joined it again has a base for each stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isochrone.store.kept_entries import KeptEntries, Piece, pick
from isochrone.store.staging import Chunk


@dataclass(slots=True)
class KeptVolume:
    """One stay of a volume in a history.

    Attributes:
        number: of the volume.
        base: number of the hidden volume that reads as it did at the history's first time, or at `from_ns` if that is later.
        from_ns: images of the volume exist from here on.
        until_ns: it left then; None while its commits are kept.
    """

    number: int
    base: int
    from_ns: int
    until_ns: int | None = None

    def covers(self, at_ns: int) -> bool:
        """Whether the volume has an image at a time, as far as the stay goes."""
        return self.from_ns <= at_ns and (self.until_ns is None or at_ns <= self.until_ns)


@dataclass(frozen=True, slots=True)
class HistoryStats:
    """A history in numbers.

    Attributes:
        first_ns, through_ns: images exist of every instant from the one to the other.
        record_count: kept records.
        entry_count: tracks that they cover.
        track_count: tracks that hold their payload.
        held_bytes: what these tracks take. Giving all of it up brings about as much back: for each entry the track that it
            replaced.
        metadata_bytes: what is remembered of the entries beside their payload.
        volumes: stays, in the order they began.
        rewound_ns: where the volumes went back to; history behind it goes with the next commit. None otherwise.
    """

    first_ns: int
    through_ns: int
    record_count: int
    entry_count: int
    track_count: int
    held_bytes: int
    metadata_bytes: int
    volumes: tuple[KeptVolume, ...]
    rewound_ns: int | None


class History:
    """What is kept of one session.

    Attributes:
        first_ns: the bases read as the volumes did then. Entries that come later with an older time count as of then, too.
        through_ns: the newest instant that there is an image of.
        volumes: stays, in the order they began.
        entries: committed entries behind the bases, each of which counts one reference to its track.
        rewound_ns: entries behind it are of a past that was left; the next commit gives them up.
        bases_changed_count: rises whenever entries were linked into the bases or dropped.
        pin_count: images in the making, which wish that the bases stay as they are.
    """

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.through_ns = first_ns
        self.volumes: list[KeptVolume] = []
        self.entries = KeptEntries()
        self.rewound_ns: int | None = None
        self.bases_changed_count = 0
        self.pin_count = 0
        self._numbers: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._bases: NDArray[np.uint32] = np.empty(0, np.uint32)

    def join(self, volume: KeptVolume) -> None:
        """From now on commits of a volume are kept."""
        self.volumes.append(volume)
        self.recount()

    def leave(self, number: int, until_ns: int) -> bool:
        """Commits of a volume are not kept any more. False when they were not."""
        stay = self.current(number)
        if stay is None:
            return False
        stay.until_ns = until_ns
        self.recount()
        return True

    def current(self, number: int) -> KeptVolume | None:
        """Return the stay of a volume whose commits are kept now."""
        return next((stay for stay in self.volumes if stay.number == number and stay.until_ns is None), None)

    def covering(self, number: int, at_ns: int) -> KeptVolume | None:
        """Return the stay of a volume that has its image at a time; of two, the later one."""
        stays = [stay for stay in self.volumes if stay.number == number and stay.covers(at_ns)]
        return stays[-1] if stays else None

    def passed(self) -> list[KeptVolume]:
        """Remove and return stays that ended at or before the first time."""
        gone = [stay for stay in self.volumes if stay.until_ns is not None and stay.until_ns <= self.first_ns]
        self.volumes = [stay for stay in self.volumes if stay not in gone]
        return gone

    def leave_future(self) -> list[Piece]:
        """Remove and return the entries behind the time that the volumes went back to: what comes is another future."""
        if self.rewound_ns is None:
            return []
        self.through_ns, self.rewound_ns = self.rewound_ns, None
        self.bases_changed_count += 1
        return self.entries.take_after(self.through_ns)

    def recount(self) -> None:
        """Stays began or ended."""
        pairs = sorted((stay.number, stay.base) for stay in self.volumes if stay.until_ns is None)
        self._numbers = np.array([number for number, _ in pairs], np.uint32)
        self._bases = np.array([base for _, base in pairs], np.uint32)

    def part_of(self, chunk: Chunk) -> tuple[Chunk, NDArray[np.uint32]] | None:
        """Return what of a chunk is to be kept, and the base of each of its records; None when nothing is.

        It may be `chunk` itself.
        """
        if not len(self._numbers) or not len(chunk.records):
            return None
        numbers = chunk.records["volume"]
        places = np.searchsorted(self._numbers, numbers)
        places[places == len(self._numbers)] = 0
        mine = self._numbers[places] == numbers
        if mine.all():
            return chunk, self._bases[places]
        return (pick(chunk, mine), self._bases[places[mine]]) if mine.any() else None


def redirected(chunk: Chunk, targets: Mapping[int, int]) -> Chunk:
    """Return the records of `chunk` whose volume is a key of `targets`, for its value instead."""
    if not targets:  # every volume had left
        return pick(chunk, np.zeros(len(chunk.records), np.bool_))
    numbers = np.array(sorted(targets), np.uint32)
    places = np.searchsorted(numbers, chunk.records["volume"])
    places[places == len(numbers)] = 0
    mine = numbers[places] == chunk.records["volume"]
    kept = pick(chunk, mine)
    kept.records["volume"] = np.array([targets[number] for number in numbers.tolist()], np.uint32)[
        places[mine]
    ]
    return kept
