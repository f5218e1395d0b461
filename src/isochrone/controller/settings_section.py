"""What all parts of a settings file share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file: no unknown key, frozen, defaults validated like what is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
