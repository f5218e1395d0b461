"""`isochrone demo`: the whole story, told in under a minute.

Two controllers of an eastern site hold three volumes; a western one holds their copies. A real file tree is put on one
volume; an application writes to the other two, each write depending on the one before. Then the eastern site is
killed in mid-write, the western one recovers, and what it serves over NBD is held against what was written.
"""

from __future__ import annotations

import contextlib
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from isochrone.demo.chain import ChainFinding, ChainLayout, check_chain
from isochrone.demo.tree import PackedTree, check_tree, pack_tree
from isochrone.demo.view import LiveView
from isochrone.demo.workload import ChainWriter
from isochrone.model.errors import IsochroneError
from isochrone.model.sizes import format_size, parse_size
from isochrone.nbd.client import NbdClient, connect
from isochrone.testing.processes import ControllerProcess, ProcessError, kill_together

MIB: Final = 1 << 20
SESSION: Final = "shop"
LAYOUT: Final = ChainLayout(volume_count=2, slot_count=1000)
TREE_BYTES_MAX: Final = 48 * MIB
VOLUME_SIZE: Final = "64MiB"
VOLUME_BYTES: Final = parse_size(VOLUME_SIZE)
POOL_SIZE: Final = "320MiB"
PIECE_BYTES: Final = MIB
"""One NBD request of the bulk copies."""
DUPLEX_S_MAX: Final = 40.0
LOOK_INTERVAL_S: Final = 0.1
RUN_S: Final = 8.0
"""How long the session runs on before the site is lost."""
LOST_MS_MAX: Final = 5000.0
"""More than this is no recovery of a healthy session, whatever its image looks like."""


@dataclass(frozen=True, slots=True)
class Sites:
    """The controllers: two of the east, one of the west."""

    east: tuple[ControllerProcess, ControllerProcess]
    west: ControllerProcess

    @property
    def volumes(self) -> list[tuple[ControllerProcess, str]]:
        """Every primary volume with its controller: the tree's, then the chain's."""
        return [(self.east[0], "files"), (self.east[0], "orders"), (self.east[1], "ledger")]


def main(console: Console | None = None, *, run_s: float = RUN_S) -> int:
    """Tell the story on `console`; return 0, or 1 if anything was off."""
    console = console or Console(highlight=False)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iso-demo-") as folder, contextlib.ExitStack() as stack:
        sites = _make_sites(Path(folder), stack)
        try:
            faults = _tell(sites, console, run_s)
        except (IsochroneError, OSError) as error:
            faults = [str(error)]
            if not isinstance(error, ProcessError):
                faults += [controller.tail() for controller in (*sites.east, sites.west)]
        kill_together([*sites.east, sites.west])
    for fault in faults:
        console.print(f"[red]OFF[/] {escape(fault)}")
    if not faults:
        console.print(f"[green]All as promised[/], in {time.monotonic() - started:.0f} s.")
    return 1 if faults else 0


def _tell(sites: Sites, console: Console, run_s: float) -> list[str]:
    _say(console, "Two sites: east with two controllers, west with one; each is a process of its own")
    for controller in (*sites.east, sites.west):
        controller.launch()
    for controller in (*sites.east, sites.west):
        controller.wait_ready()
    for controller, volume in sites.volumes:
        _command(console, controller, "volume", "create", volume, VOLUME_SIZE)

    tree = pack_tree(Path(sysconfig.get_path("stdlib")), size_bytes_max=TREE_BYTES_MAX)
    _say(
        console,
        f"A file tree of {len(tree.checksums)} files, {format_size(len(tree.image))}, to volume files",
    )
    with _client(sites.east[0], "files") as files:
        _put(files, tree.image)

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_client(*place)) for place in sites.volumes[1:]]
        writer = ChainWriter(clients, LAYOUT)
        _say(console, "An application writes to orders (east-1) and ledger (east-2) in turn, each write")
        console.print("  only after the one before was acknowledged")
        writer.start()
        _replicate(sites, writer, console, run_s)
        _say(console, "SIGKILL to the whole eastern site, in mid-write")
        kill_together(sites.east)
        writer.join()

    _say(console, "West takes over")
    console.print(
        _command(console, sites.west, "session", "recover", SESSION, "--yes").rstrip(), markup=False
    )
    return _prove(sites, tree, writer, console)


def _replicate(sites: Sites, writer: ChainWriter, console: Console, run_s: float) -> None:
    """Create the session, wait until it is DUPLEX, and let it run on for `run_s` seconds."""
    words = ["session", "create", SESSION]
    for controller in sites.east:
        words += ["--primary", f"{controller.name}={controller.link_address}"]
    for controller, volume in sites.volumes:
        words += ["--pair", f"{controller.name}:{volume}"]
    _command(console, sites.west, *words)
    duplex_by = time.monotonic() + DUPLEX_S_MAX
    end: float | None = None
    with LiveView(console) as view:
        while end is None or time.monotonic() < end:
            report: dict[str, Any] = sites.west.get(f"/v1/sessions/{SESSION}")
            view.update(report, writer.acknowledged)
            if writer.end is not None:
                raise ProcessError(f"the application's writes failed: {writer.end}")
            if end is None and all(pair["state"] == "DUPLEX" for pair in report["pairs"]):
                end = time.monotonic() + run_s
            if end is None and time.monotonic() > duplex_by:
                raise ProcessError(
                    f"the session is not DUPLEX after {DUPLEX_S_MAX:g} s: {report['blocked_on']}"
                )
            time.sleep(LOOK_INTERVAL_S)


def _prove(sites: Sites, tree: PackedTree, writer: ChainWriter, console: Console) -> list[str]:
    """Hold what west serves over NBD against what was written; return what is wrong."""
    _say(console, "Proof, read from west over NBD")
    images = []
    for _, volume in sites.volumes[1:]:
        with _client(sites.west, volume) as client:
            images.append(_get(client, LAYOUT.volume_size_bytes))
    finding = check_chain(images, LAYOUT)
    faults = [*finding.faults, *_judge(finding, writer)]
    console.print(
        f"  orders, ledger: writes 1 to {finding.newest:,} are there, {finding.fault_count} slots are wrong"
    )
    with _client(sites.west, "files") as client:
        tree_faults = check_tree(_get(client, len(tree.image)), tree.checksums)
    console.print(f"  files: {len(tree.checksums):,} checksums compared, {len(tree_faults)} differ")
    with _client(sites.west, "ledger") as client:
        client.write(VOLUME_BYTES - PIECE_BYTES, b"in service")
        if client.read(VOLUME_BYTES - PIECE_BYTES, 10) != b"in service":
            faults.append("west does not keep what is written to it")
    lost = max(0, writer.acknowledged - finding.newest)
    console.print(
        f"  lost: [bold]{writer.lost_ms(finding.newest):.1f} ms, {lost:,} writes[/] of {writer.acknowledged:,} acknowledged"
    )
    return faults + tree_faults


def _judge(finding: ChainFinding, writer: ChainWriter) -> list[str]:
    """What is wrong with a prefix that ends with this write."""
    faults = []
    if finding.newest == 0:
        faults.append("nothing of the application's writes is there")
    if finding.newest > writer.issued:
        faults.append(f"write {finding.newest} is there, but the newest one issued was {writer.issued}")
    if writer.lost_ms(finding.newest) > LOST_MS_MAX:
        faults.append(f"more than {LOST_MS_MAX:g} ms were lost")
    return faults


def _make_sites(folder: Path, stack: contextlib.ExitStack) -> Sites:
    def make(name: str) -> ControllerProcess:
        return stack.enter_context(
            ControllerProcess(
                folder / name,
                name,
                runtime_dir=folder / "run",
                pool_size=POOL_SIZE,
                settings={"pool": {"preallocate": False}},
            )
        )

    return Sites((make("east-1"), make("east-2")), make("west"))


def _client(controller: ControllerProcess, volume: str) -> NbdClient:
    return connect(controller.nbd_socket, volume)


def _put(client: NbdClient, image: bytes) -> None:
    view = memoryview(image)
    for offset in range(0, len(image), PIECE_BYTES):
        client.submit_write(offset, view[offset : offset + PIECE_BYTES])
    client.drain()
    client.flush()


def _get(client: NbdClient, size_bytes: int) -> bytes:
    return b"".join(
        client.read(offset, min(PIECE_BYTES, size_bytes - offset))
        for offset in range(0, size_bytes, PIECE_BYTES)
    )


def _say(console: Console, text: str) -> None:
    console.print(f"[bold cyan]*[/] {escape(text)}")


def _command(console: Console, controller: ControllerProcess, *words: str) -> str:
    """Show the command as a person would type it, run it, return what it prints."""
    console.print(
        f"  {controller.name}$ isochrone {' '.join(words)}", markup=False, style="dim", overflow="fold"
    )
    return controller.command(*words)
