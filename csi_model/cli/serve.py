"""``serve``: the driver."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from csi_model.cli.context import DEFAULT_STATE_DIR, ConfigFile, StateDir, read_config, reporting, set_up_logging


def serve(
    *,
    endpoint: Annotated[str, typer.Option(help="Socket of the CSI services: unix:///…/csi.sock.")],
    node_id: Annotated[str, typer.Option(help="This node's name in Kubernetes.")],
    registration_dir: Annotated[Path | None, typer.Option(help="kubelet's plugins_registry; without it, nothing is registered.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config: ConfigFile = None,
) -> None:
    """Run the CSI driver until it is told to stop; what is published stays published."""
    with reporting():
        settings = read_config(config)
        set_up_logging(settings.log_level)
        from csi_model.csi.serve import run
        from csi_model.volumes.engine import open_engine

        with open_engine(state_dir, settings, targets=settings.csi.kubelet_root, tended=True) as engine:
            code = run(settings, engine.volumes, endpoint=endpoint, node_id=node_id, registration_dir=registration_dir)
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that is stuck in a call (a dead disk, a silent registry) must not keep the process from ending.
    os._exit(code)
