"""The tour in README.md works as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from isochrone.testing.processes import wait_until

README: Final = Path(__file__).parents[2] / "README.md"
ANSWER_S_MAX: Final = 30.0


class Tour:
    """Two terminals. Each is one shell that gets its lines as a person would type them."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text.replace("/tmp/tour", str(folder))
        self._folder = folder
        self._shells = {site: self._open_shell() for site in ("east", "west")}

    def settings(self) -> str:
        """Return the settings file that it shows."""
        (found,) = re.findall(r"```toml\n(.*?)```", self.text, re.DOTALL)
        return str(found)

    def steps(self) -> list[tuple[str, str]]:
        """Return (terminal, command line) in order."""
        return [
            (terminal, line.split("  #")[0].strip())
            for terminal, line in re.findall(r"^(east|west)\$ (.*)$", self.text, re.MULTILINE)
        ]

    def type(self, terminal: str, line: str) -> str:
        """Run a line in a terminal and return what it printed; fails on an exit code other than 0."""
        shell, mark = self._shells[terminal], f"done-{os.urandom(8).hex()}"
        assert shell.stdin is not None
        assert shell.stdout is not None
        separator = "" if line.endswith("&") else ";"
        shell.stdin.write(f"{line} {separator} echo {mark} $?\n")
        shell.stdin.flush()
        said = ""
        while not (end := re.search(rf"^{mark} (\d+)$", said, re.MULTILINE)):
            piece = shell.stdout.readline()
            assert piece, f"the shell of {terminal} ended: {said}"
            said += piece
        assert end[1] == "0", f"{terminal}$ {line}\n{said}"
        return said

    def close(self) -> None:
        """Kill the controllers and end the shells."""
        for shell in self._shells.values():
            shell.communicate(
                "for job in $(jobs -p); do kill -9 -- -$job; done\nexit\n", timeout=ANSWER_S_MAX
            )

    def _open_shell(self) -> subprocess.Popen[str]:
        program = f'isochrone() {{ "{sys.executable}" -m isochrone "$@"; }}\nset -m\n'
        shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
        )
        assert shell.stdin is not None
        shell.stdin.write(program)
        return shell


@pytest.fixture
def tour() -> Iterator[Tour]:
    with tempfile.TemporaryDirectory(prefix="iso-tour-") as name:
        folder = Path(name)
        made = Tour(README.read_text(), folder)
        for site in ("east", "west"):
            (folder / f"{site}.toml").write_text(made.settings().replace("east", site))
        yield made
        made.close()


def test_the_tour_of_the_readme_recovers_what_was_written(tour: Tour, tmp_path: Path) -> None:
    said = []
    for terminal, line in tour.steps():
        said.append(tour.type(terminal, line))
        if line.endswith("&"):
            socket = Path(tour.settings().partition("[api]")[2].split('"')[1].removeprefix("unix:"))
            api = Path(str(socket).replace("east", terminal))
            wait_until(api.exists, f"{terminal} answers", deadline_s=ANSWER_S_MAX)
    assert "recovered to" in "".join(said)
    assert "read 1048576/1048576 bytes" in said[-1]
    assert "verification failed" not in said[-1]
