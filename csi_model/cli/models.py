"""``pull``, ``mount``, ``unmount`` and ``rm``: the engine without Kubernetes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from csi_model.oci.reference import AnyReference
    from csi_model.registry.credentials import Credential
    from csi_model.volumes.engine import Engine
    from csi_model.volumes.models import ReadyModel
    from csi_model.volumes.request import VolumeRequest

ReferenceArgument = Annotated[str, typer.Argument(metavar="REFERENCE", help="registry/repository:tag, or oci-layout:///dir:tag.")]
TargetArgument = Annotated[Path, typer.Argument(metavar="TARGET", help="Directory where the model appears.")]


def pull(
    reference: ReferenceArgument,
    *,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config: ConfigFile = None,
    plain_http: PlainHttp = False,
    as_json: Json = False,
) -> None:
    """Pull a model into the store; what is there already is not pulled again."""
    with reporting():
        request = _request({"reference": reference, "pullPolicy": "Always"})
        began = time.monotonic()
        with _engine(state_dir, config, plain_http=plain_http) as engine:
            model = _pull(engine, request)
            size = sum(layer.size for layer in model.layers)
        seconds = time.monotonic() - began
        if as_json:
            print_json(
                {
                    "reference": str(request.reference),
                    "digest": str(model.manifest),
                    "format": model.format,
                    "layers": len(model.layers),
                    "bytes": size,
                    "seconds": round(seconds, 3),
                }
            )
        else:
            from csi_model.pull.progress import amount

            typer.echo(
                f"{request.reference}: {model.format}, {len(model.layers)} layers, {amount(size)} in {seconds:.1f} s, {model.manifest}"
            )


def mount(
    reference: ReferenceArgument,
    target: TargetArgument,
    *,
    path: Annotated[str, typer.Option(help="Subdirectory of the model to show.")] = "",
    include: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Show only what matches; may be given again.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave out what matches; may be given again.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config: ConfigFile = None,
    plain_http: PlainHttp = False,
) -> None:
    """Make a model appear read-only at a directory, pulling what is missing."""
    with reporting():
        attributes = {"reference": reference, "path": path, "include": "\n".join(include or []), "exclude": "\n".join(exclude or [])}
        request = _request(attributes)
        place = _absolute(target)
        with _engine(state_dir, config, plain_http=plain_http, root=Path("/")) as engine:
            manifest = engine.models.resolved(request)
            if manifest is None or engine.models.find(manifest, request.selection) is None:
                _pull(engine, request)
            engine.volumes.publish(volume_id=_volume_id(place), target=str(place), request=request, secrets={}, deadline=None)
        typer.echo(f"{request.reference} is mounted read-only at {place}")


def unmount(target: TargetArgument, *, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Take a model away from a directory, and its view with it when nobody else uses it."""
    with reporting():
        place = _absolute(target)
        with _engine(state_dir, None, root=Path("/")) as engine:
            from csi_model.errors import NotFoundError

            if engine.store.state.publication(str(place)) is None:
                msg = f"nothing of csi-model is mounted at {place}; `csi-model images` shows what is mounted where"
                raise NotFoundError(msg)
            engine.volumes.unpublish(volume_id=_volume_id(place), target=str(place))
            engine.views.release_all()
        typer.echo(f"{place} is unmounted")


def rm(reference: ReferenceArgument, *, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Forget a model and free what nothing else needs; refused while it is published."""
    with reporting():
        from csi_model.oci.reference import parse_reference
        from csi_model.pull.progress import amount
        from csi_model.volumes import catalog

        parsed = parse_reference(reference)
        with _engine(state_dir, None) as engine:
            freed = catalog.remove(engine.store, engine.views, parsed)
        typer.echo(f"{parsed} is removed; {amount(freed)} freed")


def _request(attributes: dict[str, str]) -> VolumeRequest:
    from csi_model.volumes.request import VolumeRequest

    return VolumeRequest.parse(attributes)


def _engine(state_dir: Path, config: Path | None, *, plain_http: bool = False, root: Path | None = None) -> AbstractContextManager[Engine]:
    from csi_model.volumes.engine import open_engine

    settings = read_config(config)
    set_up_logging("warning")
    return open_engine(state_dir, settings, targets=root or Path("/"), tended=False, loopback_plain_http=plain_http)


def _pull(engine: Engine, request: VolumeRequest) -> ReadyModel:
    from csi_model.cli.progress import watch

    return watch(engine.models.fetch(request, docker_credentials(request.reference)))


def docker_credentials(reference: AnyReference) -> tuple[Credential, ...]:
    """What `docker login` left for the registry in the person's own configuration; the driver never reads it."""
    from csi_model.oci.reference import Reference
    from csi_model.registry.credentials import Keyring

    file = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    return Keyring.load(file).matching(reference) if isinstance(reference, Reference) and file.is_file() else ()


def _absolute(target: Path) -> Path:
    """The target's real place: a person may come to it through symlinks, which the engine refuses to follow."""
    absolute = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow a last component that is to be created
    return absolute.parent.resolve() / absolute.name


def _volume_id(place: Path) -> str:
    return f"cli:{place}"
