from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from isochrone.api.requests import (
    AddPairsRequest,
    ChangeSessionRequest,
    CreateVolumeRequest,
    RemovePairsRequest,
    SessionRequest,
)

PRIMARY = {"name": "a", "address": "tcp:10.0.0.1:7481"}
PAIR = {"primary": "a", "primary_volume": "db", "secondary_volume": "db-copy"}
SESSION: dict[str, Any] = {"name": "bank", "primaries": [PRIMARY], "pairs": [PAIR]}


def test_a_session_needs_only_names() -> None:
    request = SessionRequest.model_validate(SESSION)
    assert request.model_dump(exclude_none=True).keys() == SESSION.keys()


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
        ({"overflow_policy": "drop"}, "'pace', 'suspend' or 'hold'"),
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


def test_a_change_of_settings_names_at_least_one_and_keeps_the_others() -> None:
    change = ChangeSessionRequest.model_validate({"pace_delay_ms_max": 0.0})
    assert change.model_dump(exclude_none=True) == {"pace_delay_ms_max": 0.0}
    with pytest.raises(ValidationError, match="nothing is changed: give one of group_interval_ms"):
        ChangeSessionRequest.model_validate({})


def test_a_pair_is_removed_once() -> None:
    with pytest.raises(ValidationError, match="given twice"):
        RemovePairsRequest.model_validate({"secondary_volumes": ["db", "db"]})


@pytest.mark.parametrize(
    "choice",
    [{"compression": "off"}, {"compression": "lz4"}, {"compression": "zstd"}, {"overflow_policy": "suspend"}],
)
def test_choices_are_words(choice: dict[str, Any]) -> None:
    request = SessionRequest.model_validate({**SESSION, **choice})
    assert request.model_dump(mode="json").items() >= choice.items()


def test_the_address_of_a_primary_is_kept_in_its_one_form() -> None:
    primary = {"name": "a", "address": "[::1]:7481"}
    assert (
        SessionRequest.model_validate({**SESSION, "primaries": [primary]}).primaries[0].address
        == "tcp:[::1]:7481"
    )
