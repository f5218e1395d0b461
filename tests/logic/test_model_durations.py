"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from isochrone.model.durations import parse_duration_s
from isochrone.model.errors import RefusedError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("1.5h", 5400), ("7d", 604_800), ("2 w", 1_209_600)],
)
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1y", "1h30m", "1e3", "nan"])
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RefusedError, match="for example 90s, 30m, 24h or 7d"):
        parse_duration_s(text)
