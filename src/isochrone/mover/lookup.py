"""From a primary's volume numbers to the secondary's, for whole record sets at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from isochrone.model.errors import ProtocolError
from isochrone.model.records import RECORD_DTYPE, RecordArray, RecordKind
from isochrone.store.disk import Buffer


class VolumeLookup:
    """Translates the `volume` field of records.

    Args:
        numbers: primary number -> secondary number.
        left_out: primary numbers of volumes that have no place here, and whose records are dropped until the primary has
            heard of it.
    """

    __slots__ = ("_numbers", "_primary", "_secondary", "left_out")

    def __init__(self, numbers: Mapping[int, int], left_out: Collection[int] = ()) -> None:
        self.left_out = frozenset(left_out)
        ordered = sorted((number, to) for number, to in numbers.items() if number not in self.left_out)
        self._numbers = dict(ordered)
        self._primary = np.array([primary for primary, _ in ordered], dtype=np.uint32)
        self._secondary = np.array([secondary for _, secondary in ordered], dtype=np.uint32)

    def translate(
        self, headers: Buffer, payload: Buffer, track_size_bytes: int
    ) -> tuple[RecordArray, Buffer]:
        """Return the records of `headers` (RECORD_DTYPE, packed) with the secondary's volume numbers, and their payload.

        The records are a new array. Raises ProtocolError for a volume that is not in the session.
        """
        records = np.frombuffer(headers, dtype=RECORD_DTYPE)
        if self.left_out:
            wanted = ~np.isin(records["volume"], list(self.left_out))
            payload = _payload_of(records, payload, wanted, track_size_bytes)
            records = records[wanted]
        return self._translate(records.copy()), payload

    def _translate(self, records: RecordArray) -> RecordArray:
        if len(records) == 0:
            return records
        volumes = records["volume"]
        places = np.searchsorted(self._primary, volumes)
        if len(self._primary) == 0 or not (self._primary.take(places, mode="clip") == volumes).all():
            raise ProtocolError("a record set names a volume that was not configured for this session")
        records["volume"] = self._secondary[places]
        return records

    def secondary_of(self, primary: int) -> int:
        """Return the secondary's number of one volume. Raises ProtocolError for one that is not in the session."""
        if primary not in self._numbers:
            raise ProtocolError("a comparison names a volume that was not configured for this session")
        return self._numbers[primary]


def _payload_of(
    records: RecordArray, payload: Buffer, wanted: NDArray[np.bool_], track_size_bytes: int
) -> bytes:
    """Return the payload of the records where `wanted`, shape (n,), is true. Raises ProtocolError."""
    has_payload = (records["kind"] & np.uint32(RecordKind.DATA)) != 0
    tracks = np.where(has_payload, records["track_count"], 0).astype(np.int64)
    if int(tracks.sum()) * track_size_bytes != len(payload):
        raise ProtocolError(f"{len(payload)} payload bytes do not belong to the records they came with")
    images = np.frombuffer(payload, np.uint8).reshape(-1, track_size_bytes)
    chosen: bytes = images[np.repeat(wanted, tracks)].tobytes()
    return chosen
