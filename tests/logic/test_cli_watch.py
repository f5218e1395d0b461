from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from isochrone.cli import watch as watching
from isochrone.cli.client import Client
from isochrone.model.errors import UnavailableError
from support.reports import STATUS


class FakeClient(Client):
    """Answers from a list; what is an error is raised. Ctrl-C comes after the last answer."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def get(self, path: str) -> Any:
        assert path == "/v1/status"
        if not self._answers:
            raise KeyboardInterrupt
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


ANSWER = STATUS.model_dump(mode="json")
SILENCE = UnavailableError("no controller answers at tcp:h:1")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=True)
    monkeypatch.setattr(watching, "console", lambda: console)
    monkeypatch.setattr(watching, "is_terminal", lambda _: True)
    return stream


def test_ctrl_c_ends_a_live_status_without_an_error(screen: io.StringIO) -> None:
    watching.watch(FakeClient(ANSWER, ANSWER), 0.0)
    assert "bank" in screen.getvalue()


def test_silence_is_told_above_what_is_old_and_then_forgotten(screen: io.StringIO) -> None:
    watching.watch(FakeClient(ANSWER, SILENCE, ANSWER), 0.0)
    before, told, after = screen.getvalue().partition("NO ANSWER")
    assert told
    assert "bank" in before
    assert "no controller answers at tcp:h:1" in after
    assert after.count("bank") >= 2


def test_silence_at_the_first_look_is_an_error(screen: io.StringIO) -> None:
    with pytest.raises(UnavailableError):
        watching.watch(FakeClient(SILENCE), 0.0)


def test_without_a_terminal_every_look_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "is_terminal", lambda _: False)
    watching.watch(FakeClient(ANSWER, ANSWER, ANSWER), 0.0)
    assert capsys.readouterr().out.count("controller secondary") == 3
