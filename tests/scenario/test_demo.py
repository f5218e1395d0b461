"""The demonstration tells its story to the end and says what it found."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

DEMO_S_MAX = 120.0


@pytest.mark.xdist_group("heavy")
def test_the_demo_loses_a_site_and_proves_the_recovered_image() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isochrone", "demo"],
        capture_output=True,
        text=True,
        timeout=DEMO_S_MAX,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SIGKILL to the whole eastern site" in done.stdout
    assert re.search(r"lost: \d[\d.,]* ms, [\d,]+ writes of [\d,]+ acknowledged", done.stdout)
    assert re.search(r"files: [\d,]+ checksums compared, 0 differ", done.stdout)
    assert "All as promised" in done.stdout
