"""Is a received record set sound? All records at once, in numpy."""

from __future__ import annotations

from typing import Final

import numpy as np

from isochrone.link.frame import FrameHeader
from isochrone.model.errors import ProtocolError
from isochrone.model.records import RECORD_DTYPE, TRACK_COUNT_MAX, RecordKind
from isochrone.model.sizes import TRACKS_PER_VOLUME_MAX

_KINDS: Final = int(RecordKind.DATA | RecordKind.IMAGE)
_DATA: Final = int(RecordKind.DATA)


def check_records(header: FrameHeader, headers: memoryview, *, track_size_bytes: int, after_ns: int) -> None:
    """Refuse record headers that contradict themselves, their frame or an earlier promise, by ProtocolError.

    Times do not decrease, all lie in (after_ns, through_ns] where `after_ns` is the promise of the set before
    (-1 when there is none), counts are in 1..TRACK_COUNT_MAX, tracks are within a volume, kinds are known,
    and the tracks of the DATA records times the track size are the payload.
    """
    if header.through_ns < after_ns:
        raise ProtocolError(f"a record set promises {header.through_ns} after a promise of {after_ns}")
    records = np.frombuffer(headers, RECORD_DTYPE)
    data_tracks = 0
    if len(records):
        times, counts, kinds = records["time_ns"], records["track_count"], records["kind"]
        if (times[1:] < times[:-1]).any():
            raise ProtocolError("the records of a record set are not in time order")
        first_ns, last_ns = int(times[0]), int(times[-1])
        if first_ns <= after_ns or last_ns > header.through_ns:
            raise ProtocolError(
                f"records of times {first_ns} to {last_ns} lie outside ({after_ns}, {header.through_ns}], "
                "the span between the promises of two record sets"
            )
        if int(counts.min()) < 1 or int(counts.max()) > TRACK_COUNT_MAX:
            raise ProtocolError(f"a record has no tracks, or more than {TRACK_COUNT_MAX}")
        if int((records["track"].astype(np.uint64) + counts).max()) > TRACKS_PER_VOLUME_MAX:
            raise ProtocolError("a record reaches past the last track that a volume can have")
        if int(kinds.max()) > _KINDS:
            raise ProtocolError(f"a record has the unknown kind {int(kinds.max())}")
        data_tracks = int(counts[(kinds & _DATA) != 0].sum(dtype=np.uint64))
    if data_tracks * track_size_bytes != header.payload_bytes:
        raise ProtocolError(
            f"{data_tracks} tracks of {track_size_bytes} bytes are recorded, but the payload has "
            f"{header.payload_bytes} bytes"
        )
