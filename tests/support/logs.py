"""Which lines of a controller's log a test must have expected."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

_QUIET_LEVELS: Final = frozenset({"debug", "info"})


def unexpected_lines(lines: Iterable[str], expected: Sequence[str]) -> list[str]:
    """Return the lines that say WARN or worse, or that are no log lines at all, and match nothing expected.

    Args:
        expected: regular expressions, searched for in the whole line.
    """
    patterns = [re.compile(pattern) for pattern in expected]
    return [
        line
        for line in lines
        if line.strip() and not _is_quiet(line) and not any(pattern.search(line) for pattern in patterns)
    ]


def _is_quiet(line: str) -> bool:
    try:
        return json.loads(line)["level"] in _QUIET_LEVELS
    except (ValueError, TypeError, KeyError):
        return False
