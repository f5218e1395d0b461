from __future__ import annotations

import pytest
from pydantic import ValidationError

from isochrone.model.states import PairState
from isochrone.report.models import PoolState, StatusReport
from support.reports import EMPTY, PAIR, POOL, STATUS


@pytest.mark.parametrize("status", [STATUS, EMPTY])
def test_a_status_survives_json(status: StatusReport) -> None:
    assert StatusReport.model_validate_json(status.model_dump_json()) == status


def test_an_older_client_reads_a_newer_controller() -> None:
    newer = STATUS.model_dump(mode="json")
    newer["controller"]["invented_later"] = 1
    assert StatusReport.model_validate(newer) == STATUS


def test_a_report_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        POOL.free_track_count = 0


@pytest.mark.parametrize(
    ("update", "state"),
    [
        ({}, PoolState.SERVING),
        ({"free_track_count": 0}, PoolState.FULL),
        ({"read_only_reason": "fdatasync failed"}, PoolState.READ_ONLY),
        ({"read_only_reason": "fdatasync failed", "free_track_count": 0}, PoolState.READ_ONLY),
    ],
)
def test_the_pool_state_follows_from_what_is_reported(update: dict[str, object], state: PoolState) -> None:
    assert POOL.model_copy(update=update).state is state


def test_pool_bytes_are_its_tracks() -> None:
    dumped = POOL.model_dump()
    assert dumped["free_bytes"] == 600 * 4096
    assert dumped["used_bytes"] + dumped["free_bytes"] + dumped["pending_free_bytes"] == dumped["size_bytes"]


@pytest.mark.parametrize(
    ("to_copy", "remaining", "percent"),
    [
        (1000, 250, 75.0),
        (1000, 0, 100.0),
        (10_000_000, 1, 99.9),
        (0, 0, 100.0),
        (None, None, None),
        (100, 200, 0.0),
    ],
)
def test_a_copy_is_whole_only_when_no_track_remains(
    to_copy: int | None, remaining: int | None, percent: float | None
) -> None:
    pair = PAIR.model_copy(update={"tracks_to_copy": to_copy, "tracks_remaining": remaining})
    assert pair.copied_percent == percent


def test_a_duplex_pair_is_copied_whole() -> None:
    pair = PAIR.model_copy(
        update={"state": PairState.DUPLEX, "tracks_to_copy": None, "tracks_remaining": None}
    )
    assert pair.copied_percent == 100.0
