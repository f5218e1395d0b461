"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return user and system time that the processes have used so far, threads included."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # utime and stime, proc(5) fields 14 and 15
    return total / TICKS_PER_S


def machine_busy_seconds() -> float:
    """Return the CPU time that the whole machine has used since it started, all CPUs together."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields  # proc(5)
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def waited_children_seconds() -> float:
    """Return the CPU time of this process's children that have ended: fio's runs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def anonymous_memory_bytes(pid: int) -> int:
    """Return resident memory that is the process's own: not page cache of mapped files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no RssAnon line: it has ended")


def pause(pids: Sequence[int]) -> None:
    """Stop the processes, so that a server that waits for its turn costs the one being measured nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def unpause(pids: Sequence[int]) -> None:
    """Let paused processes go on."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
