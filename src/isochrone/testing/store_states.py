"""By value, what a pool holds and what it shows: the nouns of the store's model (see `store_model`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from isochrone.model.volume_kind import VolumeKind


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
    kind: VolumeKind = VolumeKind.VOLUME


@dataclass(frozen=True, slots=True)
class StagedTrack:
    """One staged track image; `cell` is None for zeros."""

    time_ns: int
    volume: int
    track: int
    cell: Cell | None


@dataclass(frozen=True, slots=True)
class Stay:
    """The past of one volume, from when its commits were first kept until it left.

    Attributes:
        base: the volume as it was at `from_ns`, or at the history's first time if that is later.
        until_ns: None while its commits are kept.
        entries: committed since, in the order of commits.
    """

    number: int
    base: VolumeState
    from_ns: int
    until_ns: int | None = None
    entries: tuple[StagedTrack, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryState:
    """The past of a session's volumes.

    Attributes:
        first_ns, through_ns: there is an image of every instant between them.
        rewound_ns: where the volumes went back to; what is kept behind it goes with the next commit. None otherwise.
    """

    first_ns: int
    through_ns: int
    stays: tuple[Stay, ...] = ()
    rewound_ns: int | None = None

    def cells(self) -> Iterator[Cell]:
        """Yield every cell that is kept, as often as it is."""
        for stay in self.stays:
            yield from stay.base.tracks.values()
            yield from (entry.cell for entry in stay.entries if entry.cell is not None)

    def picture(self) -> HistoryPicture:
        """Return what a pool is to show of it."""
        entries = [entry for stay in self.stays for entry in stay.entries]
        return HistoryPicture(
            self.first_ns,
            self.through_ns,
            self.rewound_ns,
            tuple((stay.number, stay.from_ns, stay.until_ns) for stay in self.stays),
            len(entries),
            sum(entry.cell is not None for entry in entries),
        )

    def covering(self, number: int, at_ns: int) -> Stay | None:
        """Return the latest stay of a volume that a time lies in, None when there is none."""
        found = [
            stay
            for stay in self.stays
            if stay.number == number
            and stay.from_ns <= at_ns
            and (stay.until_ns is None or at_ns <= stay.until_ns)
        ]
        return found[-1] if found and self.first_ns <= at_ns <= self.through_ns else None


@dataclass(frozen=True, slots=True)
class StagingState:
    """One session's staging: entries in the order they came, how far each source is, what is committed."""

    staged: tuple[StagedTrack, ...] = ()
    through_ns: Mapping[int, int] = field(default_factory=dict)
    committed_through_ns: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """All that a pool holds, by value, except the bytes in cells.

    Attributes:
        given_up: cells of a past that is not wanted any more, which keep their tracks for a while.
    """

    volumes: Mapping[int, VolumeState] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)
    sessions: Mapping[int, StagingState] = field(default_factory=dict)
    histories: Mapping[int, HistoryState] = field(default_factory=dict)
    given_up: tuple[Cell, ...] = ()

    def references(self) -> Counter[Cell]:
        """Return how often each cell that takes a track of the pool is mapped, staged or kept."""
        references = Counter(cell for volume in self.volumes.values() for cell in volume.tracks.values())
        staged = (entry.cell for session in self.sessions.values() for entry in session.staged)
        references.update(cell for cell in staged if cell is not None)
        for history in self.histories.values():
            references.update(history.cells())
        references.update(self.given_up)
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
    kind: VolumeKind = VolumeKind.VOLUME


@dataclass(frozen=True, slots=True)
class SessionPicture:
    """One session as a pool shows it."""

    staged_count: int
    through_ns: Mapping[int, int]
    committed_through_ns: int


@dataclass(frozen=True, slots=True)
class HistoryPicture:
    """One history as a pool shows it: its times, (number, from_ns, until_ns) of each stay, and how much is kept."""

    first_ns: int
    through_ns: int
    rewound_ns: int | None
    stays: tuple[tuple[int, int, int | None], ...]
    entry_count: int
    track_count: int


@dataclass(frozen=True, slots=True)
class Picture:
    """What a pool shows through its public methods."""

    volumes: Mapping[int, VolumePicture]
    documents: Mapping[str, bytes]
    sessions: Mapping[int, SessionPicture]
    used_track_count: int
    histories: Mapping[int, HistoryPicture] = field(default_factory=dict)
