"""A `CopiesWorld` whose sessions remember: images of the past, going back to it, giving it up."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import ConflictError, NotFoundError, PoolFullError, RefusedError
from isochrone.model.records import RECORD_DTYPE, RecordKind
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history_keeper import HistoryGivenUp
from isochrone.testing.store_model_copies import Documents
from isochrone.testing.store_model_history import HistoryModel
from support.copies_world import CopiesWorld
from support.store_world import TRACK

Steps = Generator[Callable[[], None], None, Any]
Row = tuple[tuple[int, int, int, int, RecordKind], bytes]
"""Record and payload."""
REWIND_DOCUMENT = "rewind"


@dataclass
class Making:
    """An image or a rewind under way.

    Attributes:
        is_possible: whether the model has all that is asked for, now.
        change_model: does the same to the model, given what the generator returned.
        names: of the volumes to be made.
        session, shape: whose past; where that began, and which stays there were, when the making was begun.
        document: of a rewind: what is in REWIND_DOCUMENT once it is done.
    """

    steps: Steps
    is_possible: Callable[[], bool]
    change_model: Callable[[Any], None]
    names: list[str]
    session: int
    shape: object
    call: Callable[[], None] | None = None
    document: bytes = b""


class HistoryWorld(CopiesWorld):
    """One pool of sessions with a past through many lives."""

    model: HistoryModel
    pool_track_count = 64

    def __init__(self, seed: int = 0) -> None:
        self._making: Making | None = None
        self._gave_up: list[HistoryGivenUp] = []
        super().__init__(seed)

    def _make_model(self) -> HistoryModel:
        return HistoryModel(TRACK)

    # Histories

    def history_begin(self, session: int, numbers: Sequence[int], documents: Documents) -> None:
        """Keep more volumes; not while their session goes back."""
        if self._making is not None and self._making.document:
            return
        self._do_and_log(
            lambda: self.model.history_begin(session, numbers, documents),
            lambda: self.pool.history_begin(session, numbers, documents),
        )

    def history_end(self, session: int, number: int) -> None:
        self._do_and_log(
            lambda: self.model.history_end(session, number), lambda: self.pool.history_end(session, number)
        )

    def history_drop(self, session: int, documents: Documents) -> None:
        self._do_and_log(
            lambda: self.model.history_drop(session, documents),
            lambda: self.pool.history_drop(session, documents),
        )

    def _do_and_log(self, change_model: Callable[[], None], call: Callable[[], None]) -> None:
        """What changes something is in the log file when it returns; what changes nothing leaves it as it is."""
        before = self.model.state
        if self._do(change_model, call) and self.model.state != before:
            self.model.logged()

    def history_release(self, session: int, through_ns: int) -> None:
        """Give up the oldest; while an image is being made nothing goes."""
        if self._making is None:
            self._do(
                lambda: self.model.history_release(session, through_ns),
                lambda: self.pool.history_release(session, through_ns),
            )

    def step_sync(self) -> None:
        """A sync begins with dropping the tracks of what was given up."""
        if not self.sync_is_running and self.model.state.given_up:
            self.model.give_back()
        super().step_sync()

    # When the pool is full

    def _open(self) -> None:
        super()._open()
        self._gave_up = []
        self.pool._histories.on_given_up = self._gave_up.append

    def _tell_inline_sync(self, sync_count: int, change_model: Callable[[], None] | None) -> None:
        """An operation may also have given history up, before it changed anything."""
        gave_back = bool(self.model.state.given_up) and not self.pool._state.given_up.record_count
        if self._gave_up or gave_back:
            if change_model is not None:
                self.model.undo()
            self._tell_given_up()
            if change_model is not None:
                change_model()
        super()._tell_inline_sync(sync_count, change_model)

    def _tell_given_up(self) -> None:
        """Let the model live through what the pool gave up for want of room: what was given up before goes first."""
        while self._gave_up:
            given_up = self._gave_up.pop(0)
            self.full_count += 1
            if self.model.state.given_up:
                self.model.give_back()
            if given_up.new_first_ns is None:
                self.model.history_drop(given_up.session, {})
            else:
                self.model.history_release(given_up.session, given_up.new_first_ns)
        if self.model.state.given_up and not self.pool._state.given_up.record_count:
            self.model.give_back()

    def crash(self, *, power_loss: bool, crash_in_open: int = 0, error_in_open: str = "") -> None:
        self._tell_given_up()
        super().crash(power_loss=power_loss, crash_in_open=crash_in_open, error_in_open=error_in_open)

    # Images and rewinds, step by step

    def begin_image(
        self, session: int, at_ns: int, names: Mapping[int, str], kind: VolumeKind, documents: Documents
    ) -> None:
        """Begin to make the image of volumes at a time; refused if, and only if, that is not kept."""
        taken = {volume.name for volume in self.model.state.volumes.values()}

        def is_possible() -> bool:
            history = self.model.state.histories.get(session)
            return history is not None and all(history.covering(number, at_ns) for number in names)

        def change_model(numbers: list[int]) -> None:
            self.model.history_image(session, at_ns, names, numbers, kind, documents)

        if self._making is None and not taken & set(names.values()):
            self._begin(
                session,
                lambda: self.pool.history_image(session, at_ns, names, kind, documents),
                is_possible,
                change_model,
                list(names.values()),
            )

    def begin_rewind(self, session: int, at_ns: int) -> None:
        """Begin to go back; refused if, and only if, that time is not kept. A document tells whether it was done."""
        documents = {REWIND_DOCUMENT: self.new_bytes(8)}

        def is_possible() -> bool:
            history = self.model.state.histories.get(session)
            return history is not None and history.first_ns <= at_ns <= history.through_ns

        def change_model(changed: Mapping[int, NDArray[np.int64]] | None) -> None:
            if changed is not None:
                told = {number: set(tracks.tolist()) for number, tracks in changed.items()}
                numbers = self.model.rewindable(session, at_ns)
                assert told == {n: self.model.changed_since(session, n, at_ns) for n in numbers}
            self.model.history_rewind(session, at_ns, documents)

        if self._making is None and self._may_rewind(session, at_ns):
            self._begin(
                session,
                lambda: self.pool.history_rewind(session, at_ns, documents),
                is_possible,
                change_model,
                [],
            )
            self._note_document(documents[REWIND_DOCUMENT])

    def _note_document(self, value: bytes) -> None:
        if self._making is not None:
            self._making.document = value

    def _may_rewind(self, session: int, at_ns: int) -> bool:
        """Whether no stay began or ended behind the time: sessions refuse to go back behind that."""
        history = self.model.state.histories.get(session)
        return history is None or all(max(s.from_ns, s.until_ns or 0) <= at_ns for s in history.stays)

    def _begin(
        self,
        session: int,
        begin: Callable[[], Steps],
        is_possible: Callable[[], bool],
        change_model: Callable[[Any], None],
        names: list[str],
    ) -> None:
        try:
            steps = begin()
        except (RefusedError, NotFoundError):
            assert not is_possible(), "an instant that is kept was refused"
            return
        assert is_possible(), "an instant that is not kept was not refused"
        self._making = Making(steps, is_possible, change_model, names, session, self._shape(session))

    @property
    def is_making(self) -> bool:
        return self._making is not None

    def step_making(self) -> None:
        """Make the next call of an image or a rewind, or do what comes after it."""
        making = self._making
        if making is None:
            return
        if making.call is not None:
            call, making.call = making.call, None
            call()
            return
        if making.names:
            self._creating = making.names, making.change_model
        sync_count = self.pool.stats().sync_count
        try:
            self._guard(lambda: self._advance_making(making))
        except (ConflictError, RefusedError, NotFoundError):
            is_changed = making.shape != self._shape(making.session)
            assert is_changed or not making.is_possible(), "an image was given up for no reason"
            self._making = None
        except PoolFullError:
            self.full_count += 1
            self._making = None
        self._tell_inline_sync(sync_count, None)
        self._creating = None
        if self._making is None:
            self.check_now()

    def _advance_making(self, making: Making) -> None:
        try:
            making.call = next(making.steps)
        except StopIteration as end:
            assert making.is_possible(), "an image of a time that is not kept was made"
            self._making = None
            made = end.value
            self._tell_given_up()
            making.change_model([volume.number for volume in made] if making.names else made)
            self.model.logged()

    def whole_making(self) -> None:
        """Go on to the end."""
        life = self.open_count
        while self.is_making and self.open_count == life:
            self.step_making()

    def _shape(self, session: int) -> object:
        history = self.model.state.histories.get(session)
        picture = history.picture() if history else None
        return picture and (picture.first_ns, picture.stays, picture.rewound_ns)

    def _find_new_volumes(self) -> None:
        """Tell the model also of a rewind that the process did not live to report."""
        super()._find_new_volumes()
        making, self._making = self._making, None
        if (
            making is not None
            and making.document
            and self.pool.documents.get(REWIND_DOCUMENT) == making.document
        ):
            making.change_model(None)

    def close_and_open(self) -> None:
        super().close_and_open()
        self._making = None

    # Late records

    def stage_late(
        self, session: int, source: int, shapes: list[tuple[int, int, int, bool]], late: int, *, commit: bool
    ) -> None:
        """Stage records of which the device takes one only after the others (S6); perhaps commit in between."""
        rows = [self._row(*shape) for shape in shapes]
        self.time_ns += 10
        waiting = rows[late % len(rows)]
        before_ns = int(waiting[0][0])
        life = self.open_count
        if not self._stage_rows(session, source, [row for row in rows if row is not waiting], before_ns):
            return
        if commit and self.open_count == life:
            self.commit(session, before_ns - 1)
        if self.open_count == life:
            self._stage_rows(session, source, [waiting], None)

    def _row(self, volume: int, track: int, count: int, is_zero: bool) -> Row:
        self.time_ns += 10
        kind = RecordKind.ZERO if is_zero else RecordKind.DATA
        return (self.time_ns, volume, track, count, kind), b"" if is_zero else self.new_bytes(count * TRACK)

    def _stage_rows(self, session: int, source: int, rows: list[Row], before_ns: int | None) -> bool:
        records = np.array([record for record, _ in rows], RECORD_DTYPE)
        payload = b"".join(data for _, data in rows)
        entries = [
            (time_ns, volume, track + at, data[at * TRACK : (at + 1) * TRACK] or None)
            for (time_ns, volume, track, count, _), data in rows
            for at in range(count)
        ]
        through_ns = self.time_ns
        known_ns = self.pool.staged_through_ns(session, source)
        promised_ns = through_ns if before_ns is None else max(known_ns, min(through_ns, before_ns - 1))
        done = self._do(
            lambda: self.model.stage(session, source, promised_ns, entries),
            lambda: self.pool.stage(session, source, through_ns, records, payload, before_ns=before_ns),
        )
        return bool(done)
