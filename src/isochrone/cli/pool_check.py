"""What `isochrone pool check` does: take the pool's lock, prove the files, tell what was found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from isochrone.cli.output import show_json
from isochrone.model.errors import BusyError, NotFoundError, UnavailableError
from isochrone.store.check import PROBLEM_COUNT_MAX, CheckReport, check_pool
from isochrone.store.os_disk import OsDisk
from isochrone.store.superblock import SUPERBLOCK_NAME


def check_folder(path: Path) -> CheckReport:
    """Return what is wrong with the pool in the folder `path`.

    Raises:
        NotFoundError: there is no pool.
        BusyError: a controller has it open.
        RefusedError: a later version wrote it.
        UnavailableError: the folder or its disk cannot be read.
    """
    try:
        disk = OsDisk(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if SUPERBLOCK_NAME not in disk.names():
            raise NotFoundError(f"{path} holds no pool: name the folder that pool.path names", path=str(path))
        disk.lock()
        return check_pool(disk)
    except BusyError as error:
        raise BusyError(
            f"a controller has the pool in {path} open: stop it first, or ask it with 'isochrone pool show'",
            path=str(path),
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        disk.close()


def show_findings(path: Path, report: CheckReport, *, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        show_json({"path": str(path), "is_clean": report.is_clean, **asdict(report)})
        return
    for problem in report.problems:
        typer.echo(f"{problem.file} at byte {problem.offset}: {problem.text}")
    for note in report.notes:
        typer.echo(f"note: {note}")
    if report.is_clean:
        typer.echo(
            f"{path}: clean; {report.volume_count} volumes, {report.used_track_count} of {report.track_count} tracks "
            f"used ({report.staged_track_count} staged), {report.page_count} table pages, "
            f"{report.log_record_count} log records"
        )
        return
    more = " or more" if len(report) == PROBLEM_COUNT_MAX else ""
    typer.echo(
        f"{path}: DAMAGED; {len(report)}{more} problems. Keep these files, and bring the volumes back from the other site"
    )


def _unreadable(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"{path} cannot be read ({error.strerror}): check it as the user that runs the controller",
        path=str(path),
    )
