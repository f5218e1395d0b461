"""What may be asked about point-in-time copies."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from isochrone.api.requests import Name, Request
from isochrone.model.errors import RefusedError
from isochrone.model.volume_kind import check_any_volume_name

VOLUMES_PER_COPY_MAX: Final = 1024
EXTENTS_PER_RELATION_MAX: Final = 4096
EXPIRES_AFTER_S_MAX: Final = 100 * 366 * 86_400.0
DIFF_EXTENTS_MAX: Final = 65_536
"""Ranges in one answer."""


def _volume_name(name: str) -> str:
    try:
        return check_any_volume_name(name)
    except RefusedError as error:
        raise ValueError(error.message) from error


AnyVolumeName = Annotated[str, AfterValidator(_volume_name)]
"""Of a volume of any kind, also a snapshot."""
Offset = Annotated[int, Field(ge=0, lt=1 << 48)]
Length = Annotated[int, Field(gt=0, le=1 << 48)]


class CreateCopyRequest(Request):
    """A copy of volumes at one instant.

    Attributes:
        volumes: what is copied: volumes, or copies of them.
        name: of the copy; default is the time.
        writable: make volumes that can be written, not snapshots.
        expires_after_s: delete it by itself after so long. Default never.
    """

    volumes: Annotated[list[AnyVolumeName], Field(min_length=1, max_length=VOLUMES_PER_COPY_MAX)]
    name: Name | None = None
    writable: bool = False
    expires_after_s: Annotated[float, Field(ge=1, le=EXPIRES_AFTER_S_MAX, allow_inf_nan=False)] | None = None


class RestoreRequest(Request):
    """Which sources of a copy are set back to it; none named means all."""

    volumes: list[AnyVolumeName] = Field(default_factory=list, max_length=VOLUMES_PER_COPY_MAX)


class ExtentRequest(Request):
    """A range of bytes: whole tracks."""

    source_offset: Offset
    target_offset: Offset
    length: Length


class EstablishRequest(Request):
    """A flash copy of `source` onto the existing volume `target`: all of it, or `extents`."""

    source: AnyVolumeName
    target: AnyVolumeName
    extents: (
        Annotated[list[ExtentRequest], Field(min_length=1, max_length=EXTENTS_PER_RELATION_MAX)] | None
    ) = None
