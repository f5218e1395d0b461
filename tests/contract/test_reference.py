"""docs/reference.md and the program name the same things."""

from __future__ import annotations

import re
from pathlib import Path

from isochrone.api.app import create_app
from isochrone.api.errors import STATUS_BY_ERROR
from isochrone.cli.exits import EXIT_CODE_MEANINGS, exit_code
from isochrone.cli.options import CONTROLLER_DEFAULT, CONTROLLER_VARIABLE
from isochrone.controller.settings import API_LISTEN_DEFAULT
from isochrone.report.metrics import FAMILIES
from support.cli import every_command, every_option
from support.fake_operations import FakeOperations

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_reference_and_no_other() -> None:
    named = {
        tuple(word for word in line.split() if word.islower() and not word.startswith("-"))
        for line in re.findall(r"^\| `isochrone ([^`]+)` \|", REFERENCE, re.MULTILINE)
    }
    assert named == set(every_command())


def test_every_option_is_in_the_reference() -> None:
    named = set(re.findall(r"(--[a-z-]+)", REFERENCE))
    assert every_option() - named == set()


def test_every_exit_code_is_in_the_reference_and_no_other() -> None:
    named = dict(re.findall(r"^\| (\d+) \| (.+) \|$", REFERENCE, re.MULTILINE))
    assert named == {str(code.value): text for code, text in EXIT_CODE_MEANINGS.items()}


def test_every_request_is_in_the_reference_and_no_other() -> None:
    named = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", REFERENCE, re.MULTILINE))
    paths = create_app(FakeOperations()).openapi()["paths"]
    assert named == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_error_code_is_in_the_reference_with_its_status_and_exit_code() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \|", REFERENCE, re.MULTILINE)
    assert set(named) == {
        (kind.code, str(status), str(exit_code(kind("")).value)) for kind, status in STATUS_BY_ERROR.items()
    }


def test_every_metric_is_in_the_reference_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(isochrone_\w+)` \| (\w+) \| (.*) \| (.+) \|$", REFERENCE, re.MULTILINE)
    named = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    kinds = {True: "counter", False: "gauge"}
    assert named == {
        family.name: (kinds[family.name.endswith("_total")], family.labels, family.text)
        for family in FAMILIES
    }


def test_metrics_of_the_alerts_exist() -> None:
    alerts = REFERENCE.partition("Alerts to begin with")[2]
    assert set(re.findall(r"isochrone_\w+", alerts)) <= {family.name for family in FAMILIES}


def test_a_controller_listens_where_the_commands_look_for_it() -> None:
    assert str(API_LISTEN_DEFAULT).replace("tcp:", "http://") == CONTROLLER_DEFAULT
    assert CONTROLLER_DEFAULT in REFERENCE
    assert CONTROLLER_VARIABLE in REFERENCE
