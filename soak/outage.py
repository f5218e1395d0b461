"""`python -m soak.outage`: no link for a while under 4 KiB random writes, longer than the side file lasts.

Two things are measured and proved.

- What is sent once the link is back: at most 1.05 times the distinct tracks that were written (marks did the work, and
  nothing is sent twice).
- What a disaster would leave at any moment between the cut and DUPLEX, writes going on: the secondary is killed at random
  moments, a copy of its pool is recovered elsewhere, and its image must be exactly one instant of the writes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from isochrone.nbd.client import connect
from isochrone.testing.processes import wait_until
from soak.sites import WEST, Place, Sites, SoakError
from soak.versions import BLOCK_BYTES, Places, VersionWriter, check_versions
from support.logs import unexpected_lines
from support.network import network_forbidden, running_network

PRIMARIES: Final = ("east-1", "east-2")
VOLUME_BYTES: Final = 128 << 20
POOL_BYTES: Final = 1 << 30
SIDE_FILE_MAX: Final = "4MiB"
SENT_RATIO_MAX: Final = 1.05
UNMARKED_S_MAX: Final = 60.0
RESYNC_RATE_BYTES_PER_S: Final = 24 << 20
"""Of the link while images are looked at: a resync that takes long enough to be met in its middle."""
LOOKED_AT_PAUSE_S: Final = 0.001
"""Between two writes meanwhile: less than the link takes, so that the resync comes to an end."""
EXPECTED_LOG: Final = (
    r"other hosts can reach this address",
    r"SUSPENDED.*the side file reached its limit.*(session|capture) changed",
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What an outage cost once the link was back.

    Attributes:
        distinct_tracks: written during the outage.
        sent_bytes: received by the mover from then until DUPLEX, headers included.
        ratio: of those to the bytes of the tracks.
    """

    outage_s: float
    write_count: int
    distinct_tracks: int
    sent_bytes: int
    ratio: float
    duplex_s: float


@dataclass(frozen=True, slots=True)
class Looked:
    """One copy of the secondary that was recovered: when, at which write it stands, and the newest one acknowledged then."""

    moment: str
    newest: int
    acknowledged: int


class Outage:
    """A running session over volumes of two primaries, and the writer of all of them."""

    def __init__(self, sites: Sites, seed: int) -> None:
        self._sites = sites
        self._random = random.Random(seed)
        self._volumes: list[Place] = [
            sites.create_volume(controller, f"random-{number}", VOLUME_BYTES)
            for number, controller in enumerate(sites.east)
        ]
        self._clients = [connect(place.controller.nbd_socket, place.volume) for place in self._volumes]
        self._block_count = VOLUME_BYTES // BLOCK_BYTES
        self._places = Places(seed, self._block_count * len(self._volumes))
        self._writer = VersionWriter(self._clients, self._block_count, self._places, sites.host_time_ns)
        sites.create_session()

    def close(self) -> None:
        """Close the applications' connections."""
        for client in self._clients:
            client.close()

    def measure(self, outage_s: float) -> Sent:
        """Cut both links for `outage_s` while writing; stop writing, heal, and count what is sent until DUPLEX."""
        wait_until(self._is_unmarked, "nothing is marked", deadline_s=UNMARKED_S_MAX)
        received_bytes = self._sites.report()["byte_count"]
        self._cut()
        self._writer.start()
        self._sites.pass_time(outage_s)
        self._writer.finish()
        self._sites.network.heal()
        settled = self._sites.settle()
        if not settled.suspensions:
            raise SoakError(
                "the side file did not overflow: a longer outage, or a smaller side file, is wanted"
            )
        sent_bytes = self._sites.report()["byte_count"] - received_bytes
        written = len(set(self._places.through(self._writer.issued).tolist()))
        self._sites.compare()
        return Sent(
            outage_s,
            self._writer.issued,
            written,
            sent_bytes,
            sent_bytes / (written * BLOCK_BYTES),
            settled.seconds,
        )

    def look(self, outage_s: float, look_count: int) -> list[Looked]:
        """Cut both links while writing goes on, and recover copies of the secondary until it is DUPLEX again.

        The first half of the copies is made in the outage, the other in the resync.
        """
        self._writer = self._writer.continued(LOOKED_AT_PAUSE_S)
        self._writer.start()
        self._sites.network.limit_rate(WEST, RESYNC_RATE_BYTES_PER_S)
        self._sites.pass_time(1.0)
        self._cut()
        looked = []
        in_outage = look_count // 2
        for _ in range(in_outage):
            self._sites.pass_time(outage_s / in_outage * self._random.uniform(0.5, 1.0))
            looked.append(self._recover_copy("in the outage"))
        self._sites.network.heal()
        for _ in range(look_count - in_outage):
            self._sites.wait_resync()
            self._sites.pass_time(self._random.uniform(0.0, 1.5))
            looked.append(self._recover_copy("after the outage"))
        self._writer.finish()
        self._sites.network.unlimit_rate()
        self._sites.settle()
        self._sites.compare()
        return looked

    def _recover_copy(self, moment: str) -> Looked:
        report = self._sites.report()
        states = {pair["state"] for pair in report["pairs"]}
        with self._sites.recovered_copy() as (copy, recovered_ns):
            image = b"".join(self._sites.image(copy, place) for place in self._volumes)
        finding = check_versions(image, self._places)
        if finding.fault_count:
            raise SoakError(f"a copy recovered {moment} is no instant: {'; '.join(finding.faults)}")
        known = self._writer.acknowledged_through(recovered_ns)
        if not known <= finding.newest <= self._writer.issued:
            raise SoakError(
                f"a copy recovered {moment} ends with write {finding.newest}; by its time {known} was acknowledged, "
                f"{self._writer.issued} was issued last"
            )
        return Looked(
            f"{moment}, pairs {'/'.join(sorted(states))}", finding.newest, self._writer.acknowledged
        )

    def _cut(self) -> None:
        for controller in self._sites.east:
            self._sites.network.cut(controller.name, WEST)

    def _is_unmarked(self) -> bool:
        return all(
            volume["marked_track_count"] == 0
            for controller in self._sites.east
            for capture in controller.get("/v1/captures")
            for volume in capture["volumes"]
        )


@contextlib.contextmanager
def running_outage(seed: int) -> Iterator[Outage]:
    """An Outage on controllers of its own; raises SoakError at the end for log lines that were not expected."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="iso-outage-", dir=base))
    try:
        with running_network(*PRIMARIES, WEST) as network:
            sites = Sites(
                folder,
                network,
                PRIMARIES,
                pool_size_bytes=POOL_BYTES,
                settings={name: {"capture": {"side_file_max": SIDE_FILE_MAX}} for name in PRIMARIES},
                session_settings={"overflow_policy": "suspend"},
            )
            try:
                sites.start()
                with contextlib.closing(Outage(sites, seed)) as outage:
                    yield outage
            finally:
                sites.kill()
        unexpected = [line for lines in sites.logs.values() for line in unexpected_lines(lines, EXPECTED_LOG)]
        if unexpected:
            raise SoakError("log lines that nobody expected:\n" + "\n".join(unexpected[:10]))
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m soak.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each outage (%(default)s)")
    parser.add_argument("--looks", type=int, default=10, help="copies that are recovered (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of places and moments (%(default)s)")
    chosen = parser.parse_args()
    if reason := network_forbidden():
        sys.exit(f"the outage cannot be run here: {reason}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running_outage(chosen.seed) as outage:
        sent = outage.measure(chosen.seconds)
        print(json.dumps(asdict(sent), indent=1), flush=True)
        for looked in outage.look(chosen.seconds, chosen.looks):
            print(json.dumps(asdict(looked)), flush=True)
    if sent.ratio > SENT_RATIO_MAX:
        sys.exit(f"{sent.ratio:.3f} times the written tracks were sent, {SENT_RATIO_MAX} is the limit")


if __name__ == "__main__":
    main()
