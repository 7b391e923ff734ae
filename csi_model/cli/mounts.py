"""``csi-model mount`` and ``csi-model unmount``: a model at a directory of a person's choosing, without Kubernetes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csi_model.cli.options import DEFAULT_STATE_DIR, ConfigFile, CredentialsFile, PlainHttp, ReferenceText, StateDir, TargetText
from csi_model.errors import ConflictError, DeniedError, InvalidRequestError, MountError, NoSpaceError, NotFoundError

if TYPE_CHECKING:
    from csi_model.cli.progress import Watcher
    from csi_model.volumes.engine import Engine
    from csi_model.volumes.request import VolumeRequest

_ROOT = Path("/")


def mount(
    ctx: typer.Context,
    reference: ReferenceText,
    target: TargetText,
    *,
    path: Annotated[str, typer.Option(metavar="P", help="Show only this directory of the model.")] = "",
    include: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Show only what matches; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave out what matches; may be repeated.")] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    plain_http: PlainHttp = False,
    config: ConfigFile = None,
    credentials_file: CredentialsFile = None,
) -> None:
    """Mount a model read-only at a directory, pulling what is missing. Needs root.

    The directory is made when it is missing. A model that is here is not asked for again: `csi-model pull` does that.
    """
    from csi_model.cli.access import Access
    from csi_model.cli.progress import watcher
    from csi_model.tree.view import Selection
    from csi_model.volumes.engine import open_engine
    from csi_model.volumes.request import VolumeRequest

    access = Access.prepare(reference, config_file=config, plain_http=plain_http, credentials_file=credentials_file)
    place = _place(target, state_dir)
    selection = Selection.parse(path=path, include=tuple(include or ()), exclude=tuple(exclude or ()))
    request = VolumeRequest(access.reference, selection)
    watch = watcher(machine=False, verbose=bool(ctx.obj))
    _demand_root()
    with (
        open_engine(state_dir, access.config, targets=_ROOT, tended=False, loopback_plain_http=access.loopback_plain_http) as engine,
        access.explained(),
    ):
        try:
            _mount(engine, request, place, watch)
        except BaseException:
            engine.volumes.stop()  # the view may still be under construction
            engine.views.release_all()  # it may be mounted by now, and nobody will use it
            raise
    typer.echo(f"{access.reference} is mounted at {place}")


def unmount(target: TargetText, *, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Unmount a model and remove the empty directory. What was pulled stays; `csi-model rm` removes it. Needs root."""
    from csi_model.config.model import Config
    from csi_model.mount import targets
    from csi_model.volumes.engine import open_engine

    place = _place(target, state_dir)
    _demand_root()
    with open_engine(state_dir, Config(), targets=_ROOT, tended=False) as engine:
        record = engine.store.state.publication(str(place))
        if record is None and not targets.what_is_mounted(targets.Target.parse(str(place), root=_ROOT)):
            msg = f"nothing is mounted at {place}; `csi-model images` shows what is mounted where"
            raise NotFoundError(msg)
        engine.volumes.unpublish(volume_id=record.volume_id if record is not None else "", target=str(place))
        engine.views.release_all()
    typer.echo(f"unmounted {place}")


def _mount(engine: Engine, request: VolumeRequest, place: Path, watch: Watcher) -> None:
    from csi_model.cli.pull import follow
    from csi_model.mount import targets

    volume = f"csi-model mount {place}"
    # What is wrong with the target is said before hours of pulling, not after.
    mounted = targets.what_is_mounted(targets.Target.parse(str(place), root=_ROOT))
    if mounted and engine.store.state.publication(str(place)) is None:
        # Kubelet names the same model for the same target; a person may name another one, and nothing is left that would tell.
        msg = f"{place} carries a mount that csi-model has no record of ({mounted[-1].filesystem}); unmount it first (`csi-model unmount {place}`)"
        raise ConflictError(msg)
    if not mounted:
        _make_ready(place)
        manifest = engine.store.state.pinned(volume, str(request.reference)) or engine.models.resolved(request)
        if manifest is None or engine.models.find(manifest, request.selection) is None:
            follow(engine.models.fetch(request, (), manifest), str(request.reference), watch)
    engine.volumes.publish(volume_id=volume, target=str(place), request=request, secrets={}, deadline=None)


def _place(target: str, state_dir: Path) -> Path:
    """The real, absolute path; a person may go through links, which kubelet may not."""
    place = Path(os.path.realpath(target))
    if place == _ROOT:
        msg = "the root directory cannot be a target; name a directory of its own"
        raise InvalidRequestError(msg)
    if place.is_relative_to(state_dir):
        msg = f"the target {place} is inside the state directory {state_dir}; name a directory elsewhere"
        raise InvalidRequestError(msg)
    return place


def _make_ready(place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and next(place.iterdir(), None) is not None:
            msg = f"{place} is a directory with files in it, which a mount would hide; name an empty or a new one"
            raise ConflictError(msg)
    except (FileExistsError, NotADirectoryError) as error:
        msg = f"{place} is not a directory, or lies below a file; name a new or an empty directory"
        raise InvalidRequestError(msg) from error
    except OSError as error:
        kind = NoSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else MountError
        msg = f"cannot mount at {place}: {error.strerror} ({error.filename}); name another directory"
        raise kind(msg) from error


def _demand_root() -> None:
    if os.geteuid() != 0:
        msg = "only root can mount and unmount; run it with sudo"
        raise DeniedError(msg)
