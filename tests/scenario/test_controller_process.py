"""One real controller: what it serves survives what it must, and it says plainly why it does not start."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from isochrone.nbd.client import NbdClient, connect
from isochrone.testing.processes import PROGRAM, ControllerProcess, wait_until
from support.site import Site

MIB = 1 << 20
RUN_S_MAX = 30.0


def open_volume(controller: ControllerProcess, name: str) -> NbdClient:
    return connect(controller.nbd_socket, name)


def log_events(controller: ControllerProcess) -> list[str]:
    return [json.loads(line)["event"] for line in controller.log_lines()]


@pytest.fixture
def controller(site: Site) -> ControllerProcess:
    controller = site.controller("a", pool_size="64MiB")
    controller.create_volume("data", 16 * MIB)
    return controller


def test_an_acknowledged_write_survives_a_kill(controller: ControllerProcess) -> None:
    block = os.urandom(64 << 10)
    with open_volume(controller, "data") as client:
        client.write(0, block)
        client.write(8 * MIB + 512, b"small")
        controller.kill()
    controller.start()
    with open_volume(controller, "data") as client:
        assert client.read(0, len(block)) == block
        assert client.read(8 * MIB + 511, 7) == b"\0small\0"
    (volume,) = controller.get("/v1/volumes")
    assert volume["mapped_bytes"] == (64 << 10) + 4096


def test_sigterm_ends_it_cleanly_and_nothing_is_lost(controller: ControllerProcess) -> None:
    with open_volume(controller, "data") as client:
        client.write(4096, b"x" * 4096)
    controller.stop()
    assert log_events(controller)[-1] == "stopped"
    assert not controller.nbd_socket.exists()
    controller.start()
    with open_volume(controller, "data") as client:
        assert client.read(4096, 4096) == b"x" * 4096


def test_sigterm_does_not_wait_for_idle_clients(controller: ControllerProcess) -> None:
    with open_volume(controller, "data"), socket.socket(socket.AF_UNIX) as halfway:
        halfway.connect(str(controller.nbd_socket))
        controller.stop()


def test_volumes_are_created_resized_and_deleted_and_it_is_durable(controller: ControllerProcess) -> None:
    controller.command("volume", "create", "wal", "4MiB")
    controller.command("volume", "resize", "wal", "8MiB")
    controller.command("volume", "delete", "data", "--yes")
    controller.kill()
    controller.start()
    assert [(volume["name"], volume["size_bytes"]) for volume in controller.get("/v1/volumes")] == [
        ("wal", 8 * MIB)
    ]


def test_a_volume_in_use_is_neither_deleted_nor_resized(controller: ControllerProcess) -> None:
    with open_volume(controller, "data") as client:
        for words in (("delete", "data", "--yes"), ("resize", "data", "32MiB")):
            done = isochrone("volume", *words, "--controller", controller.api_address)
            assert done.returncode == 4
            assert "disconnect its clients first" in done.stderr
        client.write(0, b"still there")


def test_the_status_says_what_clients_did(controller: ControllerProcess) -> None:
    with open_volume(controller, "data") as client:
        client.write(0, b"x" * 8192)
        client.read(0, 4096)
        status = controller.get("/v1/status")
    (volume,) = status["volumes"]
    assert volume["connection_count"] == 1
    assert (volume["write_count"], volume["written_bytes"]) == (1, 8192)
    assert (volume["read_count"], volume["read_bytes"]) == (1, 4096)
    assert status["controller"]["nbd_addresses"] == [f"unix:{controller.nbd_socket}"]
    assert 0 < status["controller"]["memory_bytes"] < status["controller"]["memory_bytes_max"]


def test_a_pool_that_is_in_use_is_not_opened_twice(controller: ControllerProcess) -> None:
    text = (controller.folder / "controller.toml").read_text()
    second = controller.folder / "second.toml"
    second.write_text(text.replace(".sock", ".second"))
    done = isochrone("controller", "run", str(second))
    assert done.returncode == 5
    assert f"process {controller.pid}" in done.stderr
    assert "stop that controller first" in done.stderr


def test_an_address_that_is_in_use_is_named_with_its_setting(controller: ControllerProcess) -> None:
    text = (controller.folder / "controller.toml").read_text()
    second = controller.folder / "second.toml"
    second.write_text(text.replace("/pool", "/pool2"))
    done = isochrone("controller", "run", str(second))
    assert done.returncode == 5
    assert "link.listen" in done.stderr
    with open_volume(controller, "data") as client:
        client.write(0, b"the first one serves on")


def test_bad_settings_are_refused_with_file_key_and_cure(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[controller]\nname = "a"\n[pool]\npath = "p"\nsize = "64MiB"\npreallocat = true\n')
    done = isochrone("controller", "run", str(path))
    assert done.returncode == 2
    assert f"{path}: pool.preallocat: is not a setting; did you mean pool.preallocate?" in done.stderr
    assert not (tmp_path / "p").exists()


def test_a_missing_pool_without_a_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'[controller]\nname = "a"\nruntime_dir = "{tmp_path}"\n[pool]\npath = "nowhere"\n')
    done = isochrone("controller", "run", str(path))
    assert done.returncode == 3
    assert "pool.size" in done.stderr


def test_a_second_signal_does_not_wait_for_a_client_that_does_not_read(controller: ControllerProcess) -> None:
    with open_volume(controller, "data") as client:
        for _ in range(200):
            client.submit_read(0, MIB)  # more than the socket holds, and never taken
        os.kill(controller.pid, signal.SIGTERM)
        wait_until(lambda: "stopping" in log_events(controller), "it is stopping", deadline_s=RUN_S_MAX)
        controller.stop()
    assert log_events(controller)[-1] == "stopped"


def test_a_service_manager_is_told_when_it_serves(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(RUN_S_MAX)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        controller = site.controller("a", pool_size="64MiB")
        assert manager.recv(64) == b"READY=1"
        controller.stop()
        assert manager.recv(64) == b"STOPPING=1"


def test_two_controllers_of_a_host_agree_on_host_time(site: Site) -> None:
    first, second = (site.controller(name, pool_size="64MiB") for name in ("a", "b"))
    before = first.get("/v1/status")["controller"]["host_time_ns"]
    between = second.get("/v1/status")["controller"]["host_time_ns"]
    after = first.get("/v1/status")["controller"]["host_time_ns"]
    assert before < between < after


def test_a_damaged_agreement_on_host_time_is_refused_with_the_cure(tmp_path: Path) -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    agreement = tmp_path / f"host-time.{boot_id}"
    agreement.write_text("garbage")
    path = tmp_path / "a.toml"
    path.write_text(
        f'[controller]\nname = "a"\nruntime_dir = "{tmp_path}"\n[pool]\npath = "p"\nsize = "16MiB"\n'
    )
    done = isochrone("controller", "run", str(path))
    assert done.returncode == 2
    assert f"{agreement} does not hold the host time of this boot" in done.stderr
    assert "remove the file" in done.stderr


def test_an_error_of_a_core_ends_the_process_at_once_with_its_traceback() -> None:
    program = (
        "from isochrone.controller.failing import die\n"
        "from isochrone.controller.logs import configure_logs\n"
        "from isochrone.controller.settings import LogFormat, LogLevel\n"
        "configure_logs(LogFormat.JSON, LogLevel.INFO, 'a')\n"
        "try:\n    {}['a bug']\n"
        "except KeyError as error:\n    die(error)\n"
        "print('not reached')\n"
    )
    done = subprocess.run(
        [PROGRAM[0], "-c", program], capture_output=True, text=True, timeout=RUN_S_MAX, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    line = json.loads(done.stderr)
    assert line["level"] == "critical"
    assert line["controller"] == "a"
    assert line["error"] == "KeyError: 'a bug'"
    assert line["exception"]


def isochrone(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
