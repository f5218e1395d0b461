"""What a controller remembers of a test image: a document in the pool, in one record of the log with its volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from isochrone.link.messages import U64, Identity, Name
from isochrone.model.errors import DamagedError

IMAGE_PREFIX: Final = "image/"


class ImageMember(BaseModel):
    """`volume` shows what `secondary` was."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    secondary: str
    volume: str


class ImageDocument(BaseModel):
    """Writable volumes that show those of a session at one instant.

    Attributes:
        session, image: names. session_id: of the session, whoever bears its name later.
        at_ns: the instant, host time of the primaries. made_ns: when it was made, host time here.
        left_out: secondaries of the session that it has no image of at that instant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    session: Name
    session_id: Identity
    image: Name
    at_ns: U64
    made_ns: U64
    members: tuple[ImageMember, ...]
    left_out: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the document in the pool."""
        return f"{IMAGE_PREFIX}{self.session}/{self.image}"

    def dump(self) -> bytes:
        """Return the document's bytes."""
        return self.model_dump_json().encode()


def load_image(key: str, value: bytes) -> ImageDocument:
    """Return the document stored under `key`. Raises DamagedError when it does not read."""
    try:
        return ImageDocument.model_validate_json(value)
    except ValidationError as error:
        raise DamagedError(f"pool document {key!r} does not read: {error}", document=key) from error


def images_in(documents: Mapping[str, bytes]) -> list[ImageDocument]:
    """Return all images of a pool, by session and name."""
    keys = sorted(key for key in documents if key.startswith(IMAGE_PREFIX))
    return [load_image(key, documents[key]) for key in keys]
