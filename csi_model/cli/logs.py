"""Where log events go: lines of JSON for a driver that a machine watches, readable lines for a person."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


def for_driver(level: str) -> None:
    """Events of ``level`` and above to standard error: JSON off a terminal."""
    on_terminal = sys.stderr.isatty()
    renderer: list[Processor] = (
        [_readable()] if on_terminal else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    _configure(logging.getLevelNamesMapping()[level.upper()], renderer)


def for_commands(*, verbose: bool) -> None:
    """Nothing but what is critical, for errors say what went wrong; with ``verbose`` everything, readable, to standard error."""
    _configure(logging.DEBUG if verbose else logging.CRITICAL, [_readable()])


def _readable() -> Processor:
    # Plain tracebacks: structlog's own choice would show the values of variables, and with them secrets.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _configure(level: int, renderer: list[Processor]) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        # Tests configure more than once.
        cache_logger_on_first_use=False,
    )
