"""One turn of one job on one server, and the lag while writes come in."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from bench.jobs import Job, Sample, run_fio
from bench.processes import (
    anonymous_memory_bytes,
    cpu_seconds,
    machine_busy_seconds,
    waited_children_seconds,
)
from bench.results import Lag, percentile
from bench.servers import Server

LAG_SAMPLES_PER_S: Final = 20.0


def measure(server: Server, job: Job, *, volume_size_bytes: int, runtime_s: float, folder: Path) -> Sample:
    """Run `job` on `server` once."""
    with server.turn():
        began_s, fio_s, all_s = time.monotonic(), waited_children_seconds(), machine_busy_seconds()
        server_s = cpu_seconds(server.pids)
        result = run_fio(
            job, server.uris, volume_size_bytes=volume_size_bytes, runtime_s=runtime_s, folder=folder
        )
        server_s = cpu_seconds(server.pids) - server_s
        foreign_s = machine_busy_seconds() - all_s - server_s - (waited_children_seconds() - fio_s)
        available_s = (time.monotonic() - began_s) * (os.cpu_count() or 1)
    return Sample(
        iops=result.iops,
        bytes_per_s=result.bytes_per_s,
        latency_us_p50=result.latency_us_p50,
        latency_us_p99=result.latency_us_p99,
        cpu_s_per_million=server_s / result.operation_count * 1e6,
        foreign_cpu_share=max(0.0, foreign_s / available_s),
    )


def measure_lag(
    server: Server, job: Job, *, rate_iops: int, volume_size_bytes: int, runtime_s: float, folder: Path
) -> Lag:
    """Hold `job` at `rate_iops` and look at the lag of the consistency time the while."""
    with server.turn():
        sampler = _Sampler(server)
        sampler.start()
        try:
            run_fio(
                job,
                server.uris,
                volume_size_bytes=volume_size_bytes,
                runtime_s=runtime_s,
                folder=folder,
                rate_iops=rate_iops,
            )
        finally:
            sampler.finish()
        bounds = {c.name: c.get("/v1/status")["controller"]["memory_bytes_max"] for c in server.controllers}
    return Lag(
        rate_iops=rate_iops,
        lag_ms_p50=percentile(sampler.lags_ms, 50),
        lag_ms_p99=percentile(sampler.lags_ms, 99),
        sample_count=len(sampler.lags_ms),
        memory_bytes_max=sampler.memory_bytes_max,
        memory_bytes_bound=bounds,
    )


class _Sampler(threading.Thread):
    """Looks at lag and memory at a steady pace until told to finish."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="lag sampler")
        self.lags_ms: list[float] = []
        self.memory_bytes_max = {controller.name: 0 for controller in server.controllers}
        self._server = server
        self._finished = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._finished.wait(1 / LAG_SAMPLES_PER_S):
                self._look()
        except Exception as error:
            self._error = error

    def finish(self) -> None:
        """Stop, and raise what went wrong meanwhile."""
        self._finished.set()
        self.join()
        if self._error is not None:
            raise self._error

    def _look(self) -> None:
        lag_ms = self._server.session()["consistency"]["lag_ms"]
        if lag_ms is None:
            raise RuntimeError("the session reports no lag: it is not running")
        self.lags_ms.append(lag_ms)
        for controller in self._server.controllers:
            used = anonymous_memory_bytes(controller.pid)
            self.memory_bytes_max[controller.name] = max(self.memory_bytes_max[controller.name], used)
