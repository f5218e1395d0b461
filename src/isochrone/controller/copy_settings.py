"""`[[copy.schedule]]`: copies that a controller makes by itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from isochrone.controller.settings_section import Section
from isochrone.copies.schedule import (
    EVERY_S_MAX,
    EVERY_S_MIN,
    KEEP_MAX,
    NS_PER_S,
    SCHEDULE_COUNT_MAX,
    SCHEDULE_NAME_LENGTH_MAX,
    VOLUMES_PER_COPY_MAX,
    Schedule,
)
from isochrone.model.durations import parse_duration_s
from isochrone.model.errors import RefusedError
from isochrone.model.names import check_name
from isochrone.model.volume_kind import check_any_volume_name

_EVERY = "a length of time from 1s to 366d, as in 90s, 30m, 12h or 7d"


def _every_s(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a length of time: write {_EVERY}")
    try:
        every_s = parse_duration_s(value)
    except RefusedError as error:
        raise ValueError(error.message) from error
    if not EVERY_S_MIN <= every_s <= EVERY_S_MAX:
        raise ValueError(f"{value} is too short or too long: write {_EVERY}")
    return every_s


def _schedule_name(value: str) -> str:
    try:
        check_name(value, "schedule")
    except RefusedError as error:
        raise ValueError(error.message) from error
    if len(value) > SCHEDULE_NAME_LENGTH_MAX:
        raise ValueError(f"{value!r} is too long: write at most {SCHEDULE_NAME_LENGTH_MAX} characters")
    return value


def _volume_name(value: str) -> str:
    try:
        return check_any_volume_name(value)
    except RefusedError as error:
        raise ValueError(error.message) from error


def _unique(values: list[str]) -> list[str]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice; leave it there once")
    return values


class ScheduleSection(Section):
    """One `[[copy.schedule]]`."""

    name: Annotated[str, AfterValidator(_schedule_name)] = Field(
        description=f"a name of at most {SCHEDULE_NAME_LENGTH_MAX} letters, digits, '.', '_' or '-'; its copies begin "
        "with it"
    )
    volumes: Annotated[
        list[Annotated[str, AfterValidator(_volume_name)]],
        AfterValidator(_unique),
        Field(min_length=1, max_length=VOLUMES_PER_COPY_MAX),
    ] = Field(description='a list of volumes that are copied at one instant, as in ["db", "wal"]')
    every: Annotated[float, BeforeValidator(_every_s)] = Field(description=_EVERY)
    keep: int = Field(ge=1, le=KEEP_MAX, description=f"how many of its copies stay, from 1 to {KEEP_MAX}")

    def schedule(self) -> Schedule:
        """Return it as the rooms below know it."""
        return Schedule(self.name, tuple(self.volumes), int(self.every * NS_PER_S), self.keep)


def _named_once(values: list[ScheduleSection]) -> list[ScheduleSection]:
    _unique([value.name for value in values])
    return values


class CopySection(Section):
    """`[copy]`: point-in-time copies."""

    schedule: Annotated[
        list[ScheduleSection], AfterValidator(_named_once), Field(max_length=SCHEDULE_COUNT_MAX)
    ] = Field(default=[], description="sections [[copy.schedule]] with name, volumes, every and keep")
