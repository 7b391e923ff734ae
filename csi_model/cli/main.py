"""The ``csi-model`` command."""

from __future__ import annotations

from typing import Annotated

import typer

from csi_model import __version__
from csi_model.cli import models, node, serve

app = typer.Typer(
    name="csi-model",
    help="Model artifacts and images from OCI registries, as verified read-only volumes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(f"csi-model {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *, version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False
) -> None:
    del version


for command in (serve.serve, models.pull, models.mount, models.unmount, models.rm, node.images, node.inspect, node.doctor):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
