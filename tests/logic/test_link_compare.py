"""Compare and Compared on the wire: what they are, and that no length of theirs is trusted."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.link.codec import Decoder, Encoder
from isochrone.link.compare_codec import unpack_compare, unpack_compared
from isochrone.link.frame import PREAMBLE
from isochrone.link.messages import COMPARE_TRACKS_MAX, Compare, Compared
from isochrone.model.errors import ProtocolError

HASH = bytes(range(16))
HEAD = (7, 50, 9, 3)


def body(*runs: tuple[int, int], hashes: int | None = None, run_count: int | None = None) -> memoryview:
    number, began_ns, seed, volume = HEAD
    head = pack("<QQQII", number, began_ns, seed, volume, len(runs) if run_count is None else run_count)
    tracks = sum(count for _, count in runs) if hashes is None else hashes
    return memoryview(head + b"".join(pack("<II", *run) for run in runs) + HASH * tracks)


def test_a_query_and_its_answer_come_out_as_they_went_in() -> None:
    query = Compare(7, 3, 50, 9, ((1, 2), (9, 1)), HASH * 3)
    answer = Compared(7, (True, False, True))
    decoder = Decoder()
    sent = b"".join(bytes(buffer) for message in (query, answer) for buffer in Encoder().encode(message))
    assert list(decoder.feed(PREAMBLE + sent)) == [query, answer]
    assert unpack_compare(body((1, 2), (9, 1))) == query


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (memoryview(b""), "too short"),
        (body((1, 1))[:31], "too short"),
        (body(), "cannot have 0 runs"),
        (body((1, 1), run_count=2**32 - 1), "cannot have 4294967295 runs"),
        (body((1, 1), run_count=COMPARE_TRACKS_MAX + 1), "cannot have"),
        (body((1, 1), run_count=4), "cannot have 4 runs"),
        (body((1, 0)), "empty, out of order"),
        (body((5, 2), (6, 1)), "empty, out of order"),
        (body((5, 1), (1, 1)), "empty, out of order"),
        (body((2**32 - 1, 2**32 - 1), hashes=1), "empty, out of order, or beyond"),
        (body((1, 2**31), hashes=1), "bytes of hashes"),
        (body((1, COMPARE_TRACKS_MAX + 1)), "at most 4096"),
        (body((1, 2), hashes=1), "16 bytes of hashes for 2 tracks"),
        (body((1, 2), hashes=3), "48 bytes of hashes for 2 tracks"),
    ],
)
def test_a_query_that_contradicts_itself_is_refused(bad: memoryview, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        unpack_compare(bad)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (b"", "too short"),
        (pack("<QI", 1, 0), "cannot answer for 0"),
        (pack("<QI", 1, 2**32 - 1), "cannot answer for 4294967295"),
        (pack("<QI", 1, COMPARE_TRACKS_MAX + 1) + bytes(513), "cannot answer"),
        (pack("<QI", 1, 9) + bytes(1), "cannot answer for 9"),
        (pack("<QI", 1, 9) + bytes(3), "cannot answer for 9"),
        (pack("<QI", 1, 3) + b"\x08", "beyond its last track"),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(bad: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        unpack_compared(memoryview(bad))


@given(data=st.binary(max_size=120))
def test_any_bytes_are_a_sound_message_or_refused(data: bytes) -> None:
    for unpack in (unpack_compare, unpack_compared):
        try:
            message = unpack(memoryview(data))
        except ProtocolError:
            continue
        again = b"".join(bytes(buffer) for buffer in Encoder().encode(message))
        assert list(Decoder().feed(PREAMBLE + again)) == [message]
