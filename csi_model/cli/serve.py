"""``csi-model serve``: the driver."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csi_model.cli import exits
from csi_model.cli.options import DEFAULT_STATE_DIR, ConfigFile, StateDir
from csi_model.errors import CsiModelError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from csi_model.config.model import Config
    from csi_model.csi.health import Health
    from csi_model.kube.agent import Agent
    from csi_model.metrics.metrics import Metrics
    from csi_model.volumes.engine import Engine


def serve(
    *,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="The Unix socket of CSI, such as unix:///var/lib/kubelet/plugins/csi-model.dev/csi.sock; kubelet is told this path, as the host's.",
            show_default=False,
        ),
    ],
    node_id: Annotated[str, typer.Option(metavar="NAME", help="This node's name in Kubernetes.", show_default=False)],
    registration_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where kubelet looks for plugins, such as /var/lib/kubelet/plugins_registry; without it nothing is registered.",
            show_default=False,
        ),
    ] = None,
    metrics_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where /metrics, /healthz and /readyz are served over HTTP; :9808 means all addresses. Without it they are not.",
            show_default=False,
        ),
    ] = None,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Write events on pods and on this node, and remove the node's startup taint, with the service account of the driver's pod.",
        ),
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config: ConfigFile = None,
) -> None:
    """Run the CSI driver until SIGTERM. What is mounted stays mounted when it ends."""
    import structlog

    from csi_model.cli import logs
    from csi_model.cli.access import load_config
    from csi_model.csi.health import Health
    from csi_model.csi.serve import run
    from csi_model.linux import selinux
    from csi_model.volumes.engine import open_engine

    settings = load_config(config)
    logs.for_driver(settings.log_level)
    try:
        with ExitStack() as stack:
            health = Health()
            metrics = stack.enter_context(_monitoring(metrics_address, health)) if metrics_address is not None else None
            engine = stack.enter_context(open_engine(state_dir, settings, targets=settings.csi.kubelet_root, tended=True))
            if metrics is not None:
                stack.enter_context(metrics.watch(engine))
            agent = stack.enter_context(_kubernetes(settings, node_id, engine)) if kubernetes else None
            if agent is not None and registration_dir is None:
                agent.registered()  # by somebody else, who will not say when
            code = run(
                settings,
                engine.volumes,
                endpoint=endpoint,
                node_id=node_id,
                registration_dir=registration_dir,
                health=health,
                meter=metrics.calls if metrics is not None else None,
                relabels=selinux.is_enabled(),
                observers=[agent.observe] if agent is not None else [],
                registered=agent.registered if agent is not None else lambda: None,
            )
    except CsiModelError as error:
        # In the log, where whoever looks after a driver looks; the one line of other commands would be no JSON.
        structlog.get_logger(__name__).error("the driver cannot run", error=str(error))
        raise typer.Exit(exits.code_of(error)) from None
    # A call that outlived its grace period has a thread that Python would wait for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _monitoring(address: str, health: Health) -> AbstractContextManager[Metrics]:
    # Imported only where it is asked for: idle memory is counted on every node.
    from csi_model.metrics.monitor import monitoring

    return monitoring(address, health)


def _kubernetes(config: Config, node: str, engine: Engine) -> AbstractContextManager[Agent]:
    # For the same reason.
    from csi_model.kube.agent import open_agent
    from csi_model.linux.disk import free_bytes

    return open_agent(config, node, engine.ladder, free=free_bytes(engine.store.root))
