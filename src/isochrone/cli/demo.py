"""`isochrone demo`: two sites, a disaster and a proof, on this machine."""

from __future__ import annotations

import typer


def demo() -> None:
    """Show a disaster and the proof, in a minute.

    Two primary controllers and a secondary, a workload, the primary site killed in mid-write, recovery.

    Starts processes of its own in a temporary folder and touches nothing else. Exit code 1 if anything is
    off.
    """
    from isochrone.demo.main import main as run_demo

    raise typer.Exit(run_demo())
