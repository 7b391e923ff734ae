"""``csi-model pull``, and the waiting for a pull that ``mount`` shares with it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from csi_model.cli.options import DEFAULT_STATE_DIR, AsJson, ConfigFile, CredentialsFile, PlainHttp, ReferenceText, StateDir
from csi_model.errors import StillPullingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.cli.progress import Watcher
    from csi_model.oci.digest import Digest
    from csi_model.volumes.models import ModelFlight, ReadyModel

FIELDS = {
    "reference": "the reference in its canonical form",
    "manifest": "digest of the manifest that it names",
    "format": "`OCI image`, `Docker image`, `ModelPack` or `ORAS artifact`",
    "size": "bytes of all its layers, as they are in the registry",
    "fetched": "bytes of layers that this command fetched; the others were here",
    "seconds": "from the start to the moment when all was verified and durable",
}

_TICK = 0.1


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pull that has ended well: the model, bytes of its layers in all and fetched now, and how long it took."""

    model: ReadyModel
    size: int
    fetched: int
    seconds: float

    def __str__(self) -> str:
        from csi_model.pull.progress import amount

        if not self.fetched:
            return f"{amount(self.size)}, all of it here already"
        rate = self.fetched / max(self.seconds, 0.001)
        return f"{amount(self.fetched)} of {amount(self.size)} fetched in {self.seconds:.1f} s ({amount(rate)}/s)"


def pull(
    ctx: typer.Context,
    reference: ReferenceText,
    *,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    plain_http: PlainHttp = False,
    config: ConfigFile = None,
    credentials_file: CredentialsFile = None,
    as_json: AsJson = False,
) -> None:
    """Pull a model: every layer that is missing, verified.

    A pull that was stopped goes on where it was. Asks the registry what the reference names now, also when it was pulled before.
    """
    from csi_model.cli import tables
    from csi_model.cli.access import Access
    from csi_model.cli.progress import watcher
    from csi_model.tree.view import Selection
    from csi_model.volumes.engine import open_engine
    from csi_model.volumes.request import PullPolicy, VolumeRequest

    access = Access.prepare(reference, config_file=config, plain_http=plain_http, credentials_file=credentials_file)
    request = VolumeRequest(access.reference, Selection(), PullPolicy.ALWAYS)
    watch = watcher(machine=as_json, verbose=bool(ctx.obj))
    with (
        open_engine(state_dir, access.config, targets=Path("/"), tended=False, loopback_plain_http=access.loopback_plain_http) as engine,
        access.explained(),
    ):
        pulled = follow(engine.models.fetch(request, ()), str(access.reference), watch)
    if as_json:
        values = (str(access.reference), str(pulled.model.manifest), pulled.model.format, pulled.size, pulled.fetched, pulled.seconds)
        tables.write_json(dict(zip(FIELDS, values, strict=True)))
        return
    typer.echo(f"{access.reference}: {pulled}")
    typer.echo(str(pulled.model.manifest))


def follow(flight: ModelFlight, reference: str, watch: Watcher) -> Pulled:
    """Wait for the flight while ``watch`` is shown how far it is.

    Raises:
        CsiModelError: whatever the pull failed with.
        KeyboardInterrupt: the person stopped it; says what becomes of what is there.
    """
    from csi_model.cli.progress import Look

    began = time.monotonic()
    names: Mapping[Digest, str] = {}
    try:
        with watch:
            while True:
                try:
                    model = flight.wait(time.monotonic() + _TICK)
                except StillPullingError:
                    names = names or _names(flight)
                    watch.see(Look(reference, flight.progress(), names))
                else:
                    break
    except KeyboardInterrupt:
        msg = f"stopped; what is here of {reference} is kept, and the next pull goes on with it"
        raise KeyboardInterrupt(msg) from None
    seconds = time.monotonic() - began
    progress = flight.progress()
    fetched = sum({layer.digest: layer.fetched for layer in progress.layers}.values()) if progress is not None else 0
    size = flight.known.size if flight.known is not None else 0
    return Pulled(model, size, fetched, round(seconds, 3))


def _names(flight: ModelFlight) -> Mapping[Digest, str]:
    """What people call the layers: the file that a raw layer is, the folder that a tar lands in."""
    from csi_model.formats.placement import FilePlacement

    if flight.known is None:
        return {}
    found = ((placement.layer.digest, placement) for placement in flight.known.layout.placements)
    return {
        digest: (placement.path if isinstance(placement, FilePlacement) else placement.prefix) or digest.short
        for digest, placement in found
    }
