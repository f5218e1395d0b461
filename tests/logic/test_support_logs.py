"""The rule that fails a scenario test on log lines it did not expect."""

from __future__ import annotations

import pytest

from support.logs import unexpected_lines

QUIET = '{"event": "ready", "level": "info"}'
WARNING = '{"event": "link lost", "level": "warning"}'


def test_a_quiet_log_passes() -> None:
    assert unexpected_lines([QUIET, "", '{"event": "x", "level": "debug"}'], []) == []


@pytest.mark.parametrize(
    "line",
    [
        WARNING,
        '{"event": "x", "level": "error"}',
        "Traceback (most recent call last):",
        "[1, 2]",
        "3",
        '{"event": "a line without a level"}',
    ],
)
def test_warnings_errors_and_lines_that_are_no_log_lines_are_reported(line: str) -> None:
    assert unexpected_lines([QUIET, line], []) == [line]


def test_an_expected_line_passes_and_no_other() -> None:
    other = '{"event": "pool full", "level": "warning"}'
    assert unexpected_lines([WARNING, other], ["link (lost|refused)"]) == [other]
