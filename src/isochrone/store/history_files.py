"""The files of history of one pool: which there are, what a checkpoint adds to them, and which may go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from isochrone.store.disk import Disk, File
from isochrone.store.history_file import HISTORY_FILE_PREFIX, HistoryFile
from isochrone.store.kept_entries import KeptEntries, Piece
from isochrone.store.state import PoolState

HISTORY_SEAL_RECORD_COUNT: Final = 1 << 16
"""A history that holds so many records in memory has them sealed by the next checkpoint; fewer are in the root (1.8 MB)."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """What one checkpoint does about files of history.

    Attributes:
        new: a file to be written, and the pieces that go into it.
        gone: names of files that nobody wants any more once the root is durable.
    """

    new: list[tuple[HistoryFile, list[Piece]]]
    gone: list[str]


class HistoryFiles:
    """Files of history of one pool.

    Attributes:
        known: by number, those that pieces may be in.
    """

    def __init__(self, disk: Disk, uuid: bytes) -> None:
        self._disk = disk
        self._uuid = uuid
        self.known: dict[int, HistoryFile] = {}
        names = [name for name in disk.names() if name.startswith(HISTORY_FILE_PREFIX)]
        self._leftover: set[str] = set(names)
        numbers = [_number(name) for name in names]
        self._number_next = max(numbers, default=0) + 1

    def load(self, named: Iterable[tuple[int, int]]) -> None:
        """Read the indexes of the files that the root names: pairs of number and checksum. Raises DamagedError."""
        for number, checksum in named:
            file = HistoryFile(self._disk, self._uuid, number)
            file.load(checksum)
            self.known[number] = file
            self._leftover.discard(file.name)
            self._number_next = max(self._number_next, number + 1)

    def seal(self, state: PoolState) -> Sealing:
        """Give pieces in memory, where they are many, a place in a new file; find the files that nobody wants."""
        new = []
        for entries in _all_entries(state):
            loose = [piece for piece in entries.pieces if piece.place is None]
            if sum(piece.record_count for piece in loose) >= HISTORY_SEAL_RECORD_COUNT:
                file = HistoryFile(self._disk, self._uuid, self._number_next)
                self._number_next += 1
                for place, piece in enumerate(loose):
                    piece.place = file, place
                new.append((file, loose))
        wanted = {
            piece.place[0].number
            for entries in _all_entries(state)
            for piece in entries.pieces
            if piece.place
        }
        unwanted = [file.name for number, file in self.known.items() if number not in wanted]
        self.known = {number: file for number, file in self.known.items() if number in wanted}
        self._leftover.update(unwanted)
        self.known.update((file.number, file) for file, _ in new)
        return Sealing(new, sorted(self._leftover))

    def create(self, file: HistoryFile) -> File:
        """Open a new file, empty, also after an attempt to write it that found no room."""
        with suppress(FileNotFoundError):
            self._disk.remove(file.name)
        return self._disk.open(file.name, create=True)

    def remove(self, sealing: Sealing) -> None:
        """Remove what nobody wants, blocking, in any thread: a root that does not name it is durable."""
        for name in sealing.gone:
            with suppress(FileNotFoundError):  # a power loss may have taken it, or brought its name back
                self._disk.remove(name)

    def finish(self, sealing: Sealing) -> None:
        """The checkpoint is durable: sealed pieces are read from their files from now on."""
        self._leftover.difference_update(sealing.gone)
        for _, pieces in sealing.new:
            for piece in pieces:
                piece.forget_content()


def _all_entries(state: PoolState) -> Iterator[KeptEntries]:
    for history in state.histories.values():
        yield history.entries
    yield state.given_up


def _number(name: str) -> int:
    digits = name.removeprefix(HISTORY_FILE_PREFIX)
    return int(digits) if digits.isdecimal() else 0
