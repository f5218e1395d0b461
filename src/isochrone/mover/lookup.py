"""From a primary's volume numbers to the secondary's, for whole record sets at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isochrone.model.errors import ProtocolError
from isochrone.model.records import RECORD_DTYPE, RecordArray


class VolumeLookup:
    """Translates the `volume` field of records. `numbers`: primary number -> secondary number."""

    __slots__ = ("_numbers", "_primary", "_secondary")

    def __init__(self, numbers: Mapping[int, int]) -> None:
        ordered = sorted(numbers.items())
        self._numbers = dict(ordered)
        self._primary = np.array([primary for primary, _ in ordered], dtype=np.uint32)
        self._secondary = np.array([secondary for _, secondary in ordered], dtype=np.uint32)

    def translate(self, headers: bytes | bytearray | memoryview) -> RecordArray:
        """Return the records of `headers` (RECORD_DTYPE, packed) with the secondary's volume numbers, as a new array.

        Raises ProtocolError for a volume that is not in the session.
        """
        records = np.frombuffer(headers, dtype=RECORD_DTYPE).copy()
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
