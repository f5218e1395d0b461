"""What an outage leaves behind: the tracks that were written meanwhile, the same at whoever must bring them over."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

APPLY_S_MAX: Final = 300.0


@dataclass(frozen=True, slots=True)
class Change:
    """A pattern of writes.

    Attributes:
        pattern, block_size: fio's `rw` and `bs`. No place is written twice.
        depth: writes in flight.
    """

    name: str
    pattern: str
    block_size: str
    depth: int


CHANGES: Final = (
    Change("scattered 4 KiB", "randwrite", "4k", 32),
    Change("contiguous", "write", "1m", 8),
)


@dataclass(frozen=True, slots=True)
class Extent:
    """How large the volume is, and how much of it changes."""

    volume_bytes: int
    changed_bytes: int


def apply(change: Change, extent: Extent, target: Sequence[str], folder: Path) -> None:
    """Write the places of `change`, always the same ones, with fresh content.

    Args:
        target: fio's words that name what is written, as `over_nbd` and `in_file` give.
    """
    command = ["fio", f"--output={folder / 'change'}", "--name=change", *target, f"--rw={change.pattern}"]
    command += [f"--bs={change.block_size}", f"--iodepth={change.depth}", f"--size={extent.volume_bytes}"]
    command += [f"--io_size={extent.changed_bytes}", "--randrepeat=1", "--refill_buffers"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=APPLY_S_MAX, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def over_nbd(uri: str) -> list[str]:
    """Fio's words for an NBD export."""
    return ["--ioengine=nbd", f"--uri={uri}"]


def in_file(path: Path) -> list[str]:
    """Fio's words for a file, which is there."""
    return ["--ioengine=psync", f"--filename={path}", "--fallocate=none", "--allow_file_create=0"]
