"""Log lines on standard error, one event each, as JSON or as text; those of libraries in the same form."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog

from isochrone.controller.settings import LogFormat, LogLevel

LIBRARY_LEVEL: Final = logging.WARNING
"""What libraries (uvicorn, asyncio) say is written from this level on."""


def configure_logs(log_format: LogFormat, level: LogLevel, controller: str) -> None:
    """Set up all logging of the process. Every line says which `controller` it is from."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    renderers: list[structlog.types.Processor]
    if log_format is LogFormat.JSON:
        renderers = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time")]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

    def say_controller(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event["controller"] = controller
        return event

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                say_controller,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LIBRARY_LEVEL)
    logging.getLogger("isochrone").setLevel(level.upper())
