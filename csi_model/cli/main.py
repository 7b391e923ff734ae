"""The ``csi-model`` command. Commands import what they need when they run, so that ``--help`` and ``images`` answer at once."""

from __future__ import annotations

from typing import Annotated

import typer

from csi_model import __version__
from csi_model.cli import controller, doctor, images, inspect, mounts, pull, serve
from csi_model.cli.edge import Commands

app = typer.Typer(
    name="csi-model",
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    # A traceback must not show the values of variables, for some are secrets; and plain help needs no rich, which takes long to load.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if asked:
        typer.echo(f"csi-model {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write what happens to standard error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,  # noqa: ARG001
) -> None:
    """Mount OCI models read-only, every byte verified: as a Kubernetes CSI driver, or by hand."""
    from csi_model.cli import logs

    ctx.obj = verbose
    logs.for_commands(verbose=verbose)


commands = (
    serve.serve,
    controller.serve_controller,
    pull.pull,
    mounts.mount,
    mounts.unmount,
    images.rm,
    images.images,
    inspect.inspect,
    doctor.doctor,
)
for command in commands:
    app.command()(command)


def main() -> None:
    """Run the command that the process's arguments name."""
    app(prog_name="csi-model")
