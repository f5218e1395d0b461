"""Requests about a session's past: instants to name, images, and what of it is wanted."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from isochrone.api.requests import MomentRequest, Name, Request
from isochrone.model.errors import RefusedError
from isochrone.model.instants import check_instant_text

HARDEN_WAIT_S_MAX: Final = 60.0


def _text(text: str) -> str:
    try:
        return check_instant_text(text)
    except RefusedError as error:
        raise ValueError(error.message) from error


class NameInstantRequest(Request):
    """Name the present of a session, at one of its primaries.

    Attributes:
        text: one line.
        wait_s: for the secondary to have it durably, at most; 0 for not at all.
    """

    text: Annotated[str, AfterValidator(_text)]
    wait_s: Annotated[float, Field(ge=0, le=HARDEN_WAIT_S_MAX)] = 30.0


class CreateImageRequest(MomentRequest):
    """Writable volumes that show a session's at one instant: that of the committed image, unless another is given.

    Attributes:
        image: its name; default is the time.
    """

    image: Name | None = None
