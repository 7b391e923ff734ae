"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_STATE_DIR = Path("/var/lib/csi-model")

ReferenceText = Annotated[
    str, typer.Argument(metavar="REFERENCE", help="registry/repository:tag, …@sha256:…, or oci-layout:///directory:tag", show_default=False)
]
TargetText = Annotated[str, typer.Argument(metavar="TARGET", help="The directory where the model is to be seen.", show_default=False)]
StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="CSI_MODEL_STATE_DIR",
        # mountinfo knows directories by their real names.
        resolve_path=True,
        # Whether it can be read, the command finds out, and says what to do.
        readable=False,
        help="Where everything is kept that was pulled.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", envvar="CSI_MODEL_CONFIG", help="The configuration (docs/configuration.md).", show_default=False
    ),
]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Speak HTTP without TLS to a registry on this machine (loopback only).")]
CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials-file",
        metavar="FILE",
        help="A Docker config.json with credentials, instead of $DOCKER_CONFIG/config.json or ~/.docker/config.json.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output; docs/cli.md lists the fields.")]
