"""``csi-model serve``: the driver."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from csi_model.cli import exits
from csi_model.cli.options import DEFAULT_STATE_DIR, ConfigFile, StateDir
from csi_model.errors import CsiModelError


def serve(
    *,
    endpoint: Annotated[str, typer.Option(metavar="URL", help="The Unix socket of CSI, such as unix:///csi/csi.sock.", show_default=False)],
    node_id: Annotated[str, typer.Option(metavar="NAME", help="This node's name in Kubernetes.", show_default=False)],
    registration_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where kubelet looks for plugins, such as /var/lib/kubelet/plugins_registry; without it nothing is registered.",
            show_default=False,
        ),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config: ConfigFile = None,
) -> None:
    """Run the CSI driver until SIGTERM. What is mounted stays mounted when it ends."""
    import structlog

    from csi_model.cli import logs
    from csi_model.cli.access import load_config
    from csi_model.csi.serve import run
    from csi_model.linux import selinux
    from csi_model.volumes.engine import open_engine

    settings = load_config(config)
    logs.for_driver(settings.log_level)
    try:
        with open_engine(state_dir, settings, targets=settings.csi.kubelet_root, tended=True) as engine:
            code = run(
                settings,
                engine.volumes,
                endpoint=endpoint,
                node_id=node_id,
                registration_dir=registration_dir,
                relabels=selinux.is_enabled(),
            )
    except CsiModelError as error:
        # In the log, where whoever looks after a driver looks; the one line of other commands would be no JSON.
        structlog.get_logger(__name__).error("the driver cannot run", error=str(error))
        raise typer.Exit(exits.code_of(error)) from None
    # A call that outlived its grace period has a thread that Python would wait for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
