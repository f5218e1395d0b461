"""What all reports share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Base of all reports.

    Frozen. Unknown fields are ignored, so an older client reads a newer controller.
    """

    model_config = ConfigDict(frozen=True)
