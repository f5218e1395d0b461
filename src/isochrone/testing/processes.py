"""Real controllers as child processes, with a settings file, a log and a signal each.

What the demonstration, the scenario tests and the benchmark start. Sockets are unix sockets in the
controller's folder, so nothing collides with another run; the folder's path must be short (unix(7): 107
bytes).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from isochrone.model.errors import IsochroneError

READY_S_MAX: Final = 30.0
STOP_S_MAX: Final = 15.0
COMMAND_S_MAX: Final = 120.0
API_S_MAX: Final = 10.0
POLL_S: Final = 0.02
"""Pause between two looks at a condition."""

Settings = Mapping[str, Mapping[str, object]]
"""Section -> key -> value of a settings file."""


class ProcessError(IsochroneError):
    """A controller or a command of a test run did not do what it should; the text holds its output."""

    code = "process"


def wait_until(condition: Callable[[], bool], what: str, *, deadline_s: float) -> None:
    """Return once `condition()` is true; ProcessError naming `what` after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise ProcessError(f"{what}: still not so after {deadline_s:g} s")
        time.sleep(POLL_S)


class ControllerProcess:
    """One controller: `isochrone controller run` with settings in `folder`.

    Args:
        folder: made when missing; holds settings, pool, sockets and log.
        name: the controller's name.
        runtime_dir: shared by all controllers that play on one host.
        pool_size: as in a settings file.
        settings: sections and keys that replace or extend what is chosen here.
        link_address: where movers reach it; a unix socket in its folder when None.
        command_prefix: a program that puts the controller into another place (a network namespace) and becomes it.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        runtime_dir: Path,
        pool_size: str = "1GiB",
        settings: Settings | None = None,
        link_address: str | None = None,
        command_prefix: Sequence[str | Path] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self.nbd_socket = folder / "nbd.sock"
        self.link_address = link_address or f"unix:{folder / 'link.sock'}"
        self.api_address = f"unix:{folder / 'api.sock'}"
        self.log_path = folder / "log"
        self._settings_path = folder / "controller.toml"
        self._command_prefix = tuple(map(str, command_prefix))
        self._process: subprocess.Popen[bytes] | None = None
        self._http: httpx.Client | None = None
        chosen: dict[str, dict[str, object]] = {
            "controller": {"name": name, "runtime_dir": str(runtime_dir)},
            "pool": {"path": str(folder / "pool"), "size": pool_size},
            "nbd": {"listen": [f"unix:{self.nbd_socket}"]},
            "link": {"listen": [self.link_address]},
            "api": {"listen": self.api_address},
        }
        for section, values in (settings or {}).items():
            chosen.setdefault(section, {}).update(values)
        self._settings_path.write_text(_toml(chosen))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id of the running controller."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """True between start and the end of the process, whatever ended it."""
        return self._process is not None and self._process.poll() is None

    def uri(self, volume: str) -> str:
        """NBD URI of a volume."""
        return f"nbd+unix:///{volume}?socket={self.nbd_socket}"

    def start(self) -> None:
        """Start the process and wait until its API answers."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the process and do not wait: several can come up at once."""
        if self.is_running:
            raise ProcessError(f"controller {self.name} runs already")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command_prefix, *PROGRAM, "controller", "run", str(self._settings_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"ISOCHRONE_TRACEBACK": "1"},
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until the API answers; ProcessError with the end of the log when it does not."""
        wait_until(self._answers, f"controller {self.name} answers", deadline_s=READY_S_MAX)

    def stop(self) -> None:
        """Ask for a clean stop (SIGTERM) and wait for it. ProcessError when it is late or not clean."""
        process = self._running()
        process.terminate()
        try:
            code = process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"controller {self.name} did not stop in {STOP_S_MAX:g} s\n{self.tail()}"
            ) from None
        self._forget()
        if code != 0:
            raise ProcessError(f"controller {self.name} stopped with exit code {code}\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL: the process dies where it stands. Nothing happens when it does not run."""
        kill_together([self])

    def get(self, path: str) -> Any:
        """Return the JSON that the API answers to GET `path`, as in `/v1/status`."""
        return self._request("GET", path)

    def post(self, path: str, body: object) -> Any:
        """Send `body` to `path` of the API and return the answer: a command would cost a process each time."""
        return self._request("POST", path, body)

    def delete(self, path: str) -> Any:
        """Delete what is at `path` of the API; return the answer, None where there is none."""
        return self._request("DELETE", path)

    def create_volume(self, name: str, size_bytes: int) -> None:
        """Create a volume through the API."""
        self.post("/v1/volumes", {"name": name, "size_bytes": size_bytes})

    def command(self, *words: str) -> str:
        """Run `isochrone words...` with this controller; return its output, ProcessError when it fails."""
        done = subprocess.run(
            [*PROGRAM, *words],
            env=os.environ | {"ISOCHRONE_CONTROLLER": self.api_address},
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        if done.returncode != 0:
            said = f"{done.stdout}{done.stderr}{self.tail()}"
            raise ProcessError(f"isochrone {' '.join(words)}: exit code {done.returncode}\n{said}")
        return done.stdout

    def command_json(self, *words: str) -> Any:
        """Run a command with `--json` and return what it says."""
        return json.loads(self.command(*words, "--json"))

    def log_lines(self) -> list[str]:
        """Return what the controller wrote to its log so far, over all its starts."""
        return self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []

    def tail(self, line_count: int = 30) -> str:
        """Return the end of the log, for a message."""
        return "\n".join([f"--- log of {self.name}:", *self.log_lines()[-line_count:]])

    def _request(self, method: str, path: str, body: object = None) -> Any:
        if self._http is None:
            transport = httpx.HTTPTransport(uds=self.api_address.removeprefix("unix:"))
            self._http = httpx.Client(transport=transport, base_url="http://controller", timeout=API_S_MAX)
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ProcessError(f"{method} {path} at {self.name}: {error}\n{self.tail()}") from error
        if response.is_error:
            raise ProcessError(f"{method} {path} at {self.name}: {response.status_code} {response.text}")
        return response.json() if response.content else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ProcessError(f"controller {self.name} does not run\n{self.tail()}")
        return self._process

    def _answers(self) -> bool:
        self._running()
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(self.api_address.removeprefix("unix:")) != 0:
                return False
        self.get("/v1/status")
        return True

    def _forget(self) -> None:
        if self._http is not None:
            self._http.close()
        self._http = self._process = None


def kill_together(controllers: Sequence[ControllerProcess]) -> None:
    """SIGKILL all of the controllers, as a site's loss does: all signals first, then the waiting."""
    processes = [controller._process for controller in controllers]
    for process in processes:
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    for controller, process in zip(controllers, processes, strict=True):
        if process is not None:
            process.wait()
        controller._forget()


PROGRAM: Final = (sys.executable, "-m", "isochrone")
"""The command line of this very installation, also where its script is not on the path."""


def _toml(sections: Settings) -> str:
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)
