"""Fixtures that several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.site import Site, running_site

# The same examples in every run: a failure is a change's, not chance's. To search further:
# make test ARGS="tests/property --hypothesis-profile=search"
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


@pytest.fixture
def site() -> Iterator[Site]:
    """Real controllers on one host; fails the test on log lines that it did not expect."""
    with running_site() as running:
        yield running
