"""A PostgreSQL cluster with data and log on two file systems, and a record of what it acknowledged."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isochrone.testing.processes import wait_until
from support.programs import PROGRAM_S_MAX, ProgramError, run

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 60.0
BENCH_S_MAX: Final = 24 * 3600
DATABASE: Final = "postgres"
_USER: Final = "postgres"
_SETTINGS: Final = {
    "autovacuum_naptime": "1s",
    "checkpoint_timeout": "30s",
    "listen_addresses": "''",
    "max_wal_size": "32MB",
    "min_wal_size": "8MB",
    "shared_buffers": "16MB",
}
"""Small, so that pages are evicted and checkpoints happen also in a test of seconds."""


class Cluster:
    """One cluster: tables below `data`, write-ahead log below `wal`; server messages go to `log_path`."""

    def __init__(self, data: Path, wal: Path, log_path: Path) -> None:
        self.folder = data / "cluster"
        self._wal = wal / "wal"
        self._socket_folder = log_path.parent
        self._log_path = log_path
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """initdb with data checksums."""
        for folder in (self.folder.parent, self._wal.parent, self._socket_folder):
            shutil.chown(folder, _USER, _USER)
        words = ["--data-checksums", "--wal-segsize=1", "--auth=trust", f"--username={_USER}", "--no-sync"]
        _run("initdb", *words, f"--waldir={self._wal}", f"--pgdata={self.folder}")
        settings = _SETTINGS | {"unix_socket_directories": f"'{self._socket_folder}'"}
        with (self.folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    def move_in(self) -> None:
        """Take over files that a cluster had at other paths on this host, while that one goes on."""
        link = self.folder / "pg_wal"
        link.unlink()
        link.symlink_to(self._wal)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)  # of a process that still runs
        shutil.chown(self._socket_folder, _USER, _USER)
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{self._socket_folder}'\n")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the server, after a crash with its own recovery; stop it cleanly, or kill it on an error."""
        self.start()
        try:
            yield
        except BaseException:
            self.kill()
            raise
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        with self._log_path.open("ab") as log:
            self._server = _start("postgres", "-D", str(self.folder), stdout=log, stderr=log)
        wait_until(self._answers, "PostgreSQL answers", deadline_s=START_S_MAX)

    def stop(self) -> None:
        """Stop cleanly."""
        _run("pg_ctl", "stop", "--mode=fast", "--wait", f"--pgdata={self.folder}")
        assert self._server is not None
        self._server.wait(STOP_S_MAX)

    def kill(self) -> None:
        """SIGKILL every process of the server: one that waits for a lock would outlive the first one's death."""
        if self._server is not None and self._server.poll() is None:
            pid = self._server.pid
            os.kill(pid, signal.SIGSTOP)  # it starts no more processes while they are listed
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(int(child), signal.SIGKILL)
            self._server.kill()
            self._server.wait()

    def query(self, statement: str) -> str:
        """Return what psql prints for a statement: rows of values separated by `|`."""
        return _run("psql", *self._psql_words(), "--command", statement).strip()

    def fill_bench(self) -> None:
        """Make pgbench's tables."""
        _run("pgbench", "--initialize", "--scale=1", "--quiet", f"--host={self._socket_folder}", DATABASE)

    def start_bench(self, rate_per_s: int | None = None) -> subprocess.Popen[bytes]:
        """Start pgbench with two clients, as fast as it goes or at a rate, until it is killed or its server is."""
        words = ["--client=2", f"--time={BENCH_S_MAX}", "--no-vacuum", f"--host={self._socket_folder}"]
        words += [f"--rate={rate_per_s}"] if rate_per_s else []
        words.append(DATABASE)
        return _start("pgbench", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def amcheck(self) -> None:
        """Prove that every table and index is sound and that they agree."""
        options = ["--heapallindexed", "--parent-check", "--rootdescend", "--no-strict-names"]
        _run("pg_amcheck", *options, f"--host={self._socket_folder}", "--database", DATABASE)

    def check_checksums(self) -> None:
        """Check the checksum of every page; the server must be stopped."""
        _run("pg_checksums", "--check", f"--pgdata={self.folder}")

    def open_psql(self) -> subprocess.Popen[str]:
        """Start a psql that takes statements on its standard input."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return _start("psql", *self._psql_words(), **pipes, text=True)

    def tail(self) -> str:
        """Return the end of the server's messages."""
        return self._log_path.read_text(errors="replace")[-4000:]

    def _psql_words(self) -> list[str]:
        words = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        return [*words, f"--host={self._socket_folder}", DATABASE]

    def _answers(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            raise ProgramError(f"PostgreSQL did not start:\n{self.tail()}")
        try:
            self.query("SELECT 1")
        except ProgramError:
            return False
        return True


@dataclass(slots=True)
class CommitLog:
    """What one client was told: its committed numbers with the host time at which it knew.

    It inserts 1, 2, 3, ... into `commits`, each in a transaction of its own, until its server is gone, and thinks for
    `pause_s` between two.
    """

    cluster: Cluster
    writer: int
    now_ns: Callable[[], int]
    next_number: int = 1
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    pause_s: float = 0.0
    _psql: subprocess.Popen[str] | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._psql = self.cluster.open_psql()
        self._thread = threading.Thread(target=self._write, name=f"writer {self.writer}", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the end; the server must have been killed or psql would go on."""
        assert self._psql is not None
        assert self._thread is not None
        self._psql.kill()
        self._thread.join(START_S_MAX)
        assert not self._thread.is_alive(), "the writer hangs"
        self._psql.wait()
        for stream in (self._psql.stdin, self._psql.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # an unsent statement is of no use any more
                stream.close()

    def acknowledged_through(self, time_ns: int) -> int:
        """Return the highest number whose commit was known at `time_ns`, 0 for none."""
        return max((number for number, known_ns in self.acknowledged if known_ns <= time_ns), default=0)

    def _write(self) -> None:
        assert self._psql is not None
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # the server is gone, and psql with it
            while True:
                number = self.next_number
                self._psql.stdin.write(
                    f"INSERT INTO commits VALUES ({self.writer}, {number}) RETURNING number;\n"
                )
                self._psql.stdin.flush()
                if self._psql.stdout.readline().strip() != str(number):
                    return
                self.acknowledged.append((number, self.now_ns()))
                self.next_number = number + 1
                time.sleep(self.pause_s)


@functools.cache
def program_folder() -> Path:
    """Return the folder of the newest installed PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_amcheck"), key=lambda path: int(path.parts[4]))
    if not found:
        raise ProgramError("no PostgreSQL server with pg_amcheck is installed: run make programs")
    return found[-1].parent


def _run(program: str, *words: str) -> str:
    return run(program_folder() / program, *words, deadline_s=PROGRAM_S_MAX, user=_USER)


def _start(program: str, *words: str, **streams: Any) -> subprocess.Popen[Any]:
    """Start a program of PostgreSQL as its user (it refuses to run as root), in a process group of its own."""
    return subprocess.Popen(
        [str(program_folder() / program), *words],
        **streams,
        start_new_session=True,
        cwd="/",
        user=_USER,
        group=_USER,
        extra_groups=[],
    )
