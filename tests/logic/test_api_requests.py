from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from isochrone.api.requests import (
    AddPairsRequest,
    CreateVolumeRequest,
    RemovePairsRequest,
    SessionRequest,
    check_address,
)
from isochrone.link.address import parse_address
from isochrone.link.messages import Compression, OverflowPolicy
from isochrone.model.errors import RefusedError

PRIMARY = {"name": "a", "address": "tcp:10.0.0.1:7481"}
PAIR = {"primary": "a", "primary_volume": "db", "secondary_volume": "db-copy"}
SESSION: dict[str, Any] = {"name": "bank", "primaries": [PRIMARY], "pairs": [PAIR]}


def test_a_session_needs_only_names_and_has_safe_settings() -> None:
    request = SessionRequest.model_validate(SESSION)
    assert (request.group_interval_ms, request.compression, request.overflow_policy) == (10.0, "off", "pace")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "-bank"}, "the name '-bank' is not usable"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"primaries": []}, "at least 1"),
        ({"pairs": []}, "at least 1"),
        ({"primaries": [PRIMARY, PRIMARY]}, "primary a is given twice"),
        ({"pairs": [PAIR, PAIR]}, "secondary volume db-copy is given twice"),
        ({"pairs": [PAIR, {**PAIR, "secondary_volume": "other"}]}, "primary volume a:db is given twice"),
        ({"pairs": [{**PAIR, "primary": "b"}]}, "names a primary that is not given"),
        ({"primaries": [PRIMARY, {"name": "b", "address": "tcp:h:1"}]}, "primary b has no pair"),
        ({"primaries": [{"name": "a", "address": "nowhere"}]}, "tcp:HOST:PORT"),
        ({"group_interval_ms": 0}, "greater than or equal to 1"),
        ({"group_interval_ms": "10"}, "number"),
        ({"group_interval_ms": float("nan")}, "less than or equal to 60000"),
        ({"pace_delay_ms_max": 10_001}, "less than or equal to 10000"),
        ({"compression": "gzip"}, "'off', 'lz4' or 'zstd'"),
        ({"overflow_policy": "drop"}, "'pace' or 'suspend'"),
        ({"group_intervall_ms": 10}, "group_intervall_ms"),
    ],
)
def test_a_faulty_session_is_refused_with_the_fault_named(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SessionRequest.model_validate({**SESSION, **change})
    assert fault in str(refused.value)


@pytest.mark.parametrize("size_bytes", [0, -1, "1024", 1.5, (1 << 48) + 1, True])
def test_a_volume_size_is_a_positive_whole_number(size_bytes: object) -> None:
    with pytest.raises(ValidationError):
        CreateVolumeRequest.model_validate({"name": "db", "size_bytes": size_bytes})


def test_added_pairs_may_lean_on_primaries_that_the_session_knows() -> None:
    assert AddPairsRequest.model_validate({"pairs": [PAIR]}).primaries == []


def test_a_pair_is_removed_once() -> None:
    with pytest.raises(ValidationError, match="given twice"):
        RemovePairsRequest.model_validate({"secondary_volumes": ["db", "db"]})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10.0.0.1:7481", "tcp:10.0.0.1:7481"),
        ("site-b.example:7481", "tcp:site-b.example:7481"),
        ("tcp:[fd00::1]:7481", "tcp:[fd00::1]:7481"),
        ("[::1]:7481", "tcp:[::1]:7481"),
        ("unix:/run/isochrone/link.sock", "unix:/run/isochrone/link.sock"),
    ],
)
def test_an_accepted_address_is_one_that_a_link_can_dial(text: str, address: str) -> None:
    assert check_address(text) == address
    assert str(parse_address(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:0",
        "host:65536",
        "host:port",
        "unix:relative",
        "http://h:1",
        "h:1\n",
        "a b:1",
        "h:1" * 200,
    ],
)
def test_what_cannot_be_dialled_is_no_address(text: str) -> None:
    with pytest.raises(RefusedError, match="tcp:HOST:PORT"):
        check_address(text)


def test_choices_are_those_that_the_link_knows() -> None:
    fields = SessionRequest.model_fields
    assert set(get_args(fields["compression"].annotation)) == {choice.value for choice in Compression}
    assert set(get_args(fields["overflow_policy"].annotation)) == {policy.value for policy in OverflowPolicy}
