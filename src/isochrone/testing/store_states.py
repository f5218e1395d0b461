"""By value, what a pool holds and what it shows: the nouns of the store's model (see `store_model`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Cell:
    """Contents of one mapped track.

    Attributes:
        versions: (sequence number of the write, track image), oldest first; the first is the last one known
            to be durable (or the cell's first); never empty.
        is_unseen: it was overwritten, then a crash took back its linking: any mixture may come to light.
    """

    versions: list[tuple[int, bytes]]
    is_unseen: bool = False

    @property
    def image(self) -> bytes:
        """The newest content."""
        return self.versions[-1][1]

    def since(self, sequence: int) -> list[bytes]:
        """Return the content at `sequence` and every later one."""
        if self.is_unseen:
            return [image for _, image in self.versions]
        first = max((i for i, (at, _) in enumerate(self.versions) if at <= sequence), default=0)
        return [image for _, image in self.versions[first:]]


@dataclass(frozen=True, slots=True)
class VolumeState:
    """One volume; `tracks` holds the mapped ones."""

    name: str
    size_bytes: int
    tracks: Mapping[int, Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StagedTrack:
    """One staged track image; `cell` is None for zeros."""

    time_ns: int
    volume: int
    track: int
    cell: Cell | None


@dataclass(frozen=True, slots=True)
class StagingState:
    """One session's staging: entries in the order they came, how far each source is, what is committed."""

    staged: tuple[StagedTrack, ...] = ()
    through_ns: Mapping[int, int] = field(default_factory=dict)
    committed_through_ns: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """All that a pool holds, by value, except the bytes in cells."""

    volumes: Mapping[int, VolumeState] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)
    sessions: Mapping[int, StagingState] = field(default_factory=dict)

    def references(self) -> Counter[Cell]:
        """Return how often each cell that takes a track of the pool is mapped or staged."""
        references = Counter(cell for volume in self.volumes.values() for cell in volume.tracks.values())
        staged = (entry.cell for session in self.sessions.values() for entry in session.staged)
        references.update(cell for cell in staged if cell is not None)
        return references

    def cells(self) -> set[Cell]:
        """Return every cell that takes a track of the pool."""
        return set(self.references())


@dataclass(frozen=True, slots=True)
class VolumePicture:
    """One volume as a pool shows it: `mapped` track numbers and the whole content."""

    name: str
    size_bytes: int
    mapped: frozenset[int]
    content: bytes


@dataclass(frozen=True, slots=True)
class SessionPicture:
    """One session as a pool shows it."""

    staged_count: int
    through_ns: Mapping[int, int]
    committed_through_ns: int


@dataclass(frozen=True, slots=True)
class Picture:
    """What a pool shows through its public methods."""

    volumes: Mapping[int, VolumePicture]
    documents: Mapping[str, bytes]
    sessions: Mapping[int, SessionPicture]
