"""What a source's tracks will hold is what a commit of everything staged gives, whatever was committed or dropped before."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from xxhash import xxh3_128_digest

from isochrone.link.messages import TRACK_HASH_BYTES
from isochrone.model.records import RecordKind
from isochrone.store.newest import NewestEntries
from isochrone.testing.sim_disk import SimDisk
from support.store import TRACK, new_pool, records, tags, tracks

TRACK_COUNT = 6
SESSION = 1
SOURCES = (0, 1)
SEED = 7

sources = st.sampled_from(SOURCES)
runs = st.integers(0, TRACK_COUNT - 1).flatmap(
    lambda track: st.tuples(st.just(track), st.integers(1, min(3, TRACK_COUNT - track)))
)
ages = st.integers(0, 12)


class NewestMachine(RuleBasedStateMachine):
    """Two sources with a volume each; either may be far behind what is committed. An index of each is kept and reused."""

    def __init__(self) -> None:
        super().__init__()
        _, self.pool = new_pool(SimDisk(seed=1), track_count=512)
        self.numbers = [
            self.pool.create_volume(f"v{source}", TRACK_COUNT * TRACK).number for source in SOURCES
        ]
        self.through_ns = [1, 1]
        self.staged: list[tuple[int, int, int, int]] = []  # time, source, track, tag, in order of arrival
        self.indexes: dict[int, NewestEntries] = {}
        self.tag = 0

    @property
    def latest_ns(self) -> int:
        return max(self.through_ns)

    def tables(self, source: int) -> list[int]:
        return tags(self.pool, f"v{source}", TRACK_COUNT)

    @rule(source=sources, run=runs, later=st.integers(0, 4), is_data=st.booleans())
    def stage(self, source: int, run: tuple[int, int], later: int, is_data: bool) -> None:
        """The next record of a source; the tracks of an index that it concerns are asked for no more."""
        time_ns = self.through_ns[source] = self.through_ns[source] + later
        self.tag = self.tag % 250 + 1
        kind = RecordKind.DATA if is_data else RecordKind.ZERO
        payload = tracks(*[self.tag] * run[1]) if is_data else b""
        self.pool.stage(
            SESSION, source, time_ns, records((time_ns, self.numbers[source], *run, kind)), payload
        )
        self.staged += [
            (time_ns, source, track, self.tag if is_data else 0) for track in range(run[0], sum(run))
        ]
        self.indexes.pop(source, None)

    @rule(source=sources)
    def take_an_index(self, source: int) -> None:
        self.indexes[source] = self.pool.stager.newest_entries(SESSION, source)

    @rule(age=ages)
    def commit(self, age: int) -> None:
        """Also to where was committed already, or before it."""
        through_ns = max(0, self.latest_ns - age)
        self.pool.commit(SESSION, through_ns)
        self.staged = [entry for entry in self.staged if entry[0] > through_ns]

    @rule(source=sources, age=ages)
    def discard_source(self, source: int, age: int) -> None:
        after_ns = max(0, self.through_ns[source] - age)
        self.pool.discard_source(SESSION, source, after_ns)
        self.staged = [entry for entry in self.staged if entry[1] != source or entry[0] <= after_ns]

    @rule(source=sources)
    def discard_volume(self, source: int) -> None:
        self.pool.discard_volume(SESSION, self.numbers[source])
        self.staged = [entry for entry in self.staged if entry[1] != source]

    @rule(age=ages)
    def compact(self, age: int) -> None:
        """What will be committed at last stays the same."""
        self.pool.compact(SESSION, max(0, self.latest_ns - age), self.latest_ns)

    @invariant()
    def an_index_says_what_committing_everything_would_give(self) -> None:
        fresh = [(source, self.pool.stager.newest_entries(SESSION, source)) for source in SOURCES]
        for source, index in [*self.indexes.items(), *fresh]:
            if not index.is_valid:
                continue
            expected = self.tables(source)
            for _, other, track, tag in self.staged:  # of one source, in the order of time
                if other == source:
                    expected[track] = tag
            found = self.pool.stager.hash_newest(index, self.numbers[source], np.arange(TRACK_COUNT), SEED)
            assert found is not None
            hashes = [
                found.hashes[at : at + TRACK_HASH_BYTES]
                for at in range(0, TRACK_COUNT * TRACK_HASH_BYTES, TRACK_HASH_BYTES)
            ]
            assert hashes == [xxh3_128_digest(tracks(tag), seed=SEED) for tag in expected]


TestNewest = NewestMachine.TestCase
TestNewest.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
