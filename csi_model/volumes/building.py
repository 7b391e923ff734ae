"""Views are built: from a model's layers to files below ``views/``, their record, and the mount."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from csi_model.erofs.image import build_image
from csi_model.errors import CsiModelError, NoSpaceError, StoppedError
from csi_model.linux import memory
from csi_model.linux.disk import free_bytes
from csi_model.mount import views as mounting
from csi_model.mount.failures import writing
from csi_model.mount.imagefile import holds_image, write_image
from csi_model.mount.materialise import bytes_to_copy, links_hold, materialise, remove_view
from csi_model.mount.strategy import Strategy, choose_view, is_warm, links_only
from csi_model.mount.views import ViewFiles, residency
from csi_model.pull.progress import amount
from csi_model.store.faults import disk_errors
from csi_model.store.records import ViewRecord
from csi_model.tree.view import Totals, totals, used
from csi_model.volumes.flight import Flight
from csi_model.volumes.trees import tree_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from csi_model.mount.strategy import Ladder
    from csi_model.oci.digest import Digest
    from csi_model.store.store import Store
    from csi_model.tree.nodes import Directory
    from csi_model.tree.view import Selection
    from csi_model.volumes.models import ReadyModel

log = structlog.get_logger(__name__)

_FOLDERS = frozenset({Strategy.LINKS, Strategy.MATERIALISE})
_NEGLIGIBLE = 1 << 20
"""Bytes of a view that are written without a look at the disk's reserve: nearly every view is smaller, and its model is here already."""


@dataclass(frozen=True, slots=True)
class View:
    """A manifest and which part of it is shown.

    ``id`` is 32 hex digits that name the view on disk; the same for everybody who asks for the same.
    """

    manifest: Digest
    selection: Selection
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        key = [str(self.manifest), self.selection.path, self.selection.include, self.selection.exclude]
        object.__setattr__(self, "id", hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32])

    def record(self, strategy: Strategy, size: Totals) -> ViewRecord:
        """What is remembered of the view when it is mounted."""
        selection = self.selection
        return ViewRecord(
            view_id=self.id,
            manifest=self.manifest,
            strategy=strategy.value,
            path=selection.path,
            include=selection.include,
            exclude=selection.exclude,
            bytes=size.bytes,
            inodes=size.inodes,
            last_used=time.time(),
        )


class Build(Flight[None]):
    """The work of getting one view mounted, which no caller's deadline ends; tells how much is copied."""

    def __init__(self, linger: float) -> None:
        super().__init__(linger)
        self._copied = 0
        self.describe = lambda: f"the view is still being built, {amount(self._copied)} copied so far"

    def copied(self, count: int) -> None:
        """Count bytes that were copied.

        Raises:
            StoppedError: nobody waits any more, or the process is stopping.
        """
        self._copied += count
        if self.cancelled:
            msg = "the view's building was stopped; the next request begins it again"
            raise StoppedError(msg)


class Builder:
    """Builds views; who calls sees to it that one view is built by one thread at a time.

    The record comes first, then the files, then the mount, so a kill at any moment leaves nothing that has no record. A file or a folder
    that is there already (the node comes back from a reboot, and its volumes are published) is used when it is what would be written.
    """

    def __init__(self, store: Store, ladder: Ladder, *, reserve: int, tended: bool) -> None:
        self._store = store
        self._ladder = ladder
        self._reserve = reserve
        self._tended = tended

    def build(self, view: View, model: ReadyModel, flight: Build) -> tuple[Strategy, Totals]:
        """Mount the view; one that is mounted already without a record gets its record.

        Raises:
            NotFoundError, InvalidRequestError, UnsupportedError: what the view asks for cannot be shown.
            MountError, NoSpaceError: the kernel or the disk would not.
            StoppedError: the flight was cancelled.
        """
        root = tree_of(self._store.content, model.layers, view.selection)
        flight.copied(0)
        size = totals(root)
        place = self.place(view.id)
        strategy = mounting.mounted_strategy(place)
        if strategy is not None:
            self._store.state.record_view(view.record(strategy, size))
            return strategy, size
        shown = used(root)
        sizes = {layer.content: layer.size for layer in model.layers if layer.content in shown}
        paths = {content: self._store.content.path(content) for content in sizes}
        strategy = self._choose(root, sizes, list(paths.values()))
        self._store.state.record_view(view.record(strategy, size))
        write = self._write_folder if strategy in _FOLDERS else self._write_image
        mounting.mount_view(write(view.id, root, sizes, paths, flight), strategy, place)
        log.info("view_mounted", view=view.id, manifest=str(view.manifest), strategy=strategy.value, layers=len(sizes))
        self._remove_other_form(view.id, strategy)
        return strategy, size

    def remove(self, view_id: str) -> None:
        """Delete the place and the files of a view that is not mounted, and its record.

        Raises:
            MountError, NoSpaceError: the disk would not.
        """
        mounting.remove_place(self.place(view_id))
        remove_view(self._folder(view_id))
        self._remove_image(view_id)
        self._store.state.forget_view(view_id)

    def may_switch(self) -> bool:
        """Whether a view that is mounted buffered may be switched to direct I/O."""
        return self._ladder.forced is None and self._ladder.works(Strategy.EROFS_DIRECT)

    def place(self, view_id: str) -> Path:
        """Where the view is mounted, or would be."""
        return self._store.mounts / view_id

    def _write_folder(
        self, view_id: str, root: Directory, sizes: Mapping[Digest, int], paths: Mapping[Digest, Path], flight: Build
    ) -> ViewFiles:
        folder, links = self._folder(view_id), self._ladder.links.works
        if folder.is_dir() and links and not links_hold(root, folder, paths):
            if view_id in mounting.shown_views(self._store.views, self._store.mounts):
                log.warning("view_shows_old_content", view=view_id, effect="until the pods that read it have ended")
            else:
                remove_view(folder)
        if not folder.is_dir():
            self._demand_room(bytes_to_copy(root, sizes) if links else totals(root).bytes)
            materialise(root, folder, paths, flight.copied)
        return ViewFiles(view_id, directory=folder)

    def _write_image(
        self, view_id: str, root: Directory, sizes: Mapping[Digest, int], paths: Mapping[Digest, Path], flight: Build
    ) -> ViewFiles:
        image, path = build_image(root, sizes), self._image(view_id)
        if not holds_image(image, path, paths):
            self._demand_room(image.size)
            write_image(image, path, paths, flight.copied)
        return ViewFiles(view_id, image=path, devices=tuple(paths[content] for content in image.devices))

    def _remove_other_form(self, view_id: str, strategy: Strategy) -> None:
        """Remove what the view was mounted from before another strategy was chosen, unless a pod's mount still shows it.

        A folder may weigh as much as its model. A kill before leaves it to the view's end.
        """
        other = self._image(view_id) if strategy in _FOLDERS else self._folder(view_id)
        try:
            if not other.exists() or view_id in mounting.shown_views(self._store.views, self._store.mounts):
                return
            if strategy in _FOLDERS:
                self._remove_image(view_id)
            else:
                remove_view(other)
        except CsiModelError as error:  # the view is mounted, and that is what was asked for
            log.warning("view_form_not_removed", view=view_id, reason=str(error), effect="it stays until the view goes")

    def _remove_image(self, view_id: str) -> None:
        with writing(f"remove the view's image {view_id}.erofs"):
            self._image(view_id).unlink(missing_ok=True)

    def _demand_room(self, count: int) -> None:
        with disk_errors(f"cannot look at the room in {self._store.views}"):
            free = free_bytes(self._store.views) - self._reserve
        if _NEGLIGIBLE < count > free:
            msg = (
                f"the view needs {amount(count)} and only {amount(max(0, free))} are free beside the reserve of {amount(self._reserve)}; "
                "free space with `csi-model rm`, or give the state directory a larger disk"
            )
            raise NoSpaceError(msg)

    def _choose(self, root: Directory, sizes: Mapping[Digest, int], paths: Sequence[Path]) -> Strategy:
        warm = False
        if self._tended:
            cached = residency(paths)
            warm = is_warm(resident=cached.resident, total=cached.total, available=memory.available_bytes())
        return choose_view(self._ladder, all_whole_raw=links_only(root, sizes), pages_warm=warm)

    def _folder(self, view_id: str) -> Path:
        return self._store.views / view_id

    def _image(self, view_id: str) -> Path:
        return self._store.views / f"{view_id}.erofs"
