"""A real file tree as one image, and the proof that an image still holds it.

The tree is what every machine with Python has: its standard library. The image is a tar archive, the
checksums are kept apart from it.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FAULTS_MAX = 20


@dataclass(frozen=True, slots=True)
class PackedTree:
    """A packed tree: the image, and the SHA-256 of each file by its name within the tree."""

    image: bytes
    checksums: Mapping[str, str]


def pack_tree(folder: Path, *, size_bytes_max: int) -> PackedTree:
    """Pack the regular files below `folder`, in order of their names, until the image would exceed a size."""
    buffer = io.BytesIO()
    checksums: dict[str, str] = {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or "__pycache__" in path.parts:
                continue
            data = path.read_bytes()
            if buffer.tell() + len(data) + 4 * tarfile.RECORDSIZE > size_bytes_max:
                break
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            checksums[entry.name] = hashlib.sha256(data).hexdigest()
    return PackedTree(buffer.getvalue(), checksums)


def check_tree(image: bytes, checksums: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the tree in `image`: nothing when every file is there with its checksum.

    The names of at most FAULTS_MAX bad files are given.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(image), mode="r") as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                if file is not None:
                    found[entry.name] = hashlib.sha256(file.read()).hexdigest()
    except tarfile.TarError as error:
        return [f"the image is no archive any more: {error}"]
    missing = [f"{name} is missing" for name in checksums if name not in found]
    changed = [f"{name} differs" for name, digest in found.items() if checksums.get(name) != digest]
    return (missing + changed)[:FAULTS_MAX]
