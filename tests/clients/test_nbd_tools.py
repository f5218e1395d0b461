"""libnbd's and QEMU's tools and fio agree with the NBD server about everything it offers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from isochrone.testing.processes import ControllerProcess
from support.images import write_image
from support.programs import run, run_json
from support.site import running_site

pytestmark = pytest.mark.clients

MIB = 1 << 20
SIZE_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def running() -> Iterator[ControllerProcess]:
    """One controller for all of these tests: each has volumes of its own."""
    with running_site() as site:
        yield site.controller("east", pool_size="512MiB")


@pytest.fixture
def controller(running: ControllerProcess) -> Iterator[ControllerProcess]:
    yield running
    for volume in running.get("/v1/volumes"):
        running.delete(f"/v1/volumes/{volume['name']}")


@pytest.fixture
def uri(controller: ControllerProcess) -> str:
    controller.create_volume("data", SIZE_BYTES)
    return controller.uri("data")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of SIZE_BYTES with data, holes and a ragged end of data."""
    path = tmp_path / "image"
    extents = (
        (0, 3 * MIB + 17),
        (9 * MIB, 4096),
        (20 * MIB + 4096, 11 * MIB),
        (63 * MIB, MIB),
    )
    write_image(path, SIZE_BYTES, extents)
    return path


def test_nbdinfo_sees_every_capability(uri: str) -> None:
    (export,) = run_json("nbdinfo", "--json", uri)["exports"]
    assert export["export-size"] == SIZE_BYTES
    assert export["is_read_only"] is False
    assert export["contexts"] == ["base:allocation"]
    capabilities = ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero")
    assert {name: export[f"can_{name}"] for name in capabilities} == dict.fromkeys(capabilities, True)
    assert export["block_size_minimum"] in (1, 512)
    assert export["block_size_preferred"] == 4096
    assert export["block_size_maximum"] == 32 * MIB


def test_nbdinfo_lists_every_volume(controller: ControllerProcess) -> None:
    controller.create_volume("data", SIZE_BYTES)
    controller.create_volume("wal", MIB)
    listed = run_json("nbdinfo", "--list", "--json", f"nbd+unix:///?socket={controller.nbd_socket}")
    assert {(export["export-name"], export["export-size"]) for export in listed["exports"]} == {
        ("data", SIZE_BYTES),
        ("wal", MIB),
    }


def test_nbdinfo_speaks_to_a_fixed_newstyle_server_with_structured_replies(uri: str) -> None:
    told = run_json("nbdinfo", "--json", uri)
    assert told["protocol"] == "newstyle-fixed"
    assert told["structured"] is True


def test_a_missing_export_is_refused_and_the_server_lives_on(controller: ControllerProcess, uri: str) -> None:
    run("nbdinfo", controller.uri("missing"), exit_codes=(1,))
    assert run("nbdinfo", "--size", uri).strip() == str(SIZE_BYTES)


def test_nbdcopy_there_and_back_keeps_every_byte(uri: str, image: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    run("nbdcopy", "--flush", image, uri)
    run("nbdcopy", uri, back)
    run("cmp", image, back)


def test_nbdcopy_between_two_volumes_keeps_every_byte(
    controller: ControllerProcess, uri: str, image: Path, tmp_path: Path
) -> None:
    controller.create_volume("twin", SIZE_BYTES)
    back = tmp_path / "back"
    run("nbdcopy", image, uri)
    run("nbdcopy", "--connections=4", "--requests=32", uri, controller.uri("twin"))
    run("nbdcopy", controller.uri("twin"), back)
    run("cmp", image, back)


def test_holes_of_an_image_take_no_space(controller: ControllerProcess, uri: str, image: Path) -> None:
    run("nbdcopy", image, uri)
    runs = run_json("nbdinfo", "--map", "--json", uri)
    data_bytes = sum(part["length"] for part in runs if part["type"] == 0)
    assert sum(part["length"] for part in runs) == SIZE_BYTES
    assert 15 * MIB <= data_bytes <= 18 * MIB
    assert controller.get("/v1/volumes/data")["mapped_bytes"] == data_bytes


def test_qemu_img_converts_there_and_back_and_compares_equal(uri: str, image: Path, tmp_path: Path) -> None:
    back = tmp_path / "back.qcow2"
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, back)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, back)


def test_qemu_img_compare_sees_one_changed_byte(uri: str, image: Path) -> None:
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
    run("qemu-io", "-f", "raw", "-c", f"write -P 0xa5 {40 * MIB + 513} 1", uri)
    said = run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri, exit_codes=(1,))
    assert f"Content mismatch at offset {40 * MIB + 512}!" in said


def test_qemu_img_maps_data_and_holes_where_they_are(uri: str) -> None:
    run("qemu-io", "-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 8M 1M", uri)
    runs = run_json("qemu-img", "map", "--output=json", "-f", "raw", uri)
    data = [(part["start"], part["length"]) for part in runs if part["data"]]
    assert data == [(MIB, 65536), (8 * MIB, MIB)]
    assert all(part["zero"] for part in runs if not part["data"])


@pytest.mark.parametrize(
    "options", [(), ("-w",), ("-w", "--flush-interval=64")], ids=["read", "write", "flush"]
)
def test_qemu_img_bench_completes_with_many_requests_in_flight(uri: str, options: tuple[str, ...]) -> None:
    said = run("qemu-img", "bench", "-f", "raw", "-c", "4000", "-d", "32", *options, uri)
    assert "Run completed" in said


@pytest.mark.parametrize(
    ("first", "then", "pattern"),
    [
        ("write -f -P 7 4096 64k", None, 7),
        ("write -P 7 4096 64k", "write -z 4096 64k", 0),
        ("write -P 7 4096 64k", "write -z -u 4096 64k", 0),
        ("write -P 7 4096 64k", "write -z -f 4096 64k", 0),
        ("write -P 7 4096 64k", "discard 4096 64k", 0),
        ("write -P 7 4096 64k", "write -f -P 9 4096 64k", 9),
        ("writev -P 7 4096 16k 16k 16k 16k", "flush", 7),
    ],
)
def test_qemu_io_reads_what_it_wrote_zeroed_and_discarded(
    uri: str, first: str, then: str | None, pattern: int
) -> None:
    commands = [first, *([then] if then else []), f"read -P {pattern} 4096 64k", "read -P 0 0 4096"]
    said = run("qemu-io", "-f", "raw", *[word for command in commands for word in ("-c", command)], uri)
    assert "Pattern verification failed" not in said
    again = run("qemu-io", "-f", "raw", "-c", f"read -P {pattern} 4096 64k", uri)
    assert "Pattern verification failed" not in again


def test_qemu_io_writes_that_fill_no_whole_track_keep_their_neighbours(uri: str) -> None:
    said = run(
        "qemu-io",
        *("-f", "raw"),
        *("-c", "write -P 1 0 16k"),
        *("-c", "write -P 2 4608 6144"),
        *("-c", "write -z 512 512"),
        *("-c", "read -P 1 0 512"),
        *("-c", "read -P 0 512 512"),
        *("-c", "read -P 1 1024 3584"),
        *("-c", "read -P 2 4608 6144"),
        *("-c", "read -P 1 10752 5632"),
        uri,
    )
    assert "Pattern verification failed" not in said


def test_discarded_space_returns_to_the_pool(controller: ControllerProcess, uri: str) -> None:
    run("qemu-io", "-f", "raw", "-c", "write -P 3 0 32M", "-c", "flush", uri)
    full = controller.get("/v1/pool")
    assert controller.get("/v1/volumes/data")["mapped_bytes"] == 32 * MIB
    run("qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 0 32M", "-c", "flush", uri)
    assert controller.get("/v1/volumes/data")["mapped_bytes"] == 0
    assert controller.get("/v1/pool")["used_bytes"] == full["used_bytes"] - 32 * MIB


def test_fio_verifies_every_block_of_four_jobs_at_depth_32(uri: str, tmp_path: Path) -> None:
    output = tmp_path / "fio.json"
    run(
        "fio",
        *("--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bsrange=4k-64k"),
        *(
            "--iodepth=32",
            "--numjobs=4",
            f"--size={SIZE_BYTES // 4}",
            f"--offset_increment={SIZE_BYTES // 4}",
        ),
        *(
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_backlog=512",
            "--do_verify=1",
            "--serialize_overlap=1",
        ),
        *("--group_reporting", "--output-format=json", f"--output={output}"),
    )
    (job,) = json.loads(output.read_text())["jobs"]
    assert job["error"] == 0
    assert job["write"]["io_bytes"] >= SIZE_BYTES
    assert job["read"]["io_bytes"] >= SIZE_BYTES
