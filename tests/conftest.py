"""Fixtures that several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.site import Site, running_site


@pytest.fixture
def site() -> Iterator[Site]:
    """Real controllers on one host; fails the test on log lines that it did not expect."""
    with running_site() as running:
        yield running
