"""Bodies of Compare and Compared: packed, because JSON would make hashes four times as long.

Nothing of a body is believed before its length has been checked against the counts that it states.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import numpy as np

from isochrone.link.messages import (
    COMPARE_TRACKS_MAX,
    TRACK_HASH_BYTES,
    Compare,
    Compared,
)
from isochrone.model.errors import ProtocolError
from isochrone.model.sizes import TRACKS_PER_VOLUME_MAX

COMPARE_HEAD: Final = Struct("<QQQII")
COMPARED_HEAD: Final = Struct("<QI")
_RUN: Final = np.dtype([("track", "<u4"), ("count", "<u4")])


def pack_compare(message: Compare) -> bytes:
    """Return the body of `message`."""
    runs = np.array(list(message.runs), _RUN)
    head = COMPARE_HEAD.pack(message.number, message.began_ns, message.seed, message.volume, len(runs))
    return head + runs.tobytes() + message.hashes


def unpack_compare(body: memoryview) -> Compare:
    """Return the Compare in `body`. Raises ProtocolError unless it is sound in itself.

    Its runs ascend, do not touch each other's tracks, lie within a volume of the greatest size, and have one hash a track.
    """
    if len(body) < COMPARE_HEAD.size:
        raise ProtocolError(f"a COMPARE message of {len(body)} bytes is too short")
    number, began_ns, seed, volume, run_count = COMPARE_HEAD.unpack_from(body)
    hashes_at = COMPARE_HEAD.size + run_count * _RUN.itemsize
    if not 1 <= run_count <= COMPARE_TRACKS_MAX or hashes_at > len(body):
        raise ProtocolError(f"a COMPARE message of {len(body)} bytes cannot have {run_count} runs")
    runs = np.frombuffer(body[COMPARE_HEAD.size : hashes_at], _RUN)
    firsts, counts = runs["track"].astype(np.int64), runs["count"].astype(np.int64)
    ends = firsts + counts
    if (counts < 1).any() or (firsts[1:] < ends[:-1]).any() or int(ends[-1]) > TRACKS_PER_VOLUME_MAX:
        raise ProtocolError("the runs of a COMPARE message are empty, out of order, or beyond any volume")
    track_count = int(counts.sum())
    if track_count > COMPARE_TRACKS_MAX or len(body) - hashes_at != track_count * TRACK_HASH_BYTES:
        raise ProtocolError(
            f"a COMPARE message has {len(body) - hashes_at} bytes of hashes for {track_count} tracks; at most "
            f"{COMPARE_TRACKS_MAX} tracks of {TRACK_HASH_BYTES} bytes each are allowed"
        )
    pairs = tuple(zip(firsts.tolist(), counts.tolist(), strict=True))
    return Compare(number, volume, began_ns, seed, pairs, bytes(body[hashes_at:]))


def pack_compared(message: Compared) -> bytes:
    """Return the body of `message`."""
    bits = np.packbits(np.array(message.differs, np.bool_), bitorder="little")
    return COMPARED_HEAD.pack(message.number, len(message.differs)) + bits.tobytes()


def unpack_compared(body: memoryview) -> Compared:
    """Return the Compared in `body`. Raises ProtocolError unless its length is that of its count."""
    if len(body) < COMPARED_HEAD.size:
        raise ProtocolError(f"a COMPARED message of {len(body)} bytes is too short")
    number, track_count = COMPARED_HEAD.unpack_from(body)
    bits = np.frombuffer(body[COMPARED_HEAD.size :], np.uint8)
    if not 1 <= track_count <= COMPARE_TRACKS_MAX or len(bits) != (track_count + 7) // 8:
        raise ProtocolError(f"a COMPARED message of {len(body)} bytes cannot answer for {track_count} tracks")
    flags = np.unpackbits(bits, bitorder="little").astype(np.bool_)
    if flags[track_count:].any():
        raise ProtocolError("a COMPARED message sets bits beyond its last track")
    return Compared(number, tuple(flags[:track_count].tolist()))
