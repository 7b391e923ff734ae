"""A pull, watched: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from csi_model.errors import StillPullingError

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest
    from csi_model.pull.progress import Progress as PullProgress
    from csi_model.volumes.models import ModelFlight, ReadyModel

_BARS = 8
"""Layers shown at once: those under way first."""
_LINE_EVERY = 5.0


def watch(flight: ModelFlight) -> ReadyModel:
    """Wait for the flight and show how far it is; a second Ctrl-C is not needed, the first leaves what was fetched to be resumed.

    Raises:
        CsiModelError: whatever the pull failed with.
    """
    console = Console(stderr=True)
    return _bars(flight, console) if console.is_terminal else _lines(flight)


def _lines(flight: ModelFlight) -> ReadyModel:
    while True:
        try:
            return flight.wait(time.monotonic() + _LINE_EVERY)
        except StillPullingError as progress:
            typer.echo(str(progress), err=True)


def _bars(flight: ModelFlight, console: Console) -> ReadyModel:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, expand=True, transient=True) as bars:
        total = bars.add_task("resolving", total=None)
        layers: dict[Digest, TaskID] = {}
        while True:
            try:
                return flight.wait(time.monotonic() + 0.2)
            except StillPullingError:
                progress = flight.progress()
                if progress is not None:
                    _show(bars, total, layers, progress)


def _show(bars: Progress, total: TaskID, layers: dict[Digest, TaskID], progress: PullProgress) -> None:
    done = sum(layer.done >= layer.total for layer in progress.layers)
    bars.update(total, description=f"{done} of {len(progress.layers)} layers", total=progress.total, completed=progress.done)
    active = [layer for layer in progress.layers if 0 < layer.done < layer.total][:_BARS]
    for digest in set(layers) - {layer.digest for layer in active}:
        bars.remove_task(layers.pop(digest))
    for layer in active:
        if layer.digest not in layers:
            layers[layer.digest] = bars.add_task(f"  {layer.digest.short}", total=layer.total)
        bars.update(layers[layer.digest], completed=layer.done)
