"""The settings of one controller: a TOML file, validated whole before anything starts.

Every fault of the file is reported at once, each as `FILE: section.key: what is wrong; what to write`.
Unknown keys are refused with the nearest known one, because a misspelt limit that is silently ignored is
found out in a disaster. Sizes are text with binary units (`64MiB`). Relative paths are taken from the folder
of the file. What is not written has a safe default: nothing listens beyond loopback unless it is told to.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic.fields import FieldInfo

from isochrone.controller.copy_settings import CopySection
from isochrone.controller.settings_faults import describe_fault
from isochrone.controller.settings_section import Section
from isochrone.model.addresses import Address, TcpAddress, parse_address
from isochrone.model.errors import RefusedError
from isochrone.model.names import NAME_LENGTH_MAX, check_name
from isochrone.model.sizes import (
    TRACK_SIZE_DEFAULT_BYTES,
    TRACK_SIZE_MAX_BYTES,
    TRACK_SIZE_MIN_BYTES,
    parse_size,
)
from isochrone.nbd.receive import RECEIVE_BUFFER_BYTES_MAX

MIB: Final = 1 << 20
NBD_LISTEN_DEFAULT: Final[Address] = TcpAddress("127.0.0.1", 10809)
LINK_LISTEN_DEFAULT: Final[Address] = TcpAddress("127.0.0.1", 7481)
API_LISTEN_DEFAULT: Final[Address] = TcpAddress("127.0.0.1", 7480)
RUNTIME_DIR_DEFAULT: Final = Path("/run/isochrone")
CLOCK_ERROR_MS_MAX: Final = 1000.0
"""Every acknowledgement waits for the clock error: more than a second is a broken clock, not a setting."""
INTERVAL_S_MAX: Final = 86_400.0
"""Marks that are kept for more than a day are a forgotten setting."""
CONNECTIONS_MAX: Final = 65536
LISTEN_MAX: Final = 16

RECEIVE_BUDGET_MIN_BYTES: Final = 34 * MIB
"""One request of the largest length must fit with its headers."""
assert RECEIVE_BUDGET_MIN_BYTES >= RECEIVE_BUFFER_BYTES_MAX
POOL_SIZE_MIN_BYTES: Final = MIB
WARN_LEVELS_MAX: Final = 16
SPILL_MIN_BYTES: Final = 128 * MIB
"""Two of its files."""

_LISTEN: Final = '"unix:/path" or "tcp:HOST:PORT", or a list of them'
_CONNECTIONS: Final = f"a number from 1 to {CONNECTIONS_MAX}"
_POLL: Final = "microseconds from 0 (never poll) to 1000"
_FOLDER: Final = "folder of the settings file"
"""Key of the validation context."""


class LogFormat(StrEnum):
    """How log lines are written to standard error."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least severe lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a size: write for example 4096, 512MiB, 10GiB or 1TiB")
    try:
        return parse_size(value)
    except RefusedError as error:
        raise ValueError(error.message) from error


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_address(value)
    except RefusedError as error:
        raise ValueError(error.message) from error


def _name(value: str) -> str:
    try:
        return check_name(value, "controller")
    except RefusedError as error:
        raise ValueError(error.message) from error


def _path(value: Path, info: ValidationInfo) -> Path:
    folder = info.context.get(_FOLDER) if info.context else None
    return (folder / value).resolve() if folder else value


def _is_any_port(address: Address) -> bool:
    return isinstance(address, TcpAddress) and address.port == 0


def _is_loopback(address: TcpAddress) -> bool:
    """True when only this host can reach it."""
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def _unique(values: list[Address]) -> list[Address]:
    twice = sorted({str(value) for value in values if values.count(value) > 1 and not _is_any_port(value)})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice; leave it there once")
    return values


def _track_size(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"{value} is not a power of two; write 4KiB, 8KiB, 16KiB, 32KiB or 64KiB")
    return value


def _spill_size(value: int) -> int:
    if 0 < value < SPILL_MIN_BYTES:
        raise ValueError(f"{value} is too little for a spill; write at least 128MiB, or 0 for none")
    return value


Size = Annotated[int, BeforeValidator(_size)]
"""Bytes, written as a number or as text with a unit."""
FilePath = Annotated[Path, AfterValidator(_path)]
"""Absolute; a relative one is taken from the folder of the settings file."""
Listen = Annotated[
    list[Annotated[Address, BeforeValidator(_address)]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    AfterValidator(_unique),
    Field(min_length=1, max_length=LISTEN_MAX, validate_default=True),
]
"""One address or a list of them."""


class HostSection(Section):
    """`[controller]`: who this controller is, and what it shares with its host."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        description=f"a name of 1 to {NAME_LENGTH_MAX} letters, digits, '.', '_' or '-'"
    )
    runtime_dir: FilePath = Field(
        default=RUNTIME_DIR_DEFAULT,
        description="a folder that every controller of this host shares: the host's time is agreed on in it",
    )
    log_format: LogFormat = Field(default=LogFormat.JSON, description='"json" or "text"')
    log_level: LogLevel = Field(default=LogLevel.INFO, description='"debug", "info", "warning" or "error"')
    clock_error_ms: float = Field(
        default=0.0,
        ge=0.0,
        le=CLOCK_ERROR_MS_MAX,
        allow_inf_nan=False,
        description="0 when all primaries of a session are on one host, else the most that two hosts' clocks "
        f"differ, at most {CLOCK_ERROR_MS_MAX:g}",
    )


class PoolSection(Section):
    """`[pool]`: the pool this controller owns. It is created at the first start when `size` is given."""

    path: FilePath = Field(description="the folder of the pool")
    size: Size | None = Field(
        default=None, ge=POOL_SIZE_MIN_BYTES, description="the space for tracks, as in 100GiB"
    )
    track_size: Annotated[Size, AfterValidator(_track_size)] = Field(
        default=TRACK_SIZE_DEFAULT_BYTES,
        ge=TRACK_SIZE_MIN_BYTES,
        le=TRACK_SIZE_MAX_BYTES,
        description="a power of two from 4KiB to 64KiB",
    )
    preallocate: bool = Field(default=True, description="true, or false for a sparse file")
    tracks_path: FilePath | None = Field(
        default=None, description="a file or block device that holds the tracks"
    )
    warn_percent: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=WARN_LEVELS_MAX)] = (
        Field(
            default=[80, 90, 95],
            description="a list of percentages from 1 to 100: a warning is given when the use of the pool reaches one; "
            "[] for none",
        )
    )


class NbdSection(Section):
    """`[nbd]`: where applications reach the volumes."""

    listen: Listen = Field(default=[NBD_LISTEN_DEFAULT], description=_LISTEN)
    block_size_min: Literal[1, 512] = Field(default=1, description="1 or 512")
    connections_max: int = Field(default=256, ge=1, le=CONNECTIONS_MAX, description=_CONNECTIONS)
    receive_budget: Size = Field(
        default=256 * MIB,
        ge=RECEIVE_BUDGET_MIN_BYTES,
        description="the memory for requests of all connections, at least 34MiB, as in 256MiB",
    )
    poll_us_max: int = Field(default=50, ge=0, le=1000, description=_POLL)


class LinkSection(Section):
    """`[link]`: where movers of other controllers reach this one."""

    listen: Listen = Field(default=[LINK_LISTEN_DEFAULT], description=_LISTEN)


class ApiSection(Section):
    """`[api]`: where the command line and scrapers reach this controller."""

    listen: Listen = Field(default=[API_LISTEN_DEFAULT], description=_LISTEN)


class CaptureSection(Section):
    """`[capture]`: what a primary keeps for its movers."""

    side_file_max: Size = Field(
        default=256 * MIB,
        ge=MIB,
        description="the memory for captured writes not yet hardened remotely, as in 256MiB",
    )
    prune_interval_s: float = Field(
        default=2.0,
        gt=0.0,
        le=INTERVAL_S_MAX,
        allow_inf_nan=False,
        description=f"seconds after which a generation of marks is closed, up to {INTERVAL_S_MAX:g}",
    )
    prune_tracks: int = Field(
        default=262_144, ge=1, description="captured tracks after which a generation of marks is closed early"
    )
    discard_interval_s: float = Field(
        default=10.0,
        gt=0.0,
        le=INTERVAL_S_MAX,
        allow_inf_nan=False,
        description="seconds that a closed generation waits for the secondary before single marks of it are discarded, "
        f"up to {INTERVAL_S_MAX:g}",
    )
    active_regions: int = Field(
        default=2048,
        ge=1,
        description="regions of 4MiB of a volume that are remembered as lately written where marks are durable",
    )
    active_region_s: float = Field(
        default=10.0,
        ge=0.0,
        le=INTERVAL_S_MAX,
        allow_inf_nan=False,
        description=f"seconds for which they are remembered however many they are, up to {INTERVAL_S_MAX:g}",
    )
    discard_tracks: int = Field(
        default=7_500, ge=0, description="marked tracks of a session above which that is done early"
    )
    spill_max: Annotated[Size, AfterValidator(_spill_size)] = Field(
        default=0,
        description="the space on disk for captured writes beyond that memory, at least 128MiB, as in 20GiB; 0 = none",
    )
    spill_path: FilePath | None = Field(
        default=None, description="a folder for the spill, not the pool's; made when it is missing"
    )
    restart_hold_s: float = Field(
        default=0.0,
        ge=0.0,
        le=INTERVAL_S_MAX,
        allow_inf_nan=False,
        description="seconds that a restarted primary waits at most, before it serves NBD, for every mover to say that the "
        f"session was not recovered meanwhile, up to {INTERVAL_S_MAX:g}; 0 does not wait",
    )


class ControllerSettings(Section):
    """All settings of one controller."""

    controller: HostSection
    pool: PoolSection
    nbd: NbdSection = Field(default_factory=NbdSection)
    link: LinkSection = Field(default_factory=LinkSection)
    api: ApiSection = Field(default_factory=ApiSection)
    capture: CaptureSection = Field(default_factory=CaptureSection)
    copy_: CopySection = Field(default_factory=CopySection, alias="copy")

    def exposed_addresses(self) -> list[str]:
        """`section.listen = address` of every TCP address that other hosts can reach (there is no login)."""
        return [
            f"{section}.listen = {address}"
            for section, part in (("nbd", self.nbd), ("link", self.link), ("api", self.api))
            for address in part.listen
            if isinstance(address, TcpAddress) and not _is_loopback(address)
        ]


def load_settings(path: Path) -> ControllerSettings:
    """Read and validate the settings file at `path`; RefusedError lists every fault and its cure."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RefusedError(
            f"{path}: cannot be read ({error.strerror}); name a settings file, as in the examples/",
            path=str(path),
        ) from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path}: is not UTF-8 text; save it as UTF-8", path=str(path)) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RefusedError(f"{path}: is not TOML: {error}; correct that line", path=str(path)) from error
    return check_settings(values, source=str(path), folder=path.resolve().parent)


def check_settings(values: Mapping[str, Any], *, source: str, folder: Path) -> ControllerSettings:
    """Validate parsed settings. `source` names them in errors, `folder` is where relative paths start."""
    try:
        return ControllerSettings.model_validate(values, context={_FOLDER: folder})
    except ValidationError as error:
        sections = _sections()
        faults = list(dict.fromkeys(describe_fault(fault, values, sections) for fault in error.errors()))
        raise RefusedError("\n".join(f"{source}: {fault}" for fault in faults), path=source) from error


def known_keys() -> dict[str, FieldInfo]:
    """Every setting as `section.key`, with its field: the documentation is checked against it."""
    return {
        f"{section}.{key}": field for section, fields in _sections().items() for key, field in fields.items()
    }


def _sections() -> dict[str, dict[str, FieldInfo]]:
    found = {}
    for name, field in ControllerSettings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, Section)
        found[field.alias or name] = field.annotation.model_fields
    return found
