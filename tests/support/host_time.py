"""The controllers' host time, for a test that must date what it does."""

from __future__ import annotations

import json
import time
from pathlib import Path


class HostTimeReader:
    """Host time as the controllers that share `runtime_dir` have agreed on it."""

    def __init__(self, runtime_dir: Path) -> None:
        (path,) = runtime_dir.glob("host-time.*")
        self._offset_ns = int(json.loads(path.read_text())["offset_ns"])

    def now_ns(self) -> int:
        """Return the present in host time, nanoseconds."""
        return time.monotonic_ns() + self._offset_ns
