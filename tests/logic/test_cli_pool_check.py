from __future__ import annotations

import json
from pathlib import Path

import pytest

from isochrone.cli.exits import ExitCode
from isochrone.store.os_disk import OsDisk
from isochrone.store.page_slots import PAGES_NAME
from isochrone.store.pool import Pool
from support.cli import CommandLine


@pytest.fixture
def isochrone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    """A pool with one volume, closed."""
    path = tmp_path / "pool"
    disk = OsDisk(path, create=True)
    Pool.create(disk, size_bytes=4 << 20, preallocate=False)
    pool = Pool.open(disk)
    pool.create_volume("db", 1 << 20)
    pool.volumes["db"].write(0, bytes(8192))
    pool.close()
    disk.close()
    return path


def test_a_whole_pool_is_proved_clean(isochrone: CommandLine, pool_path: Path) -> None:
    result = isochrone("pool", "check", str(pool_path))
    assert (result.code, result.err) == (ExitCode.OK, "")
    assert "clean; 1 volumes, 2 of" in result.out
    answer = json.loads(isochrone("pool", "check", str(pool_path), "--json").out)
    assert answer["is_clean"] is True
    assert answer["problems"] == []


def test_damage_is_named_with_its_file_and_byte(isochrone: CommandLine, pool_path: Path) -> None:
    with (pool_path / PAGES_NAME).open("r+b") as pages:
        pages.write(b"\xff" * 4096)
    result = isochrone("pool", "check", str(pool_path))
    assert result.code == ExitCode.DAMAGED
    assert f"{PAGES_NAME} at byte 0" in result.out
    assert "DAMAGED; 1 problems" in result.out
    as_json = isochrone("pool", "check", str(pool_path), "--json")
    assert as_json.code == ExitCode.DAMAGED
    assert json.loads(as_json.out)["problems"][0]["file"] == PAGES_NAME


def test_a_pool_in_use_is_left_alone(isochrone: CommandLine, pool_path: Path) -> None:
    disk = OsDisk(pool_path)
    pool = Pool.open(disk)
    try:
        result = isochrone("pool", "check", str(pool_path))
    finally:
        pool.close()
        disk.close()
    assert result.code == ExitCode.UNAVAILABLE
    assert "stop it first" in result.err


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_folder_without_a_pool_is_not_found_and_stays_as_it_is(
    isochrone: CommandLine, tmp_path: Path, name: str
) -> None:
    assert isochrone("pool", "check", str(tmp_path / name)).code == ExitCode.NOT_FOUND
    assert list(tmp_path.iterdir()) == []
