"""Other people's programs, run with a deadline; what they printed is in the failure."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

PROGRAM_S_MAX: Final = 120.0
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class ProgramError(AssertionError):
    """A program did not do what was asked of it."""


def run(
    *words: str | Path,
    deadline_s: float = PROGRAM_S_MAX,
    exit_codes: Sequence[int] = (0,),
    user: str | None = None,
) -> str:
    """Run a program, as another user if wanted, and return its standard output.

    Raises:
        ProgramError: it ended with another exit code, or is late; holds what it printed.
    """
    command = [str(word) for word in words]
    environment = os.environ | {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
            env=environment,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{' '.join(command)} took more than {deadline_s:g} s") from error
    if done.returncode not in exit_codes:
        raise ProgramError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_json(*words: str | Path, deadline_s: float = PROGRAM_S_MAX) -> Any:
    """Run a program that prints JSON and return its value."""
    return json.loads(run(*words, deadline_s=deadline_s))
