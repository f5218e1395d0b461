"""The project's own door and papers agree with what is in the tree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from isochrone.model.states import PairState, SessionState

ROOT = Path(__file__).parents[2]


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def test_make_help_describes_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    described = {
        line.split()[1] for line in told.splitlines() if line.startswith("  make ") and line.split()[2:]
    }
    assert described == targets()
    assert {"bench", "check", "demo", "help", "sim", "test"} <= described


def test_continuous_integration_runs_check_and_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make check", "make test"]


def test_the_lock_holds_every_dependency_with_hashes_and_names_no_host() -> None:
    text = (ROOT / "requirements-dev.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    locked = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    assert {re.split(r"[<>=~! \[]", requirement)[0] for requirement in wanted} <= locked
    assert len(re.findall(r"^\S+==", text, re.MULTILINE)) <= text.count("--hash=sha256:")
    assert "://" not in text


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", requirement), requirement


@pytest.mark.parametrize("state", [*PairState, *SessionState])
def test_the_glossary_knows_every_state(state: str) -> None:
    assert f"**{state}**" in (ROOT / "docs" / "glossary.md").read_text()


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_within_the_papers_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_every_folder_of_tests_is_described() -> None:
    told = (ROOT / "tests" / "README.md").read_text()
    for folder in (ROOT / "tests").iterdir():
        if folder.is_dir() and any(folder.glob("test_*.py")):
            assert f"| `{folder.name}/` |" in told
