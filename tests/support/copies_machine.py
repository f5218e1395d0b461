"""The store's state machine with point-in-time copies: of copies, together, onto each other, back, and gone."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from isochrone.model.volume_kind import VolumeKind
from isochrone.testing.store_model_copies import Documents
from support.busy_machine import BusyMachine
from support.copies_world import CopiesWorld
from support.store_machine import PICKS, TRACKS

KINDS = st.sampled_from([VolumeKind.SNAPSHOT, VolumeKind.SNAPSHOT, VolumeKind.COPY, VolumeKind.IMAGE])
MARKS = {VolumeKind.SNAPSHOT: "@", VolumeKind.COPY: "-", VolumeKind.IMAGE: "~"}
DOCUMENTS: st.SearchStrategy[Documents] = st.dictionaries(
    st.sampled_from(["copy/s", "relation/r"]), st.none() | st.binary(max_size=20), max_size=2
)
COUNTS = st.one_of(st.integers(1, 6), st.sampled_from([1024, 1030, 2048]))


def documents_now(world: CopiesWorld, documents: Documents) -> Documents:
    """Return changes that can be made: only what is there is deleted."""
    held = world.model.state.documents
    return {key: value for key, value in documents.items() if value is not None or key in held}


class CopiesMachine(BusyMachine):
    """Everything that a BusyMachine does, and copies."""

    world: CopiesWorld

    def make_world(self, seed: int) -> CopiesWorld:
        return CopiesWorld(seed)

    def pick_any(self, index: int) -> int:
        """A volume or a snapshot."""
        numbers = self.world.numbers()
        return numbers[index % len(numbers)]

    def has_any(self) -> bool:
        return bool(self.world.numbers())

    @precondition(has_any)
    @rule(
        indexes=st.lists(PICKS, min_size=1, max_size=3),
        kind=KINDS,
        mark=st.sampled_from(["s", "t"]),
        documents=DOCUMENTS,
    )
    def create_copies(self, indexes: list[int], kind: VolumeKind, mark: str, documents: Documents) -> None:
        taken = {volume.name for volume in self.world.model.state.volumes.values()}
        sources = {self.pick_any(index) for index in indexes}
        copies = {
            f"{self.world.name(source).replace('@', '-').replace('~', '-')}{MARKS[kind]}{mark}": (
                source,
                kind,
            )
            for source in sorted(sources)
        }
        if not taken & set(copies) and len(taken) < 9:
            self.world.create_copies(copies, documents_now(self.world, documents))

    @precondition(has_any)
    @rule(indexes=st.sets(PICKS, min_size=1, max_size=3), documents=DOCUMENTS)
    def delete_volumes(self, indexes: set[int], documents: Documents) -> None:
        numbers = sorted({self.pick_any(index) for index in indexes})
        self.world.delete_volumes(numbers, documents_now(self.world, documents))

    @precondition(BusyMachine.has_volumes)
    @rule(of=PICKS, onto=PICKS, documents=DOCUMENTS)
    def establish_all(self, of: int, onto: int, documents: Documents) -> None:
        """A flash copy of the whole, a refresh, or a restore: to the store they are one."""
        source, target = self.pick_any(of), self.pick(onto)
        self.world.establish(source, target, None, documents_now(self.world, documents))

    @precondition(BusyMachine.has_volumes)
    @rule(
        of=PICKS,
        onto=PICKS,
        shapes=st.lists(st.tuples(TRACKS, TRACKS, COUNTS), min_size=1, max_size=3),
        documents=DOCUMENTS,
    )
    def establish_extents(
        self, of: int, onto: int, shapes: list[tuple[int, int, int]], documents: Documents
    ) -> None:
        source, target = self.pick_any(of), self.pick(onto)
        extents = []
        for from_track, to_track, count in shapes:
            from_count, to_count = self.track_count(source), self.track_count(target)
            from_track, to_track = from_track % from_count, to_track % to_count
            extents.append((from_track, to_track, min(count, from_count - from_track, to_count - to_track)))
        self.world.establish(source, target, extents, documents_now(self.world, documents))

    @precondition(has_any)
    @rule(index=PICKS)
    def change_a_snapshot(self, index: int) -> None:
        number = self.pick_any(index)
        if self.world.model.state.volumes[number].kind == VolumeKind.SNAPSHOT:
            self.world.check_refused(number)

    @precondition(has_any)
    @rule(a=PICKS, b=PICKS, first=TRACKS, count=st.none() | COUNTS)
    def diff(self, a: int, b: int, first: int, count: int | None) -> None:
        one, other = self.pick_any(a), self.pick_any(b)
        track_count = max(self.track_count(one), self.track_count(other))
        first = 0 if count is None else first % track_count
        end = track_count if count is None else min(first + count, track_count)
        self.world.check_diff(one, other, first, end)

    @precondition(has_any)
    @rule(indexes=st.sets(PICKS, min_size=1, max_size=3))
    def space(self, indexes: set[int]) -> None:
        self.world.check_space(sorted({self.pick_any(index) for index in indexes}))
