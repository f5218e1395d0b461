"""Histories in the store's model: an image at a time is a base and every entry up to then, replayed one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from isochrone.model.volume_kind import VolumeKind
from isochrone.testing.store_model_copies import CopiesModel, Documents, Extent
from isochrone.testing.store_states import Cell, HistoryState, StagedTrack, StagingState, Stay, VolumeState


class HistoryModel(CopiesModel):
    """A CopiesModel whose sessions remember."""

    def history_begin(self, session: int, numbers: Sequence[int], documents: Documents) -> None:
        """From now on the past of these volumes is kept; of others that are kept already it goes on."""
        now_ns = self.state.sessions.get(session, StagingState()).committed_through_ns
        old = self.state.histories.get(session, HistoryState(now_ns, now_ns))
        kept = {stay.number for stay in old.stays if stay.until_ns is None}
        new = tuple(
            Stay(number, self.state.volumes[number], now_ns)
            for number in dict.fromkeys(numbers)
            if number not in kept
        )
        if new:
            history = replace(old, stays=old.stays + new, through_ns=max(old.through_ns, now_ns))
            self._push_histories({**self.state.histories, session: history}, documents=documents)
        else:
            self._push(documents=self._with_documents(documents))

    def history_end(self, session: int, number: int) -> None:
        """The volume leaves: its past ends here, and is kept as long as that of the others."""
        histories = dict(self.state.histories)
        given_up = self._pass(histories, session, _left(histories[session], number))
        self._push_histories(histories, given_up)

    def history_drop(self, session: int, documents: Documents) -> None:
        """Nothing of the past is kept any more; its tracks come back later."""
        histories = dict(self.state.histories)
        gone = histories.pop(session, None)
        given_up = tuple(_entry_cells(gone.stays)) if gone else ()
        self._push_histories(histories, given_up, documents)

    def give_back(self) -> None:
        """The tracks of what was given up are dropped."""
        self._push_state(replace(self.state, given_up=()))

    def history_release(self, session: int, through_ns: int) -> None:
        """The past before `through_ns` is given up; what was found there is the base from now on."""
        histories = dict(self.state.histories)
        old = histories[session]
        through_ns = min(through_ns, old.through_ns)
        given_up: tuple[Cell, ...] = ()
        if old.rewound_ns is not None and through_ns > old.rewound_ns:
            old, given_up = _without_future(old)
        through_ns = min(through_ns, old.through_ns)
        stays = tuple(
            replace(
                stay,
                base=self.replayed(stay, through_ns),
                entries=tuple(entry for entry in stay.entries if entry.time_ns > through_ns),
            )
            for stay in old.stays
        )
        new = replace(old, first_ns=max(old.first_ns, through_ns), stays=stays)
        given_up += self._pass(histories, session, new)
        self._push_histories(histories, given_up)

    def replayed(self, stay: Stay, at_ns: int) -> VolumeState:
        """Return what the volume was at a time of its stay."""
        entries = [replace(entry, volume=0) for entry in stay.entries if entry.time_ns <= at_ns]
        return self._linked({0: stay.base}, entries)[0]

    def image(self, session: int, number: int, at_ns: int) -> VolumeState | None:
        """Return what a volume was at a time, None when that is not kept."""
        stay = self.state.histories[session].covering(number, at_ns)
        return self.replayed(stay, at_ns) if stay else None

    def rewindable(self, session: int, at_ns: int) -> list[int]:
        """Return the volumes that a rewind to a time concerns: kept now, and then."""
        stays = self.state.histories[session].stays
        return [stay.number for stay in stays if stay.until_ns is None and stay.from_ns <= at_ns]

    def history_image(
        self,
        session: int,
        at_ns: int,
        names: Mapping[int, str],
        numbers: Sequence[int],
        kind: VolumeKind,
        documents: Documents,
    ) -> None:
        """New volumes `numbers`: what the volumes that are the keys of `names` were at `at_ns`."""
        volumes = dict(self.state.volumes)
        for (old, name), number in zip(names.items(), numbers, strict=True):
            image = self.image(session, old, at_ns)
            assert image is not None, "an image of a time that is not kept was made"
            volumes[number] = replace(image, name=name, kind=kind)
        self._push(volumes, self._with_documents(documents))

    def history_rewind(self, session: int, at_ns: int, documents: Documents) -> None:
        """All kept volumes are what they were at `at_ns`; what is kept behind it stays until the next commit."""
        state, volumes = self.state, dict(self.state.volumes)
        for number in self.rewindable(session, at_ns):
            image = self.image(session, number, at_ns)
            assert image is not None
            volumes[number] = replace(volumes[number], tracks=image.tracks)
        sessions = dict(state.sessions)
        if session in sessions:
            sessions[session] = replace(sessions[session], committed_through_ns=at_ns)
        histories = {**state.histories, session: replace(state.histories[session], rewound_ns=at_ns)}
        self._push_state(
            replace(
                state,
                volumes=volumes,
                sessions=sessions,
                histories=histories,
                documents=self._with_documents(documents),
            )
        )

    def changed_since(self, session: int, number: int, at_ns: int) -> set[int]:
        """Return the tracks of a volume that differ from its image, or that an entry behind the time is of."""
        stay = self.state.histories[session].covering(number, at_ns)
        assert stay is not None
        now, then = self.state.volumes[number].tracks, self.replayed(stay, at_ns).tracks
        differ = {track for track in {*now, *then} if now.get(track) is not then.get(track)}
        return differ | {entry.track for entry in stay.entries if entry.time_ns > at_ns}

    # What else changes histories

    def commit(self, session: int, through_ns: int) -> None:
        """Link entries, and keep those of volumes whose past is kept."""
        staged = self.state.sessions[session].staged
        super().commit(session, through_ns)
        history = self.state.histories.get(session)
        if history is None:
            return
        given_up: tuple[Cell, ...] = ()
        if history.rewound_ns is not None and through_ns > history.rewound_ns:
            history, given_up = _without_future(history)
        linked = sorted((e for e in staged if e.time_ns <= through_ns), key=lambda entry: entry.time_ns)
        stays = tuple(
            stay
            if stay.until_ns is not None
            else replace(
                stay, entries=stay.entries + tuple(entry for entry in linked if entry.volume == stay.number)
            )
            for stay in history.stays
        )
        committed_ns = self.state.sessions[session].committed_through_ns
        history = replace(history, stays=stays, through_ns=max(history.through_ns, committed_ns))
        self._amend(session, history, given_up)

    def resize_volume(self, number: int, size_bytes: int) -> None:
        """What the volume was is kept, what it will be is not."""
        super().resize_volume(number, size_bytes)
        self._leave_all([number])

    def delete_volume(self, number: int) -> None:
        """The same."""
        super().delete_volume(number)
        self._leave_all([number])

    def delete_together(self, numbers: Sequence[int], documents: Documents) -> None:
        """The same."""
        super().delete_together(numbers, documents)
        self._leave_all(numbers)

    def establish(
        self, source: int, target: int, extents: Sequence[Extent] | None, documents: Documents
    ) -> None:
        """The same of the target."""
        super().establish(source, target, extents, documents)
        self._leave_all([target])

    def _leave_all(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            for session, history in self.state.histories.items():
                self._amend(session, _left(history, number), ())

    def _amend(self, session: int, history: HistoryState, given_up: tuple[Cell, ...]) -> None:
        """The newest state has this history: it belongs to the operation that made the state."""
        sequence, state = self._history[-1]
        histories = {**state.histories, session: history}
        after = replace(state, histories=histories, given_up=state.given_up + given_up)
        self._history[-1] = (sequence, after)

    def _pass(
        self, histories: dict[int, HistoryState], session: int, history: HistoryState
    ) -> tuple[Cell, ...]:
        """Set a session's history without stays that ended before it begins; without any it is gone. Returns its cells."""
        first_ns = history.first_ns
        stays = tuple(s for s in history.stays if s.until_ns is None or s.until_ns > first_ns)
        gone = [stay for stay in history.stays if stay not in stays]
        if stays:
            histories[session] = replace(history, stays=stays)
        else:
            histories.pop(session, None)
        return tuple(_entry_cells(gone))

    def _push_histories(
        self,
        histories: Mapping[int, HistoryState],
        given_up: tuple[Cell, ...] = (),
        documents: Documents | None = None,
    ) -> None:
        changed = self.state.documents if documents is None else self._with_documents(documents)
        self._push_state(
            replace(
                self.state,
                histories=histories,
                given_up=self.state.given_up + given_up,
                documents=changed,
            )
        )


def _left(history: HistoryState, number: int) -> HistoryState:
    stays = tuple(
        replace(stay, until_ns=history.through_ns)
        if stay.number == number and stay.until_ns is None
        else stay
        for stay in history.stays
    )
    return replace(history, stays=stays)


def _without_future(history: HistoryState) -> tuple[HistoryState, tuple[Cell, ...]]:
    """Return a history that ends where the volumes went back to, and the cells of what was behind."""
    assert history.rewound_ns is not None
    early: list[Stay] = []
    late: list[StagedTrack] = []
    for stay in history.stays:
        early.append(replace(stay, entries=tuple(e for e in stay.entries if e.time_ns <= history.rewound_ns)))
        late += [entry for entry in stay.entries if entry.time_ns > history.rewound_ns]
    after = replace(history, stays=tuple(early), through_ns=history.rewound_ns, rewound_ns=None)
    return after, tuple(entry.cell for entry in late if entry.cell is not None)


def _entry_cells(stays: Sequence[Stay]) -> Iterator[Cell]:
    for stay in stays:
        yield from (entry.cell for entry in stay.entries if entry.cell is not None)
