"""The root: all metadata at one moment but the table pages themselves, which it points at.

One file, written aside and renamed, checksummed as a whole. A short JSON text holds what is small and
irregular, arrays hold what is big: at 4 KiB tracks about 20 bytes per 4 MiB mapped, and 28 bytes per staged
record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from isochrone.model.errors import DamagedError
from isochrone.model.records import RECORD_DTYPE
from isochrone.model.volume_kind import VolumeKind
from isochrone.store.history import KeptVolume
from isochrone.store.staging import Chunk, SessionStage, SourceStage, join

ROOT_NAME: Final = "root"
ROOT_NEW_NAME: Final = "root.new"

_MAGIC: Final = b"ISOCROOT"
_HEADER: Final = Struct("<8s16sQQ")
"""magic, pool uuid, length of the whole, length of the JSON text."""
_CHECKSUM: Final = Struct("<Q")


@dataclass(frozen=True, slots=True, eq=False)
class RootVolume:
    """A volume: `page_indexes` say where in its table `pages` stand (both uint32, one length); the rest is
    null.
    """

    number: int
    name: str
    size_bytes: int
    kind: VolumeKind
    repeat_count_max: int
    page_indexes: NDArray[np.uint32]
    pages: NDArray[np.uint32]


class PieceRun(NamedTuple):
    """Pieces of a file of history: `piece_count` from the place `first` on."""

    file: int
    first: int
    piece_count: int


RootEntries = list[Chunk | PieceRun]
"""Kept entries in order: sealed ones by their places, the others as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class RootHistory:
    """A history (see `History`): its stays, and its entries in order."""

    session: int
    first_ns: int
    through_ns: int
    rewound_ns: int | None
    volumes: list[KeptVolume]
    entries: RootEntries


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """The metadata at one moment.

    Attributes:
        generation: log generation to replay from.
        first_sequence: sequence of the first record of that generation.
        is_clean: written by close: no record follows, nothing can be lost.
        pages: live page numbers, ascending, with `slots` and `checksums` (xxh3 of 4,096 bytes) of one length.
        sessions: committed and staged per session; their chunks are not changed.
        histories: what is kept of sessions.
        given_up: entries that were kept and whose tracks are still to be dropped.
        history_files: number and checksum of each file of history that is named.
        unfinished: numbers of hidden volumes that were to become an image, and are dropped when this is read.
    """

    generation: int
    first_sequence: int
    is_clean: bool
    volume_number_next: int
    volumes: list[RootVolume]
    pages: NDArray[np.uint32]
    slots: NDArray[np.uint32]
    checksums: NDArray[np.uint64]
    documents: Mapping[str, bytes]
    sessions: Mapping[int, SessionStage]
    histories: list[RootHistory]
    given_up: RootEntries
    unfinished: list[int]
    history_files: list[tuple[int, int]]


def encode_root(root: Root, uuid: bytes) -> bytes:
    """Return the file's bytes."""
    arrays: list[bytes] = []
    volumes = []
    for volume in root.volumes:
        numbers = [volume.size_bytes, int(volume.kind), volume.repeat_count_max, len(volume.pages)]
        volumes.append([volume.number, volume.name, *numbers])
        arrays += [_bytes(volume.page_indexes), _bytes(volume.pages)]
    arrays += [_bytes(root.pages), _bytes(root.slots), _bytes(root.checksums)]
    sessions = []
    for session, stage in root.sessions.items():
        sources = []
        for source, staged in stage.sources.items():
            whole = join(staged.chunks)
            sources.append([source, staged.through_ns, len(whole.records), len(whole.physicals)])
            arrays += [_bytes(whole.records), _bytes(whole.physicals)]
        sessions.append([session, stage.committed_through_ns, sources])
    histories = []
    for history in root.histories:
        volumes_kept = [[stay.number, stay.base, stay.from_ns, stay.until_ns] for stay in history.volumes]
        times = [history.session, history.first_ns, history.through_ns, history.rewound_ns]
        histories.append([*times, volumes_kept, _entries_text(history.entries)])
        arrays += _entries_bytes(history.entries)
    arrays += _entries_bytes(root.given_up)
    arrays += root.documents.values()
    text = json.dumps(
        {
            "generation": root.generation,
            "first_sequence": root.first_sequence,
            "clean": root.is_clean,
            "volume_number_next": root.volume_number_next,
            "volumes": volumes,
            "page_count": len(root.pages),
            "sessions": sessions,
            "histories": histories,
            "given_up": _entries_text(root.given_up),
            "history_files": root.history_files,
            "unfinished": root.unfinished,
            "documents": [[key, len(value)] for key, value in root.documents.items()],
        },
        separators=(",", ":"),
    ).encode()
    body = b"".join([text, *arrays])
    length = _HEADER.size + len(body) + _CHECKSUM.size
    data = _HEADER.pack(_MAGIC, uuid, length, len(text)) + body
    return data + _CHECKSUM.pack(xxh3_64_intdigest(data))


def decode_root(data: bytes, uuid: bytes) -> Root:
    """Return what a root file of pool `uuid` says; it may be followed by slack. DamagedError when it is
    broken.
    """
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise root_damaged(len(data), "it is too short")
    magic, pool, length, text_length = _HEADER.unpack_from(data)
    if magic != _MAGIC or not _HEADER.size + _CHECKSUM.size <= length <= len(data):
        raise root_damaged(0, "it does not begin like a root")
    (checksum,) = _CHECKSUM.unpack_from(data, length - _CHECKSUM.size)
    if xxh3_64_intdigest(memoryview(data)[: length - _CHECKSUM.size]) != checksum:
        raise root_damaged(length - _CHECKSUM.size, "its checksum does not match")
    if pool != uuid:
        raise root_damaged(8, f"it belongs to pool {pool.hex()}")
    text = json.loads(data[_HEADER.size : _HEADER.size + text_length])
    return _Decoder(data, _HEADER.size + text_length).root(text)


class _Decoder:
    """Reads the arrays behind the JSON text in their order."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self._offset = offset

    def root(self, text: dict[str, Any]) -> Root:
        volumes = [
            RootVolume(number, name, size, _kind(kind, name), repeats, self._u4(count), self._u4(count))
            for number, name, size, kind, repeats, count in text["volumes"]
        ]
        page_count = text["page_count"]
        pages, slots = self._u4(page_count), self._u4(page_count)
        checksums = self._array("<u8", page_count)
        sessions = {
            session: self._session(through, sources) for session, through, sources in text["sessions"]
        }
        histories = [
            RootHistory(
                session,
                first,
                through,
                rewound,
                [KeptVolume(*stay) for stay in stays],
                self._entries(entries),
            )
            for session, first, through, rewound, stays, entries in text["histories"]
        ]
        given_up = self._entries(text["given_up"])
        documents = {key: self._take(length) for key, length in text["documents"]}
        return Root(
            text["generation"],
            text["first_sequence"],
            text["clean"],
            text["volume_number_next"],
            volumes,
            pages,
            slots,
            checksums,
            documents,
            sessions,
            histories,
            given_up,
            text["unfinished"],
            [(number, checksum) for number, checksum in text["history_files"]],
        )

    def _session(self, committed_through_ns: int, sources: list[list[int]]) -> SessionStage:
        stage = SessionStage(committed_through_ns)
        for source, through_ns, record_count, physical_count in sources:
            stage.sources[source] = SourceStage()
            stage.add(source, through_ns, self._chunk(record_count, physical_count))
        return stage

    def _entries(self, items: list[list[int]]) -> RootEntries:
        return [PieceRun(*item) if item[0] else self._chunk(*item[1:]) for item in items]

    def _chunk(self, record_count: int, physical_count: int) -> Chunk:
        return Chunk(self._array(RECORD_DTYPE, record_count), self._u4(physical_count))

    def _u4(self, count: int) -> NDArray[np.uint32]:
        return self._array("<u4", count)

    def _array(self, dtype: np.dtype[Any] | str, count: int) -> NDArray[Any]:
        kind = np.dtype(dtype)
        return np.frombuffer(self._take(count * kind.itemsize), kind).copy()

    def _take(self, length: int) -> bytes:
        data = self._data[self._offset : self._offset + length]
        self._offset += length
        return data


def _kind(kind: int, name: str) -> VolumeKind:
    try:
        return VolumeKind(kind)
    except ValueError:
        raise root_damaged(
            _HEADER.size, f"volume {name[:80]!r} is of a kind {kind} that does not exist"
        ) from None


def root_damaged(offset: int, what: str) -> DamagedError:
    """Return the error for a contradiction in the root."""
    return DamagedError(
        f"{ROOT_NAME}, byte {offset}: {what}; the pool's metadata cannot be trusted: recover its volumes from the other "
        "site and keep the folder for inspection",
        file=ROOT_NAME,
        offset=offset,
    )


def _entries_text(entries: RootEntries) -> list[list[int]]:
    """Return [file, first piece, pieces] or [0, records, tracks] for each item."""
    return [
        list(item) if isinstance(item, PieceRun) else [0, len(item.records), len(item.physicals)]
        for item in entries
    ]


def _entries_bytes(entries: RootEntries) -> list[bytes]:
    chunks = [item for item in entries if isinstance(item, Chunk)]
    return [_bytes(array) for chunk in chunks for array in (chunk.records, chunk.physicals)]


def _bytes(array: NDArray[Any]) -> bytes:
    return array.tobytes()
