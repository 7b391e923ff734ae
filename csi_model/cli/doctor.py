"""``csi-model doctor``: what works on this node, what does not, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csi_model.cli import exits
from csi_model.cli.options import DEFAULT_STATE_DIR, AsJson, ConfigFile, PlainHttp, StateDir

FIELDS = {
    "healthy": "whether no check failed; the exit code says the same",
    "checks": "list of the fields below",
}
CHECK_FIELDS = {
    "name": "what was looked at, such as `mounting` or `registry ghcr.io`",
    "status": "`ok`, `warn` (works, but not as it could, or could not be found out) or `fail`",
    "detail": "what was found",
    "advice": "the next step, or null",
}
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    *,
    registry: Annotated[list[str] | None, typer.Option(metavar="HOST", help="Also see whether this registry answers; repeatable.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="See whether a driver answers at this CSI socket.", show_default=False)
    ] = None,
    registration_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the driver registers; kubelet's own when it is there.", show_default=False),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    plain_http: PlainHttp = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at the node: kernel, mounting, disk, state, sockets, registries. Exit code 1 when something would fail.

    Works beside a running driver and changes nothing. As root it finds out more.
    """
    from csi_model.cli import checks, tables
    from csi_model.cli.access import load_config

    settings = load_config(config)
    found = [
        checks.kernel(),
        *checks.state(state_dir),
        checks.disk(state_dir, reserve=settings.pull.free_space_reserve),
        checks.mounting(state_dir, strategy=settings.views.strategy),
        *checks.sockets(endpoint, registration_dir, settings.csi),
        *checks.registries(registry or (), settings, loopback_plain_http=plain_http),
    ]
    healthy = all(check.status is not checks.Status.FAIL for check in found)
    if as_json:
        rows = [dict(zip(CHECK_FIELDS, (c.name, c.status.value, c.detail, c.advice), strict=True)) for c in found]
        tables.write_json(dict(zip(FIELDS, (healthy, rows), strict=True)))
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            typer.secho(f"{check.status.value:<4}", fg=_COLOURS[check.status.value], nl=False)
            typer.echo(f"  {check.name:<{width}}  {check.detail}")
            if check.advice:
                typer.echo(f"      {'':<{width}}  → {check.advice}")
    if not healthy:
        raise typer.Exit(exits.FAILED)
