from __future__ import annotations

import pytest

from isochrone.cli.exits import EXIT_CODE_MEANINGS, ExitCode, exit_code
from isochrone.model.errors import IsochroneError
from support.fake_operations import every_error

CODES = {
    "IsochroneError": 1,
    "RefusedError": 2,
    "NotFoundError": 3,
    "ConflictError": 4,
    "ProtocolError": 7,
    "UnavailableError": 5,
    "PoolFullError": 5,
    "PoolReadOnlyError": 5,
    "BusyError": 5,
    "DamagedError": 6,
    "InternalError": 1,
}


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_an_error_class_keeps_its_exit_code_for_ever(error: IsochroneError) -> None:
    assert exit_code(error) == CODES[type(error).__name__]


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_CODE_MEANINGS) == set(ExitCode)
