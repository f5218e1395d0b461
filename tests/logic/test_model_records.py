"""Times in arrays of records are told apart to the nanosecond."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import isochrone
from isochrone.model.records import RECORD_DTYPE, count_through

TIMES = st.integers(0, (1 << 64) - 1) | st.integers(-3, 3).map(lambda step: 1_795_197_090_802_009_451 + step)


@given(st.lists(TIMES, max_size=20), TIMES | st.just(-1))
def test_records_are_counted_through_a_time_to_the_nanosecond(times: list[int], through_ns: int) -> None:
    records = np.zeros(len(times), RECORD_DTYPE)
    records["time_ns"] = sorted(times)
    assert count_through(records, through_ns) == sum(time <= through_ns for time in times)


def test_no_other_code_looks_up_a_time_in_an_array() -> None:
    """numpy.searchsorted takes a Python integer for a float beside 64-bit unsigned times."""
    root = Path(isochrone.__file__).parent
    found = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"searchsorted\([^)\n]*(time|_ns)", path.read_text())
    ]
    assert found == ["model/records.py"]
