"""The agreement on host time as a file, `RUNTIME_DIR/host-time.BOOT_ID`, made by whoever comes first.

The content is written to a file of its own name first and then linked to the agreed name, which fails when
another controller was faster: a reader finds no file or a whole one, and all read the same one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from isochrone.controller.host_time import CONTENT_BYTES_MAX, HostTime, decode_host_time, propose_host_time
from isochrone.model.errors import RefusedError


def host_time_path(runtime_dir: Path, boot_id: str) -> Path:
    """Return where the agreement of the boot `boot_id` is."""
    return runtime_dir / f"host-time.{boot_id}"


def agree_on_host_time(
    runtime_dir: Path, boot_id: str, monotonic_ns: Callable[[], int], wall_ns: Callable[[], int]
) -> HostTime:
    """Return the agreement of this boot; make it when there is none. Removes those of earlier boots.

    Raises:
        RefusedError: the folder or the file is not usable; says what to do.
    """
    path = host_time_path(runtime_dir, boot_id)
    try:
        runtime_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path, propose_host_time(boot_id, monotonic_ns(), wall_ns()).encode())
        with path.open("rb") as file:
            content = file.read(CONTENT_BYTES_MAX + 1)
        for other in runtime_dir.glob("host-time.*"):
            if not other.name.startswith(path.name):
                other.unlink(missing_ok=True)
    except OSError as error:
        raise RefusedError(
            f"controller.runtime_dir: {error.filename or runtime_dir}: {error.strerror}; name a folder that "
            "every controller of this host may write to",
            path=str(runtime_dir),
        ) from error
    return decode_host_time(content, boot_id=boot_id, monotonic_ns=monotonic_ns(), path=str(path))


def _create(path: Path, content: bytes) -> None:
    """Give `path` the `content`, unless it is there by then."""
    own = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        try:
            os.link(own, path)
        except FileExistsError:
            return  # another controller was faster: its agreement counts
    finally:
        own.unlink()
