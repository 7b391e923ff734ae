"""``images``, ``inspect`` and ``doctor``: looking, without a lock and without changing anything."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from csi_model.cli.context import (
    DEFAULT_STATE_DIR,
    ConfigFile,
    Json,
    PlainHttp,
    StateDir,
    print_json,
    read_config,
    reporting,
    set_up_logging,
)
from csi_model.cli.exitcodes import FAILED
from csi_model.cli.models import ReferenceArgument, docker_credentials

if TYPE_CHECKING:
    from csi_model.formats.placement import Placement


def images(*, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: Json = False) -> None:
    """List the models on this node: what they are, what they weigh, and who has them mounted."""
    with reporting():
        set_up_logging("warning")
        from csi_model.pull.progress import amount
        from csi_model.store.store import Store
        from csi_model.volumes import catalog

        with Store.open(state_dir, writable=False) as store:
            entries = catalog.images(store)
        if as_json:
            print_json([{**asdict(entry), "manifest": str(entry.manifest), "size": entry.size} for entry in entries])
            return
        table = Table("REFERENCE", "DIGEST", "FORMAT", "SIZE", "SHARED", "OWN", "LAST USED", "MOUNTED AT", box=None, pad_edge=False)
        for entry in entries:
            used = datetime.fromtimestamp(entry.last_used, UTC).astimezone().strftime("%Y-%m-%d %H:%M") if entry.last_used else "never"
            sizes = (amount(entry.size), amount(entry.shared), amount(entry.own))
            table.add_row(entry.reference, entry.manifest.short, entry.format, *sizes, used, "\n".join(entry.targets) or "-")
        _print(table)


def inspect(reference: ReferenceArgument, *, config: ConfigFile = None, plain_http: PlainHttp = False, as_json: Json = False) -> None:
    """Say what a reference is and what would land where; reads no layer."""
    with reporting():
        set_up_logging("warning")
        from csi_model.oci.reference import parse_reference
        from csi_model.pull.progress import amount
        from csi_model.sources.connect import Connector
        from csi_model.volumes import documents

        parsed = parse_reference(reference)
        connector = Connector(read_config(config), loopback_plain_http=plain_http)
        try:
            source = connector.connect(parsed, docker_credentials(parsed))
            known = documents.fetch(source, source.resolve(parsed))
        finally:
            connector.close()
        rows = [_placed(placement) for placement in known.layout.placements]
        if as_json:
            print_json(
                {
                    "reference": str(parsed),
                    "digest": str(known.digest),
                    "format": known.layout.format,
                    "bytes": known.size,
                    "layers": rows,
                }
            )
            return
        typer.echo(f"{parsed}\n  {known.layout.format}, {known.digest}, {amount(known.size)} in {len(known.manifest.layers)} layers\n")
        table = Table("LANDS AT", "SIZE", "ENCODING", "BLOB", "MEDIA TYPE", box=None, pad_edge=False)
        for row in rows:
            table.add_row(
                str(row["path"]), amount(int(str(row["bytes"]))), str(row["encoding"]), str(row["blob"])[7:19], str(row["mediaType"])
            )
        _print(table)


def doctor(
    *,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config: ConfigFile = None,
    registry: Annotated[list[str] | None, typer.Option(metavar="HOST", help="Registry to reach for; may be given again.")] = None,
    plain_http: PlainHttp = False,
    as_json: Json = False,
) -> None:
    """Check this node: kernel, mounts, disk, state directory, registration, registries. Exit code 1 when something would fail."""
    with reporting():
        set_up_logging("error")
        from csi_model.cli.checks import Verdict, check_node

        settings = read_config(config)
        findings = check_node(settings, state_dir, registries=registry or [], plain_http=plain_http)
        if as_json:
            print_json([{**asdict(finding), "verdict": finding.verdict.value} for finding in findings])
        else:
            table = Table("CHECK", "", "FOUND", "NEXT STEP", box=None, pad_edge=False)
            colours = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAIL: "red"}
            for finding in findings:
                mark = f"[{colours[finding.verdict]}]{finding.verdict.value}[/]"
                table.add_row(finding.check, mark, finding.found, finding.next_step)
            Console(width=None if os.isatty(1) else 160).print(table)
        if any(finding.verdict is Verdict.FAIL for finding in findings):
            raise typer.Exit(FAILED)


def _placed(placement: Placement) -> dict[str, object]:
    from csi_model.formats.placement import FilePlacement

    if isinstance(placement, FilePlacement):
        path, encoding = f"/{placement.path}", "raw"
    else:
        path, encoding = f"/{placement.prefix}".rstrip("/") + "/", f"tar {placement.compression.value}"
    layer = placement.layer
    return {"path": path, "bytes": layer.size, "encoding": encoding, "blob": str(layer.digest), "mediaType": layer.media_type}


def _print(table: Table) -> None:
    # Off a terminal nothing is cut to a width that nobody has.
    Console(width=None if os.isatty(1) else 10_000, soft_wrap=not os.isatty(1)).print(table)
