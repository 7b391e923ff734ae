"""Standard output: tables for people, JSON for machines."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = "  "
_SIZE = re.compile(r"[0-9.]+ [kMGT]?B")


def write_json(document: Any) -> None:
    """One JSON document and a line end."""
    typer.echo(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they must be, one row a line, so that it can be read by eye and by grep; sizes to the right."""
    body = [tuple(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *body, strict=True)]
    right = [all(map(_SIZE.fullmatch, column)) for column in zip(*body, strict=True)] or [False] * len(columns)
    for row in (tuple(columns), *body):
        cells = (cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(row, widths, right, strict=True))
        typer.echo(_GAP.join(cells).rstrip())


def timestamp(seconds: float | None) -> str | None:
    """A Unix time as RFC 3339 in UTC, to the second."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
