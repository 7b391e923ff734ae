"""``csi-model images`` and ``csi-model rm``: what is on this node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from csi_model.cli.options import DEFAULT_STATE_DIR, AsJson, ReferenceText, StateDir

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS = {
    "reference": "the reference in its canonical form",
    "manifest": "digest of the manifest that it named when it was last asked for",
    "format": "`OCI image`, `Docker image`, `ModelPack` or `ORAS artifact`",
    "size": "bytes on disk: `own` and `shared` together",
    "own": "bytes that no other model needs",
    "shared": "bytes that other models need, too",
    "lastUsed": "when it was last mounted (RFC 3339), or null",
    "targets": "list of the directories where it is mounted",
}


def images(*, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """List the models that are here. Works beside a running driver."""
    from csi_model.cli import tables
    from csi_model.pull.progress import amount
    from csi_model.store.store import Store
    from csi_model.volumes.catalog import images as listed

    with Store.open(state_dir, writable=False) as store:
        entries = listed(store)
    if as_json:
        rows = (
            (str(e.reference), str(e.manifest), e.format, e.size, e.own, e.shared, tables.timestamp(e.last_used), list(e.targets))
            for e in entries
        )
        tables.write_json([dict(zip(FIELDS, row, strict=True)) for row in rows])
        return
    columns = ("REFERENCE", "DIGEST", "FORMAT", "SIZE", "OWN", "SHARED", "LAST USED", "MOUNTED AT")
    tables.write_table(
        columns,
        (
            (
                e.reference,
                e.manifest.short,
                e.format,
                *map(amount, (e.size, e.own, e.shared)),
                tables.timestamp(e.last_used) or "never",
                _targets(e.targets),
            )
            for e in entries
        ),
    )


def rm(reference: ReferenceText, *, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Forget a reference and free what no other model needs. Refused while it is mounted."""
    from csi_model.config.model import Config
    from csi_model.oci.reference import parse_reference
    from csi_model.pull.progress import amount
    from csi_model.volumes.catalog import remove
    from csi_model.volumes.engine import open_engine

    parsed = parse_reference(reference)
    with open_engine(state_dir, Config(), targets=Path("/"), tended=False) as engine:
        freed = remove(engine.store, engine.views, parsed)
    typer.echo(f"removed {parsed}, {amount(freed)} freed")


def _targets(targets: Sequence[str]) -> str:
    return targets[0] if len(targets) == 1 else f"{len(targets)} places" if targets else "-"
