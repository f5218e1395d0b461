"""What a controller does about the state in which it finds its pool."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from isochrone.controller.pool_opening import open_pool
from isochrone.controller.settings import PoolSection
from support.store import TRACK, run, tags, tracks


def test_a_pool_whose_datasync_failed_is_reopened_as_after_a_power_loss_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages that the device lost read as written, in the same boot, in every process, until they are dropped."""
    settings = PoolSection(path=tmp_path, size=1 << 20)
    _, pool = open_pool(settings)
    pool.create_volume("a", 16 * TRACK).write(0, tracks(1))
    run(pool.sync())
    pool.volumes["a"].write(TRACK, tracks(2))
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="lost"):
        run(pool.sync())
    monkeypatch.undo()
    pool.close()
    with capture_logs() as logs:
        disk, pool = open_pool(settings)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert "failed to make writes durable" in warning["found"]
    assert "records after the last barrier" in warning["found"]
    assert pool.reopened_after_loss
    assert tags(pool, "a", 2) == [1, 0]
    pool.settle_loss()
    pool.close()
    with capture_logs() as logs:
        _, pool = open_pool(settings)
    assert not pool.reopened_after_loss
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
    pool.close()
    disk.close()


def fail(_: int) -> None:
    raise OSError(errno.EIO, "lost")
