"""What every command needs: the configuration, logging, and errors as one line and an exit code."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from csi_model.cli.exitcodes import INTERRUPTED, exit_code
from csi_model.config.load import load
from csi_model.config.model import Config
from csi_model.errors import CsiModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_STATE_DIR = Path("/var/lib/csi-model")

StateDir = Annotated[Path, typer.Option("--state-dir", envvar="CSI_MODEL_STATE_DIR", help="Where models are kept on this node.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML); see docs/configuration.md.")]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Speak HTTP without TLS to a registry on a loopback address.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def read_config(path: Path | None) -> Config:
    """The configuration of a file, or all defaults.

    Raises:
        InvalidRequestError: the file is unreadable or wrong; every problem is named.
    """
    return load(path) if path is not None else Config()


def set_up_logging(level: str) -> None:
    """Log to standard error: lines for people on a terminal, JSON elsewhere."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


@contextmanager
def reporting() -> Iterator[None]:
    """Turn our errors into one line on standard error and their exit code."""
    try:
        yield
    except CsiModelError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; what was fetched is kept, and the next pull resumes it", err=True)
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read our output has left; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from error


def print_json(value: object) -> None:
    """Print a value for machines."""
    typer.echo(json.dumps(value, indent=2, default=str))
