"""For every order of commits, rewinds, releases and crashes, an image at a time is all records up to it, replayed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from isochrone.store import kept_entries
from support.past_machine import PastMachine

TestHistories = PastMachine.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _small_pieces() -> Iterator[None]:
    """Images are made in several steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_entries, "PIECE_ENTRY_COUNT_MAX", 5)
        yield
