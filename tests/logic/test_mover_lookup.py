"""Volume numbers of a primary become the secondary's, for whole record sets, and none is let through by mistake."""

from __future__ import annotations

import pytest

from isochrone.model.errors import ProtocolError
from isochrone.model.records import RecordKind
from isochrone.mover.lookup import VolumeLookup
from support.store import records

DATA = RecordKind.DATA


def test_every_record_gets_the_number_of_its_secondary_and_keeps_the_rest() -> None:
    lookup = VolumeLookup({7: 1, 3: 2, 900: 3})
    given = records((10, 3, 4, 5, DATA), (11, 900, 6, 1, DATA), (12, 7, 0, 2, RecordKind.ZERO))
    translated, payload = lookup.translate(given.tobytes(), b"payload", 1)
    assert payload == b"payload"
    assert translated["volume"].tolist() == [2, 3, 1]
    for field in ("time_ns", "track", "track_count", "kind"):
        assert translated[field].tolist() == given[field].tolist()


def test_what_came_over_the_link_is_not_changed() -> None:
    headers = bytearray(records((10, 3, 4, 5, DATA)).tobytes())
    before = bytes(headers)
    VolumeLookup({3: 9}).translate(headers, b"", 1)
    assert headers == before


@pytest.mark.parametrize("numbers", [{}, {3: 1}, {5: 1}, {3: 1, 5: 2}])
def test_a_volume_that_is_not_in_the_session_is_refused(numbers: dict[int, int]) -> None:
    with pytest.raises(ProtocolError, match="not configured"):
        VolumeLookup(numbers).translate(records((10, 4, 0, 1, DATA)).tobytes(), b"", 1)


def test_one_unknown_volume_among_known_ones_refuses_the_whole_set() -> None:
    with pytest.raises(ProtocolError):
        VolumeLookup({1: 1, 2: 2}).translate(
            records((10, 1, 0, 1, DATA), (11, 3, 0, 1, DATA)).tobytes(), b"", 1
        )


def test_a_heartbeat_needs_no_volume() -> None:
    assert len(VolumeLookup({}).translate(b"", b"", 1)[0]) == 0


def test_records_of_a_volume_that_is_left_out_are_dropped_with_their_payload_and_all_others_stay() -> None:
    lookup = VolumeLookup({7: 1, 3: 2, 5: 9}, left_out={5})
    zero = RecordKind.ZERO
    given = records(
        (1, 7, 0, 2, DATA), (2, 5, 4, 3, DATA), (3, 5, 9, 9, zero), (4, 3, 6, 8, zero), (5, 3, 6, 1, DATA)
    )
    translated, payload = lookup.translate(given.tobytes(), b"aabbXXYYZZcc", 2)
    assert translated[["time_ns", "volume", "track_count"]].tolist() == [(1, 1, 2), (4, 2, 8), (5, 2, 1)]
    assert bytes(payload) == b"aabbcc"


def test_a_payload_that_contradicts_its_records_is_refused_where_some_are_left_out() -> None:
    with pytest.raises(ProtocolError, match="payload"):
        VolumeLookup({7: 1}, left_out={5}).translate(records((1, 5, 0, 2, DATA)).tobytes(), b"abc", 2)


def test_a_volume_that_is_neither_known_nor_left_out_is_refused_beside_one_that_is() -> None:
    with pytest.raises(ProtocolError, match="not configured"):
        VolumeLookup({7: 1}, left_out={5}).translate(records((1, 8, 0, 1, DATA)).tobytes(), b"ab", 2)
