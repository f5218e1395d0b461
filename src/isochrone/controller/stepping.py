"""Generators of blocking calls that end with a value, driven in a thread while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from typing import TypeVar

from isochrone.model.errors import IsochroneError

Value = TypeVar("Value")


async def drive(steps: Generator[Callable[[], None], None, Value], thread: Executor) -> Value:
    """Make the calls of `steps` in `thread`, one after the other, and return its value. Raises what it raises.

    What follows in the caller follows the generator's last step without a break. A caller that is cancelled closes it.
    """
    loop = asyncio.get_running_loop()
    failure: BaseException | None = None
    try:
        while True:
            call = next(steps) if failure is None else steps.throw(failure)
            failure = None
            try:
                await loop.run_in_executor(thread, call)
            except (IsochroneError, OSError) as error:
                failure = error
    except StopIteration as end:
        value: Value = end.value
        return value
    finally:
        steps.close()
