"""Images for NBD clients to copy: files with data and holes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path


def write_image(path: Path, size_bytes: int, extents: Iterable[tuple[int, int]]) -> None:
    """Make `path` a sparse file of `size_bytes` with repeatable random data in `extents`, (start, length) each."""
    numbers = random.Random(20)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start, length in extents:
            file.seek(start)
            file.write(numbers.randbytes(length))
