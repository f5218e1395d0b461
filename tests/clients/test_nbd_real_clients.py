"""libnbd's and QEMU's tools and fio against the NBD server alone, over exports in memory.

`test_nbd_tools` does the same with volumes of a real controller; what stands here is what a controller's volumes do not
show: read-only exports, sectors as the smallest block, TCP, plain replies, held replies, and a failure that ends with us.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from isochrone.nbd.constants import REQUEST_LENGTH_MAX
from support.images import write_image
from support.nbd_memory import MemoryExport, RunningServer, running_server
from support.programs import ProgramError, run, run_json

pytestmark = pytest.mark.clients

MIB = 1 << 20
SIZE_BYTES = 32 * MIB
CAPABILITIES = ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero")


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport("data", SIZE_BYTES)


@pytest.fixture
def running(tmp_path: Path, export: MemoryExport) -> Iterator[RunningServer]:
    sectors = MemoryExport("sectors", SIZE_BYTES, block_size_min=512, block_size_preferred=65536)
    archive = MemoryExport("archive", SIZE_BYTES, read_only=True)
    with running_server(tmp_path, export, sectors, archive) as server:
        yield server


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of SIZE_BYTES with data and holes."""
    path = tmp_path / "image"
    extents = (
        (0, 3 * MIB + 17),
        (9 * MIB, 4096),
        (20 * MIB + 4096, 5 * MIB),
        (31 * MIB, MIB),
    )
    write_image(path, SIZE_BYTES, extents)
    return path


def seen(uri: str) -> dict[str, object]:
    (export,) = run_json("nbdinfo", "--json", uri)["exports"]
    assert isinstance(export, dict)
    return export


def test_nbdinfo_sees_every_capability(running: RunningServer) -> None:
    export = seen(running.uri_of("data"))
    assert {name: export[f"can_{name}"] for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, True)
    assert (export["export-size"], export["is_read_only"]) == (SIZE_BYTES, False)
    assert (export["description"], export["contexts"]) == ("a volume in memory", ["base:allocation"])
    sizes = [export[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
    assert sizes == [1, 4096, REQUEST_LENGTH_MAX]


def test_nbdinfo_sees_sectors_and_large_tracks(running: RunningServer) -> None:
    export = seen(running.uri_of("sectors"))
    assert (export["block_size_minimum"], export["block_size_preferred"]) == (512, 65536)


def test_nbdinfo_sees_a_read_only_export_without_changes(running: RunningServer) -> None:
    export = seen(running.uri_of("archive"))
    assert export["is_read_only"] is True
    assert (export["can_trim"], export["can_zero"], export["can_fast_zero"]) == (False, False, False)


def test_nbdinfo_lists_every_export_over_tcp(running: RunningServer) -> None:
    listed = run_json("nbdinfo", "--json", "--list", f"nbd://127.0.0.1:{running.port}")
    assert sorted(export["export-name"] for export in listed["exports"]) == ["archive", "data", "sectors"]


@pytest.mark.parametrize("name", ["data", "sectors"])
def test_nbdcopy_there_and_back_keeps_every_byte(
    running: RunningServer, image: Path, tmp_path: Path, name: str
) -> None:
    back = tmp_path / "back"
    run("nbdcopy", "--flush", image, running.uri_of(name))
    run("nbdcopy", running.uri_of(name), back)
    assert back.read_bytes() == image.read_bytes()


def test_nbdcopy_uses_several_connections_and_leaves_holes_unmapped(
    running: RunningServer, export: MemoryExport, image: Path
) -> None:
    run("nbdcopy", "--connections=4", image, running.uri_of("data"))
    assert export.content == image.read_bytes()
    assert not any(export.mapped[4 * MIB // 4096 : 8 * MIB // 4096])


def test_qemu_img_reads_the_holes_where_they_are(running: RunningServer, export: MemoryExport) -> None:
    export.write(MIB, memoryview(random.Random(1).randbytes(MIB)))
    extents = run_json("qemu-img", "map", "--output=json", running.uri_of("data"))
    assert [(one["start"], one["length"]) for one in extents if one["data"]] == [(MIB, MIB)]


def test_qemu_img_converts_and_compares_equal(running: RunningServer, image: Path) -> None:
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", image, running.uri_of("sectors"))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, running.uri_of("sectors"))


@pytest.mark.parametrize("name", ["data", "sectors"])
def test_qemu_io_reads_what_it_wrote_zeroed_and_discarded(running: RunningServer, name: str) -> None:
    commands = (
        "write -P 0x11 0 1M",
        "write -f -P 0x22 512 512",
        "write -z 64k 64k",
        "write -z -u 256k 64k",
        "discard 512k 64k",
        "flush",
        "aio_write -P 0x33 2M 8M",
        "aio_write -P 0x44 12M 8M",
        "aio_flush",
        "read -P 0x11 0 512",
        "read -P 0x22 512 512",
        "read -P 0x11 1k 63k",
        "read -P 0 64k 64k",
        "read -P 0 256k 64k",
        "read -P 0x33 2M 8M",
        "read -P 0x44 12M 8M",
    )
    words = [word for command in commands for word in ("-c", command)]
    out = run("qemu-io", "-f", "raw", *words, running.uri_of(name))
    assert "Pattern verification failed" not in out
    assert "error" not in out.lower()


def test_qemu_io_cannot_write_to_a_read_only_export(running: RunningServer) -> None:
    with pytest.raises(ProgramError):
        run("qemu-io", "-f", "raw", "-c", "write 0 4k", running.uri_of("archive"))


@pytest.mark.parametrize("hold_ns", [0, 2_000_000])
def test_fio_verifies_four_jobs_at_depth_32_also_when_replies_are_held(
    running: RunningServer, export: MemoryExport, tmp_path: Path, hold_ns: int
) -> None:
    export.hold_ns = hold_ns
    run(
        "fio",
        "--name=verify",
        "--ioengine=nbd",
        f"--uri={running.uri_of('data')}",
        "--rw=randrw",
        "--bsrange=512-128k",
        "--iodepth=32",
        "--numjobs=4",
        "--size=8M",
        "--offset_increment=8M",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fsync=64",
        f"--aux-path={tmp_path}",
        f"--output={tmp_path / 'fio.log'}",
    )
    assert export.calls("flush")
