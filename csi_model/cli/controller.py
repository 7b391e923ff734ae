"""``csi-model serve-controller``: the half of the driver that makes volumes for claims."""

from __future__ import annotations

from typing import Annotated

import typer

from csi_model.cli import exits
from csi_model.cli.options import ConfigFile
from csi_model.errors import CsiModelError


def serve_controller(
    *,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The Unix socket of CSI, such as unix:///csi/csi.sock, which the provisioner shares.", show_default=False
        ),
    ],
    config: ConfigFile = None,
) -> None:
    """Run the CSI controller until SIGTERM, beside the external provisioner.

    It turns storage classes into volumes and keeps nothing: it needs no root, no state directory and no registry. One `csi-model serve`
    on each node mounts what it names.
    """
    import structlog

    from csi_model.cli import logs
    from csi_model.cli.access import load_config
    from csi_model.csi.serve_controller import run_controller

    settings = load_config(config)
    logs.for_driver(settings.log_level)
    try:
        code = run_controller(settings, endpoint=endpoint)
    except CsiModelError as error:
        structlog.get_logger(__name__).error("the controller cannot run", error=str(error))
        raise typer.Exit(exits.code_of(error)) from None
    raise typer.Exit(code)
