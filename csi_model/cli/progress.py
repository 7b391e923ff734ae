"""How a pull is watched: bars on a terminal, a line every few seconds elsewhere. Both go to standard error."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import typer

from csi_model.pull.progress import Progress, Rate, amount, amount_of, duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from rich.table import Table

    from csi_model.oci.digest import Digest
    from csi_model.pull.progress import LayerProgress

ROWS = 8
"""Layers that are shown at once, however many there are."""
_LABEL = 20
_NARROW = 60
_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """A pull at one moment; ``progress`` is None while the reference is being resolved. ``names`` say what a layer is for people."""

    reference: str
    progress: Progress | None
    names: Mapping[Digest, str] = field(default_factory=dict)


class Watcher(Protocol):
    """A context manager that is told, several times a second, how far the pull is."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def see(self, look: Look) -> None:
        """Show it, or not."""


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing was begun."""

    def see(self, look: Look) -> None:
        """Look away."""


class Lines(Silence):
    """A line at the beginning and every few seconds, for logs."""

    def __init__(self, *, every: float = _EVERY) -> None:
        self._every = every
        self._next: float | None = None

    def see(self, look: Look) -> None:
        """Write a line when it is time."""
        if look.progress is None:
            return
        now = time.monotonic()
        if self._next is None:
            here = sum(layer.done - layer.fetched for layer in look.progress.layers)
            count = len(look.progress.layers)
            layers = "1 layer" if count == 1 else f"{count} layers"
            typer.echo(f"{look.reference}: {layers}, {amount(look.progress.total)}, {amount(here)} of it here already", err=True)
            self._next = now + self._every
        elif now >= self._next:
            typer.echo(f"{look.reference}: {look.progress}", err=True)
            self._next = now + self._every


class Bars:
    """The whole pull in the first row, and below it the layers; when there are many, those that are under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=10, transient=True)
        self._rates: dict[Digest, Rate] = {}

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def see(self, look: Look) -> None:
        """Draw."""
        if look.progress is None:
            self._live.update(f"resolving {look.reference} …")
            return
        rows = min(ROWS, self._console.height - 2)
        self._live.update(self._drawn(look.progress, look.names, rows))

    def _drawn(self, progress: Progress, names: Mapping[Digest, str], rows: int) -> Table:
        # A terminal echoes ^C behind the last row; without room it would break the line, and that row could not be taken back.
        table = _grid(self._console.width - 3)
        complete = sum(layer.done >= layer.total for layer in progress.layers)
        _add_row(table, f"layers {complete}/{len(progress.layers)}", progress, style="bold")
        shown = visible(progress.layers, rows)
        for layer in progress.layers:
            # Every layer's rate is kept up, so that it is there when the layer comes into sight.
            if 0 < layer.done < layer.total:
                self._rates.setdefault(layer.digest, Rate()).at(layer.done)
        for layer in shown:
            rate = self._rates.get(layer.digest)
            speed = rate.at(layer.done) if rate is not None and layer.done < layer.total else None
            _add_row(table, names.get(layer.digest, layer.digest.short), Progress(layer.total, layer.done, speed, ()))
        return table


def watcher(*, machine: bool, verbose: bool) -> Watcher:
    """What suits standard error: bars on a terminal that no log lines disturb; for a machine that reads JSON, nothing elsewhere."""
    if sys.stderr.isatty() and not verbose:
        return Bars()
    return Silence() if machine else Lines()


def visible(layers: Sequence[LayerProgress], rows: int) -> tuple[LayerProgress, ...]:
    """The layers to show: all when there is room for them, else those under way; never more than ``rows``, and each blob once."""
    distinct = tuple({layer.digest: layer for layer in layers}.values())
    if len(distinct) <= rows:
        return distinct
    return tuple(layer for layer in distinct if 0 < layer.done < layer.total)[: max(0, rows)]


def shortened(name: str, width: int = _LABEL) -> str:
    """A path's last component where the whole is too long; of that, beginning and end, because shards differ at their beginning."""
    name = name if len(name) <= width else name.rpartition("/")[2]
    if len(name) <= width:
        return name
    end = (width - 1) // 3
    return f"{name[: width - 1 - end]}…{name[-end:]}"


def _grid(room: int) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 1, 0, 0))
    table.width = max(room, _NARROW)
    table.add_column(width=_LABEL, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    for width in (16, 9, 8):
        table.add_column(width=width, no_wrap=True, justify="right")
    return table


def _add_row(table: Table, label: str, progress: Progress, *, style: str = "") -> None:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    left = progress.seconds_left
    remaining = "done" if progress.done >= progress.total else "" if left is None else duration(left)
    table.add_row(
        Text(shortened(label), style=style),
        ProgressBar(total=max(1, progress.total), completed=progress.done if progress.total else 1),
        amount_of(progress.done, progress.total),
        f"{amount(progress.rate)}/s" if progress.rate else "",
        remaining,
    )
