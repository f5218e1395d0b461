"""The soak, short: every kind of fault once, under load, by a fixed seed. `make soak` is the long one."""

import pytest
from rich.console import Console

from soak.faults import FAULTS
from soak.run import forbidden, soak

pytestmark = [pytest.mark.xdist_group("heavy"), pytest.mark.postgres, pytest.mark.clients]

SEED = 1
RATE_FACTOR = 0.3
"""One of several tests that share a small machine."""
VARIANTS = {"primary's device: ENOSPC", "primary's device: EIO now and then"}
"""Left to the long soak: they take the way of the primary's EIO."""


@pytest.mark.timeout(900)
def test_every_kind_of_fault_is_told_survived_and_leaves_both_sites_equal() -> None:
    if reason := forbidden():
        pytest.skip(reason)
    faults = [fault for fault in FAULTS if fault.name not in VARIANTS]
    console = Console(highlight=False, soft_wrap=True)
    result = soak(SEED, console, rounds=1, faults=faults, rate_factor=RATE_FACTOR)
    assert not result.faults_found
    assert {outcome.fault for outcome in result.outcomes} == {fault.name for fault in faults}
    assert min(result.proofs[kind] for kind in ("chain", "fio", "database", "version")) >= 1
    assert result.compared_bytes > 0
