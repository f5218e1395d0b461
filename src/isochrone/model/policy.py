"""What an operator asks of a session's primaries: one value that the session keeps, tells its primaries, and they keep."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from isochrone.model.choices import OverflowPolicy

Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 64)]


class SessionPolicy(BaseModel):
    """Settings that primaries obey. Every field has a default, so that a session is created with those given only.

    Attributes:
        overflow_policy: what a primary does when its side file approaches the limit.
        pace_delay_ns_max: longest delay of one acknowledgement under OverflowPolicy.PACE.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    overflow_policy: OverflowPolicy = OverflowPolicy.PACE
    pace_delay_ns_max: Nanoseconds = 100_000_000

    def changed(self, **fields: object) -> SessionPolicy:
        """Return a copy with `fields` replaced."""
        return self.model_copy(update=fields)
