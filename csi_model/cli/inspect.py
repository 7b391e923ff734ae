"""``csi-model inspect``: what a reference is, out of its manifest and config alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from csi_model.cli.options import DEFAULT_STATE_DIR, AsJson, ConfigFile, CredentialsFile, PlainHttp, ReferenceText, StateDir
from csi_model.errors import CsiModelError

if TYPE_CHECKING:
    from pathlib import Path

    from csi_model.cli.access import Access
    from csi_model.formats.placement import Placement
    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.store.store import Store
    from csi_model.volumes.documents import ModelDocuments

FIELDS = {
    "reference": "the reference in its canonical form",
    "manifest": "digest of the manifest that it names, or for an index the one for this machine's platform",
    "format": "`OCI image`, `Docker image`, `ModelPack` or `ORAS artifact`",
    "size": "bytes of all layers, as they are in the registry",
    "source": "`store` when it was read from this node, else `registry`",
    "layers": "list, lowest layer first, of the fields below",
}
LAYER_FIELDS = {
    "digest": "digest of the blob",
    "mediaType": "its media type",
    "size": "its bytes in the registry",
    "kind": "`file` for a raw layer, `tar` for an archive",
    "compression": "`none`, `gzip`, `zstd`, or `detect` when only its first bytes will tell",
    "path": "where it lands: the path of the file, or the directory into which the archive is merged",
    "here": "whether it was pulled to this node",
}


def inspect(
    reference: ReferenceText,
    *,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    plain_http: PlainHttp = False,
    config: ConfigFile = None,
    credentials_file: CredentialsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is, its layers and where they land. Reads no layer.

    Asks the registry only for what is not here. Works beside a running driver, and needs no root.
    """
    from csi_model.cli import tables
    from csi_model.cli.access import Access

    access = Access.prepare(reference, config_file=config, plain_http=plain_http, credentials_file=credentials_file)
    store = _open(state_dir)
    try:
        known = _from_store(store, access.reference) if store is not None else None
        source = "registry" if known is None else "store"
        if known is None:
            known = _from_registry(access)
        layers = [_layer(placement, store) for placement in known.layout.placements]
    finally:
        if store is not None:
            store.close()
    values = (str(access.reference), str(known.digest), known.layout.format, known.size, source, layers)
    document = dict(zip(FIELDS, values, strict=True))
    if as_json:
        tables.write_json(document)
    else:
        _show(document, layers)


def _open(state_dir: Path) -> Store | None:
    """The store, where there is one that this person may read; without it, the registry is asked."""
    from csi_model.store.store import Store

    try:
        return Store.open(state_dir, writable=False)
    except (CsiModelError, PermissionError):
        return None


def _from_store(store: Store, reference: AnyReference) -> ModelDocuments | None:
    from csi_model.volumes import documents

    digest: Digest | None = reference.digest
    resolution = store.state.resolution(str(reference))
    if resolution is not None:
        digest = resolution.manifest
    return documents.load(store.content, digest) if digest is not None else None


def _from_registry(access: Access) -> ModelDocuments:
    from csi_model.sources.connect import Connector
    from csi_model.volumes import documents

    connector = Connector(access.config, loopback_plain_http=access.loopback_plain_http)
    try:
        with access.explained():
            source = connector.connect(access.reference)
            try:
                return documents.fetch(source, source.resolve(access.reference))
            finally:
                source.close()
    finally:
        connector.close()


def _layer(placement: Placement, store: Store | None) -> dict[str, object]:
    from csi_model.formats.placement import Compression, FilePlacement

    layer = placement.layer
    if isinstance(placement, FilePlacement):
        kind, compression, path = "file", Compression.NONE, placement.path
    else:
        kind, compression, path = "tar", placement.compression, placement.prefix
    record = store.state.layer(layer.digest, compression.value) if store is not None else None
    here = store is not None and record is not None and store.content.has(record.content)
    values = (str(layer.digest), layer.media_type, layer.size, kind, compression.value, f"/{path}", here)
    return dict(zip(LAYER_FIELDS, values, strict=True))


def _show(document: dict[str, object], layers: list[dict[str, object]]) -> None:
    from csi_model.cli import tables
    from csi_model.oci.digest import Digest
    from csi_model.pull.progress import amount

    size = amount(int(str(document["size"])))
    summary = {
        "reference": document["reference"],
        "manifest": document["manifest"],
        "format": document["format"],
        "size": f"{size} in {len(layers)} layer{'' if len(layers) == 1 else 's'}",
        "read from": "this node" if document["source"] == "store" else "the registry",
    }
    for name, value in summary.items():
        typer.echo(f"{name:<11}{value}")
    typer.echo()
    tables.write_table(
        ("DIGEST", "SIZE", "KIND", "HERE", "LANDS AT"),
        (
            (
                Digest.parse(layer["digest"]).short,
                amount(int(str(layer["size"]))),
                str(layer["kind"]) if layer["compression"] == "none" else f"{layer['kind']}, {layer['compression']}",
                "yes" if layer["here"] else "no",
                str(layer["path"]),
            )
            for layer in layers
        ),
    )
