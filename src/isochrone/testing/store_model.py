"""A slow, obvious oracle for a pool: what it holds, and what it may hold after a crash.

The model keeps a *state* per completed operation: volumes, documents, sessions, as plain values. The order of
states is the order of the pool's log, so that after any crash the pool must show one of them, none older than
the floor:

- after the death of the process, none before the last `log_write`;
- after power loss, none before the start of the last completed `sync`, or the one that the last crash left;
- after the death of the process whose datasync had failed, what a power loss allows.

Contents are modelled by *cells*. A cell is what one track is mapped to: writing a mapped track in place adds
a version to its cell; unmapping and mapping again, linking a staged track, and writing a track that a copy of
the volume shares, in this state or in one that power loss could bring back, give a new cell. A state maps
tracks to cells. So a recovered state says which cells are to be seen, and a cell says which bytes: after the
death of the process any version since the last `log_write` (a write that was not acknowledged may have gone to a fresh
track, and be lost with the entry that points there); after power loss any version since the last sync, or a mixture of
them by sector, because an in-place overwrite may tear. It says as clearly what must not be seen: bytes of another
cell. A track that was handed out again too early, or linked before its data was durable, shows a foreign
cell's bytes and fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from isochrone.model.volume_kind import VolumeKind
from isochrone.store.disk import SECTOR_SIZE_BYTES
from isochrone.testing.store_states import (
    Cell,
    Picture,
    SessionPicture,
    StagedTrack,
    StagingState,
    State,
    VolumeState,
)

INITIAL_SEQUENCE: Final = 0


class StoreModel:
    """The states a pool went through, and checks of what it shows against them."""

    def __init__(self, track_size_bytes: int) -> None:
        self.track_size_bytes = track_size_bytes
        self.sequence = INITIAL_SEQUENCE
        self._history: list[tuple[int, State]] = [(INITIAL_SEQUENCE, State())]
        self._logged_sequence = INITIAL_SEQUENCE
        self._durable_sequence = INITIAL_SEQUENCE
        self._sync_sequence: int | None = None
        self._torn_since: int | None = None
        self._undo: list[Cell] = []

    @property
    def state(self) -> State:
        """The newest state."""
        return self._history[-1][1]

    # Operations: each makes a new state. Call before the pool does it; `undo` when the pool refuses.

    def create_volume(self, number: int, name: str, size_bytes: int) -> None:
        """A new empty volume."""
        self._push(volumes={**self.state.volumes, number: VolumeState(name, size_bytes)})

    def copy_volume(self, source: int, number: int, name: str) -> None:
        """A new volume that maps to the same cells as `source`."""
        self._push_volume(number, replace(self.state.volumes[source], name=name, kind=VolumeKind.COPY))

    def delete_volume(self, number: int) -> None:
        """The volume and its tracks are gone; what is staged for it stays until a commit finds no volume."""
        self._push(volumes={key: volume for key, volume in self.state.volumes.items() if key != number})

    def resize_volume(self, number: int, size_bytes: int) -> None:
        """Tracks beyond a smaller size are unmapped; what is cut from the last one reads as zeros later."""
        volume = self.state.volumes[number]
        count = -(-size_bytes // self.track_size_bytes)
        tracks = {track: cell for track, cell in volume.tracks.items() if track < count}
        self._push_volume(number, replace(volume, size_bytes=size_bytes, tracks=tracks))

    def write(self, number: int, offset: int, data: bytes) -> bytes:
        """Write bytes; return the whole-track image that the write makes of the tracks it touches."""
        size = self.track_size_bytes
        first, last = offset // size, -(-(offset + len(data)) // size)
        image = bytearray(self._content(number, range(first, last)))
        image[offset - first * size : offset - first * size + len(data)] = data
        self._store(number, {first + i: bytes(image[i * size : (i + 1) * size]) for i in range(last - first)})
        return bytes(image)

    def zero(self, number: int, offset: int, length: int, *, allocate: bool) -> None:
        """Zero bytes: whole tracks are unmapped, or mapped and filled with zeros; partial ones are written.

        A partial edge of an unmapped track stays unmapped without `allocate`: it reads as zeros already.
        """
        size = self.track_size_bytes
        volume = self.state.volumes[number]
        end = offset + length
        images: dict[int, bytes] = {}
        unmapped: set[int] = set()
        for track in range(offset // size, -(-end // size)):
            start_at, end_at = max(offset - track * size, 0), min(end - track * size, size)
            is_whole = start_at == 0 and end_at == min(size, volume.size_bytes - track * size)
            if is_whole and not allocate:
                unmapped.add(track)
            elif track in volume.tracks or allocate:
                image = bytearray(self._content(number, range(track, track + 1)))
                image[start_at:end_at] = bytes(end_at - start_at)
                images[track] = bytes(image)
        self._store(number, images, unmapped)

    def put_document(self, key: str, value: bytes) -> None:
        """Set one document."""
        self._push(documents={**self.state.documents, key: value})

    def delete_document(self, key: str) -> None:
        """Remove one document."""
        self._push(documents={name: value for name, value in self.state.documents.items() if name != key})

    def stage(
        self,
        session: int,
        source: int,
        through_ns: int,
        entries: Sequence[tuple[int, int, int, bytes | None]],
    ) -> None:
        """Keep (time_ns, volume, track, image or None) entries for a later commit."""
        before = self.state.sessions.get(session, StagingState())
        sequence = self.sequence + 1
        staged = tuple(
            StagedTrack(time_ns, volume, track, None if image is None else Cell([(sequence, image)]))
            for time_ns, volume, track, image in entries
        )
        after = replace(
            before, staged=before.staged + staged, through_ns={**before.through_ns, source: through_ns}
        )
        self._push(sessions={**self.state.sessions, session: after})

    def commit(self, session: int, through_ns: int) -> None:
        """Link entries with time <= through_ns in time order, the last one of a track winning.

        Entries of volumes that are gone, or of tracks beyond a volume's end, are dropped.
        """
        before = self.state.sessions[session]
        linked = tuple(entry for entry in before.staged if entry.time_ns <= through_ns)
        volumes = self._linked(self.state.volumes, linked)
        after = replace(
            before,
            staged=tuple(entry for entry in before.staged if entry.time_ns > through_ns),
            committed_through_ns=max(before.committed_through_ns, through_ns),
        )
        self._push(volumes=volumes, sessions={**self.state.sessions, session: after})

    def _linked(
        self, volumes: Mapping[int, VolumeState], entries: Iterable[StagedTrack]
    ) -> dict[int, VolumeState]:
        """Return `volumes` after `entries` in the order of their times, the later ones in the order they came."""
        linked = dict(volumes)
        for entry in sorted(entries, key=lambda entry: entry.time_ns):
            volume = linked.get(entry.volume)
            if volume is None or entry.track * self.track_size_bytes >= volume.size_bytes:
                continue
            tracks = dict(volume.tracks)
            tracks.pop(entry.track, None)
            if entry.cell is not None:
                tracks[entry.track] = entry.cell
            linked[entry.volume] = replace(volume, tracks=tracks)
        return linked

    def discard(self, session: int, after_ns: int) -> None:
        """Forget entries with time > after_ns; every source stands at `after_ns` at most."""
        before = self.state.sessions[session]
        after = replace(
            before,
            staged=tuple(entry for entry in before.staged if entry.time_ns <= after_ns),
            through_ns={source: min(through, after_ns) for source, through in before.through_ns.items()},
        )
        self._push(sessions={**self.state.sessions, session: after})

    def end_session(self, session: int) -> None:
        """Forget the session."""
        self._push(sessions={key: value for key, value in self.state.sessions.items() if key != session})

    def undo(self) -> None:
        """The pool refused the last operation and must have changed nothing."""
        del self._history[-1]
        for cell in self._undo:
            del cell.versions[-1]
        self._undo = []

    # What makes states survive

    def logged(self) -> None:
        """`log_write` returned."""
        self._logged_sequence = self.sequence

    def sync_started(self) -> None:
        """A sync was first advanced."""
        self._sync_sequence = self.sequence

    def sync_abandoned(self) -> None:
        """The sync in progress will not complete."""
        self._sync_sequence = None

    def sync_completed(self) -> None:
        """The sync that was started last is complete: forget what it made impossible."""
        assert self._sync_sequence is not None
        self._make_durable(self._sync_sequence)
        self._sync_sequence = None

    def synced(self) -> None:
        """A sync was begun and completed at once, whatever other one is under way."""
        self._make_durable(self.sequence)

    def _make_durable(self, sequence: int) -> None:
        self._durable_sequence = max(self._durable_sequence, sequence)
        self._logged_sequence = max(self._logged_sequence, self._durable_sequence)
        self._forget_before(self._durable_sequence)

    # Checks

    def check_now(self, picture: Picture) -> None:
        """Assert that the pool shows the newest state, byte for byte."""
        problem = self._mismatch(self.state, picture, self.sequence)
        assert problem is None, problem
        self._settle(self.state, picture, only_unseen=True)

    def check_others(self, picture: Picture, number: int) -> None:
        """The newest operation failed halfway in volume `number`: assert that all else is as it was before it."""
        before = self._history[-2][1]
        volumes = {key: volume for key, volume in before.volumes.items() if key != number}
        shown = {key: volume for key, volume in picture.volumes.items() if key != number}
        others = replace(before, volumes=volumes)
        seen = replace(picture, volumes=shown, used_track_count=len(others.cells()))
        problem = self._mismatch(others, seen, self.sequence)
        assert problem is None, problem

    def crashed_inside_operation(self) -> None:
        """The process died inside the newest operation: its in-place writes may be torn."""
        self._torn_since = self.sequence - 1

    def reopened(self, picture: Picture, *, power_loss: bool) -> None:
        """Assert that the pool shows a state that the crash allows, and go on from that state."""
        floor = self._durable_sequence if power_loss else self._logged_sequence
        version_floor = floor if self._torn_since is None else min(floor, self._torn_since)
        first = max(i for i, (at, _) in enumerate(self._history) if at <= floor)
        problems = []
        for index in range(len(self._history) - 1, first - 1, -1):
            problem = self._mismatch(self._history[index][1], picture, version_floor)
            if problem is None:
                self._continue_from(index, picture, power_loss=power_loss)
                return
            problems.append(f"state {self._history[index][0]}: {problem}")
        raise AssertionError(
            "the reopened pool shows none of the allowed states:\n  " + "\n  ".join(problems)
        )

    def _mismatch(self, state: State, picture: Picture, version_floor: int) -> str | None:
        """Return how `picture` differs from `state`, with any mixture of contents since `version_floor`."""
        expected = {
            number: (v.name, v.kind, v.size_bytes, frozenset(v.tracks)) for number, v in state.volumes.items()
        }
        shown = {number: (v.name, v.kind, v.size_bytes, v.mapped) for number, v in picture.volumes.items()}
        if shown != expected:
            return f"volumes are {shown}, not {expected}"
        if dict(picture.documents) != dict(state.documents):
            shown_documents, wanted = _outlines(picture.documents), _outlines(state.documents)
            return f"documents are {shown_documents}, not {wanted}"
        for number, session in picture.sessions.items():
            want = state.sessions.get(number, StagingState())
            through_ns = {source: want.through_ns.get(source, 0) for source in session.through_ns}
            if session != SessionPicture(len(want.staged), through_ns, want.committed_through_ns):
                return f"session {number} is {session}, not {want}"
        histories = {session: history.picture() for session, history in state.histories.items()}
        if dict(picture.histories) != histories:
            return f"histories are {picture.histories}, not {histories}"
        if picture.used_track_count != len(state.cells()):
            return f"{picture.used_track_count} tracks are in use, not {len(state.cells())}"
        for number, volume in state.volumes.items():
            problem = self._content_mismatch(volume, picture.volumes[number].content, version_floor)
            if problem is not None:
                return f"volume {number}: {problem}"
        return None

    def _content_mismatch(self, volume: VolumeState, content: bytes, version_floor: int) -> str | None:
        size = self.track_size_bytes
        rest = bytearray(content)
        for track, cell in volume.tracks.items():
            shown = content[track * size : (track + 1) * size]
            rest[track * size : track * size + len(shown)] = bytes(len(shown))
            if shown != cell.image and not _is_mixture(shown, cell.since(version_floor)):
                outlines = f"{_outline(shown)}, last {_outline(cell.image)}"
                return f"track {track} shows bytes it was never given: {outlines}"
        if any(rest):
            tracks = sorted({int(at) // size for at in np.flatnonzero(np.frombuffer(rest, dtype=np.uint8))})
            return f"unmapped tracks {tracks} do not read as zeros"
        return None

    def _continue_from(self, index: int, picture: Picture, *, power_loss: bool) -> None:
        del self._history[index + 1 :]
        self.sequence += 1
        state = self.state
        self._history.append((self.sequence, state))
        self._settle(state, picture, only_unseen=not power_loss)
        for entry in (entry for session in state.sessions.values() for entry in session.staged):
            if entry.cell is not None and len(entry.cell.versions) > 1:
                entry.cell.is_unseen = True
        self._make_durable(self.sequence)  # opening makes durable what it found
        self._sync_sequence = None
        self._torn_since = None

    def _settle(self, state: State, picture: Picture, *, only_unseen: bool) -> None:
        """Take what is shown as the content of mapped cells; if it was only seen, not lost, older ones stay."""
        size = self.track_size_bytes
        for number, volume in state.volumes.items():
            for track, cell in volume.tracks.items():
                shown = picture.volumes[number].content[track * size : (track + 1) * size]
                if not only_unseen or cell.is_unseen:
                    cell.versions = [(self.sequence, shown)]
                    cell.is_unseen = False
                elif shown != cell.image:
                    cell.versions.append((self.sequence, shown))

    def _forget_before(self, sequence: int) -> None:
        first = max(i for i, (at, _) in enumerate(self._history) if at <= sequence)
        del self._history[:first]
        for cell in {cell for _, state in self._history for cell in state.cells()}:
            kept = len(cell.since(sequence))
            cell.versions = cell.versions[-kept:]

    def _content(self, number: int, tracks: Iterable[int]) -> bytes:
        volume = self.state.volumes[number]
        zeros = bytes(self.track_size_bytes)
        return b"".join(volume.tracks[track].image if track in volume.tracks else zeros for track in tracks)

    def _store(self, number: int, images: Mapping[int, bytes], unmapped: Iterable[int] = ()) -> None:
        volume = self.state.volumes[number]
        tracks = dict(volume.tracks)
        for track in unmapped:
            tracks.pop(track, None)
        in_place = []
        shared = self._shared_cells()
        for track, image in images.items():
            if track in tracks and tracks[track] not in shared:
                tracks[track].versions.append((self.sequence + 1, image))
                in_place.append(tracks[track])
            else:
                tracks[track] = Cell([(self.sequence + 1, image)])
        self._push_volume(number, replace(volume, tracks=tracks))
        self._undo = in_place

    def _shared_cells(self) -> set[Cell]:
        """Return the cells that more than one track maps to, now or in a state that power loss may bring back.

        They are not overwritten in place.
        """
        return {cell for _, state in self._history for cell, count in state.references().items() if count > 1}

    def _push_volume(self, number: int, volume: VolumeState) -> None:
        self._push(volumes={**self.state.volumes, number: volume})

    def _push(
        self,
        volumes: Mapping[int, VolumeState] | None = None,
        documents: Mapping[str, bytes] | None = None,
        sessions: Mapping[int, StagingState] | None = None,
    ) -> None:
        old = self.state
        self._push_state(
            replace(
                old,
                volumes=old.volumes if volumes is None else volumes,
                documents=old.documents if documents is None else documents,
                sessions=old.sessions if sessions is None else sessions,
            )
        )

    def _push_state(self, new: State) -> None:
        self.sequence += 1
        self._undo = []
        self._history.append((self.sequence, new))


def _is_mixture(shown: bytes, versions: Sequence[bytes]) -> bool:
    """Whether every sector of `shown` is that sector of some version."""
    return all(
        any(
            version[at : at + SECTOR_SIZE_BYTES] == shown[at : at + SECTOR_SIZE_BYTES] for version in versions
        )
        for at in range(0, len(shown), SECTOR_SIZE_BYTES)
    )


def _outlines(documents: Mapping[str, bytes]) -> dict[str, tuple[int, str]]:
    """Length and first bytes of each document, for messages."""
    return {key: (len(value), value[:8].hex()) for key, value in documents.items()}


def _outline(image: bytes) -> str:
    """First bytes of each sector, for messages."""
    return " ".join(image[at : at + 4].hex() for at in range(0, len(image), SECTOR_SIZE_BYTES))
