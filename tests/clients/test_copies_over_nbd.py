"""Backup programs that nobody here wrote see copies and what changed between them, and need nothing else."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isochrone.nbd.client import connect
from isochrone.testing.processes import ControllerProcess
from support.programs import run, run_json
from support.site import running_site

pytestmark = pytest.mark.clients

MIB = 1 << 20
BLOCK = 4096
SIZE_BYTES = 64 * MIB
CHANGED = "isochrone:changed:"


@pytest.fixture(scope="module")
def running() -> Iterator[ControllerProcess]:
    """One controller for all of these tests: each has volumes of its own."""
    with running_site() as site:
        yield site.controller("east", pool_size="512MiB")


@pytest.fixture
def controller(running: ControllerProcess) -> Iterator[ControllerProcess]:
    yield running
    for copy in reversed(running.get("/v1/copies")["copies"]):
        running.delete(f"/v1/copies/{copy['name']}")
    for volume in running.get("/v1/volumes"):
        running.delete(f"/v1/volumes/{volume['name']}")


def copy(controller: ControllerProcess, name: str, *, writable: bool = False, source: str = "data") -> None:
    controller.post("/v1/copies", {"volumes": [source], "name": name, "writable": writable})


def pattern(
    controller: ControllerProcess, value: int, offset: int, length: int, volume: str = "data"
) -> None:
    """Write with QEMU."""
    run("qemu-io", "-f", "raw", "-c", f"write -P {value} {offset} {length}", controller.uri(volume))


def extents(controller: ControllerProcess, volume: str, context: str) -> list[tuple[int, int, int]]:
    """Return (offset, length, type) as libnbd sees it; neighbours of one type joined."""
    found: list[tuple[int, int, int]] = []
    for part in run_json("nbdinfo", f"--map={context}", "--json", controller.uri(volume)):
        offset, length, kind = part["offset"], part["length"], part["type"]
        if found and found[-1][2] == kind:
            length += found.pop()[1]
            offset -= length - part["length"]
        found.append((offset, length, kind))
    return found


def changed(controller: ControllerProcess, volume: str, name: str) -> list[tuple[int, int]]:
    """Return the ranges of `volume` that changed since copy `name`, as libnbd sees them."""
    return [
        (offset, length) for offset, length, kind in extents(controller, volume, CHANGED + name) if kind & 1
    ]


def test_nbdinfo_sees_a_snapshot_with_its_contexts_and_what_it_is(controller: ControllerProcess) -> None:
    controller.create_volume("data", SIZE_BYTES)
    copy(controller, "mon")
    copy(controller, "tue")
    (told,) = run_json("nbdinfo", "--json", controller.uri("data@tue"))["exports"]
    assert told["is_read_only"] is True
    assert told["contexts"] == ["base:allocation", f"{CHANGED}mon"]
    assert told["description"].startswith("snapshot of data, taken 20")
    (live,) = run_json("nbdinfo", "--json", controller.uri("data"))["exports"]
    assert live["contexts"] == ["base:allocation", f"{CHANGED}mon", f"{CHANGED}tue"]
    listed = run_json("nbdinfo", "--list", "--json", f"nbd+unix:///?socket={controller.nbd_socket}")[
        "exports"
    ]
    assert [export["export-name"] for export in listed] == ["data", "data@mon", "data@tue"]


def test_nbdinfo_maps_data_and_changes_of_a_snapshot_and_of_a_live_volume(
    controller: ControllerProcess,
) -> None:
    controller.create_volume("data", SIZE_BYTES)
    pattern(controller, 1, 0, MIB)
    copy(controller, "mon")
    pattern(controller, 2, 512 * 1024, MIB)
    copy(controller, "tue")
    run("qemu-io", "-f", "raw", "-c", "discard 0 256k", controller.uri("data"))
    half = 512 * 1024
    assert extents(controller, "data@mon", "base:allocation") == [(0, MIB, 0), (MIB, SIZE_BYTES - MIB, 3)]
    assert extents(controller, "data@tue", "base:allocation")[0] == (0, MIB + half, 0)
    assert changed(controller, "data@tue", "mon") == [(half, MIB)]
    assert changed(controller, "data", "tue") == [(0, MIB // 4)]
    assert changed(controller, "data", "mon") == [(0, MIB // 4), (half, MIB)]
    told = controller.command_json("copy", "diff", "mon", "data")["changed"]
    assert [(one["offset"], one["length"]) for one in told] == changed(controller, "data", "mon")


def test_qemu_takes_the_changes_as_a_dirty_bitmap(controller: ControllerProcess) -> None:
    controller.create_volume("data", SIZE_BYTES)
    pattern(controller, 1, 0, 4 * MIB)
    copy(controller, "mon")
    pattern(controller, 2, MIB, MIB)
    copy(controller, "tue")
    options = f"driver=nbd,export=data@tue,server.type=unix,server.path={controller.nbd_socket}"
    mapped: list[dict[str, Any]] = run_json(
        "qemu-img", "map", "--output=json", "--image-opts", f"{options},x-dirty-bitmap={CHANGED}mon"
    )
    dirty = [(part["start"], part["length"]) for part in mapped if not part["data"]]
    assert dirty == [(MIB, MIB)]


def test_a_fragmented_map_comes_whole_in_bounded_answers(controller: ControllerProcess) -> None:
    controller.create_volume("data", SIZE_BYTES)
    copy(controller, "mon")
    with connect(controller.nbd_socket, "data") as client:
        for number in range(0, SIZE_BYTES // BLOCK, 2):
            client.write(number * BLOCK, b"x" * BLOCK)
    assert SIZE_BYTES // BLOCK // 2 > 2 * 4096 - 1
    assert changed(controller, "data", "mon") == [
        (at * BLOCK, BLOCK) for at in range(0, SIZE_BYTES // BLOCK, 2)
    ]


def read_ranges(
    controller: ControllerProcess, volume: str, ranges: list[tuple[int, int]]
) -> dict[int, bytes]:
    with connect(controller.nbd_socket, volume) as client:
        return {offset: bytes(client.read(offset, length)) for offset, length in _pieces(ranges)}


def _pieces(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, length in ranges:
        for start in range(offset, offset + length, MIB):
            yield start, min(MIB, offset + length - start)


def write_at_random(controller: ControllerProcess, draw: random.Random) -> None:
    with connect(controller.nbd_socket, "data") as client:
        for _ in range(200):
            length = draw.choice((512, BLOCK, 3 * BLOCK, 65536))
            offset = draw.randrange(0, SIZE_BYTES - length, 512)
            if draw.random() < 0.2:
                client.trim(offset, length)
            else:
                client.write(offset, draw.randbytes(length))


def test_a_full_backup_and_three_incremental_ones_restore_every_state(
    controller: ControllerProcess, tmp_path: Path
) -> None:
    draw = random.Random(5)
    controller.create_volume("data", SIZE_BYTES)
    write_at_random(controller, draw)
    names = ["full", "inc1", "inc2", "inc3"]
    copy(controller, names[0])
    full = tmp_path / "full.img"
    run("nbdcopy", controller.uri("data@full"), full)
    increments: list[dict[int, bytes]] = []
    for before, name in itertools.pairwise(names):
        write_at_random(controller, draw)
        copy(controller, name)
        increments.append(
            read_ranges(controller, f"data@{name}", changed(controller, f"data@{name}", before))
        )
    assert all(0 < sum(map(len, one.values())) < SIZE_BYTES // 4 for one in increments)
    controller.create_volume("restored", SIZE_BYTES)
    run("nbdcopy", full, controller.uri("restored"))
    for name, increment in zip(names, [{}, *increments], strict=True):
        with connect(controller.nbd_socket, "restored") as client:
            for offset, data in increment.items():
                client.write(offset, data)
        run(
            "qemu-img",
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            controller.uri(f"data@{name}"),
            controller.uri("restored"),
        )


def test_a_writable_copy_is_written_by_qemu_and_its_origin_is_not(controller: ControllerProcess) -> None:
    controller.create_volume("data", SIZE_BYTES)
    pattern(controller, 1, 0, MIB)
    copy(controller, "mon")
    copy(controller, "trial", writable=True, source="data@mon")
    pattern(controller, 7, 0, BLOCK, volume="data-trial")
    assert changed(controller, "data-trial", "mon") == [(0, BLOCK)]
    run("qemu-io", "-r", "-f", "raw", "-c", f"read -P 1 0 {MIB}", controller.uri("data@mon"))
    said = run("qemu-io", "-f", "raw", "-c", "write 0 4096", controller.uri("data@mon"), exit_codes=(0, 1))
    assert "wrote" not in said
