"""Views on this node: built once, mounted once, kept for a while after their last volume, and never twice in memory.

    views/<id>.erofs    a view's metadata image       views/<id>/    or its folder of links or plain files
    mounts/<id>/        where it is mounted; targets are clones of this mount

Mounts outlive the process: ``adopt`` takes over what an earlier one left. ``tend``, called every second, unmounts what has been idle
for long enough and switches views that began buffered to direct I/O once their first reader is through.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from csi_model.erofs.image import build_image
from csi_model.errors import BusyError, CsiModelError, UnavailableError
from csi_model.linux import memory
from csi_model.linux.mountinfo import read_mounts
from csi_model.mount import views as mounting
from csi_model.mount.imagefile import write_image
from csi_model.mount.materialise import materialise, remove_view, sweep_unfinished
from csi_model.mount.strategy import Strategy, choose_view, is_warm, links_only, should_switch
from csi_model.mount.views import ViewFiles, residency
from csi_model.store.keylocks import KeyLocks
from csi_model.store.records import ViewRecord
from csi_model.tree.view import Totals, totals, used
from csi_model.volumes.trees import tree_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from csi_model.linux.mountinfo import Mount
    from csi_model.mount.strategy import Ladder
    from csi_model.oci.digest import Digest
    from csi_model.store.store import Store
    from csi_model.tree.nodes import Directory
    from csi_model.tree.view import Selection
    from csi_model.volumes.models import ReadyModel

log = structlog.get_logger(__name__)

_WATCHED_FILES = 64
"""The largest files of a view, by which is told whether its first reader is through."""
_FOLDERS = frozenset({Strategy.LINKS, Strategy.MATERIALISE})


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


@dataclass(slots=True)
class _Mounted:
    """A view that is mounted now: since when, for which targets, and whether it still has to be switched to direct I/O."""

    since: float
    idle_since: float
    targets: set[str] = field(default_factory=set)
    holders: int = 0
    switch: bool = False
    watched: tuple[Path, ...] | None = None


class Views:
    """Keeps the node's views. Safe to use from many threads; one view is built by one thread at a time."""

    def __init__(self, store: Store, ladder: Ladder, *, idle: float, tended: bool) -> None:
        """``tended`` says that somebody will call ``tend``; without, no view begins buffered, for nobody would switch it."""
        self._store = store
        self._ladder = ladder
        self._idle = idle
        self._tended = tended
        self._locks = KeyLocks()
        self._guard = threading.Lock()
        self._mounted: dict[str, _Mounted] = {}
        self._totals: dict[str, Totals] = {}

    def adopt(self) -> None:
        """Take over the view mounts that an earlier process left, and clear away what its crash left unfinished."""
        swept = sweep_unfinished(self._store.views)
        if swept:
            log.info("unfinished_views_removed", names=swept)
        mounted = {Path(mount.target) for mount in read_mounts()}
        users: dict[str, set[str]] = {}
        for publication in self._store.state.publications():
            if Path(publication.target) in mounted:
                users.setdefault(publication.view_id, set()).add(publication.target)
        now = time.monotonic()
        for place in sorted(self._store.mounts.iterdir()):
            if not mounting.is_mounted(place):
                place.rmdir()
                continue
            strategy = mounting.mounted_strategy(place)
            switch = strategy is Strategy.EROFS_BUFFERED and self._may_switch()
            self._mounted[place.name] = _Mounted(now, now, users.get(place.name, set()), switch=switch)
        log.info("views_adopted", mounted=len(self._mounted), published=sum(len(targets) for targets in users.values()))

    def is_mounted(self, view: View) -> bool:
        """Whether the view is mounted below the state directory now."""
        return mounting.is_mounted(self._place(view.id))

    def mounted(self) -> int:
        """How many views are mounted below the state directory now."""
        with self._guard:
            return len(self._mounted)

    @contextmanager
    def hold(self, view: View, model: ReadyModel | None) -> Iterator[Path]:
        """Where the view is mounted, mounting it first where it is not; it stays mounted for the body at least.

        ``model`` may be None when ``is_mounted`` has just said yes.

        Raises:
            NotFoundError, InvalidRequestError, UnsupportedError: what the view asks for cannot be shown.
            UnavailableError: it was unmounted meanwhile; try again.
            MountError, NoSpaceError: the kernel or the disk would not.
        """
        with self._locks.hold(view.id, patience=None):
            if not self.is_mounted(view):
                if model is None:
                    msg = "the view was unmounted while it was about to be used; try again"
                    raise UnavailableError(msg)
                self._mount(view, model)
            with self._guard:
                now = time.monotonic()
                live = self._mounted.setdefault(view.id, _Mounted(now, now))
                live.holders += 1
        try:
            yield self._place(view.id)
        finally:
            with self._guard:
                live.holders -= 1
                live.idle_since = time.monotonic()

    def enter(self, view_id: str, target: str) -> None:
        """Note that the view is published at ``target``."""
        with self._guard:
            self._mounted[view_id].targets.add(target)

    def leave(self, view_id: str, target: str) -> None:
        """Note that it no longer is; the view's idle time begins with its last target."""
        with self._guard:
            live = self._mounted.get(view_id)
            if live is not None:
                live.targets.discard(target)
                live.idle_since = time.monotonic()

    def usage(self, view_id: str) -> Totals | None:
        """How large the view is, once it was built."""
        known = self._totals.get(view_id)
        if known is None:
            record = self._store.state.view(view_id)
            if record is None:
                return None
            known = self._totals[view_id] = Totals(record.bytes, record.inodes)
        return known

    def made(self, mount: Mount) -> bool:
        """Whether a mount, wherever it is, shows one of our views."""
        return mounting.shown_view(mount, self._store.views) is not None

    def tend(self) -> None:
        """Unmount views that were idle for long enough; switch those to direct I/O whose first reader is through."""
        now = time.monotonic()
        with self._guard:
            idle = [name for name, live in self._mounted.items() if _unused(live) and now - live.idle_since >= self._idle]
            buffered = [(name, live) for name, live in self._mounted.items() if live.switch and name not in idle]
        for name in idle:
            self.release(name, older_than=self._idle)
        for name, live in buffered:
            self._switch_when_read(name, live, now)

    def release(self, view_id: str, *, older_than: float = 0.0) -> None:
        """Unmount the view unless somebody uses it or has within ``older_than`` seconds; a busy one is left for the next time."""
        with self._locks.hold(view_id, patience=None):
            with self._guard:
                live = self._mounted.get(view_id)
                if live is None or not _unused(live) or time.monotonic() - live.idle_since < older_than:
                    return
            try:
                mounting.unmount_view(self._place(view_id))
            except CsiModelError as error:
                log.warning("view_not_unmounted", view=view_id, reason=str(error))
                return
            with self._guard:
                del self._mounted[view_id]
            log.info("view_unmounted", view=view_id)

    def release_all(self) -> None:
        """Unmount every view that nobody has published."""
        with self._guard:
            names = list(self._mounted)
        for name in names:
            self.release(name)

    def remove(self, manifests: Iterable[Digest]) -> None:
        """Unmount and delete the views of these manifests.

        Raises:
            BusyError: one of them is published.
        """
        for record in self._store.state.views():
            if record.manifest not in set(manifests):
                continue
            self.release(record.view_id)
            if mounting.is_mounted(self._place(record.view_id)):
                msg = f"a view of {record.manifest} is still mounted; unmount it first"
                raise BusyError(msg)
            remove_view(self._folder(record.view_id))
            self._image(record.view_id).unlink(missing_ok=True)
            self._store.state.forget_view(record.view_id)

    def _mount(self, view: View, model: ReadyModel) -> None:
        root = tree_of(self._store.content, model.layers, view.selection)
        shown = used(root)
        sizes = {layer.content: layer.size for layer in model.layers if layer.content in shown}
        paths = {content: self._store.content.path(content) for content in sizes}
        strategy = self._choose(root, sizes, list(paths.values()))
        if strategy in _FOLDERS:
            files = ViewFiles(view.id, directory=self._folder(view.id))
            if not self._folder(view.id).is_dir():
                materialise(root, self._folder(view.id), paths)
        else:
            image = build_image(root, sizes)
            write_image(image, self._image(view.id), paths)
            files = ViewFiles(view.id, image=self._image(view.id), devices=tuple(paths[content] for content in image.devices))
        mounting.mount_view(files, strategy, self._place(view.id))
        now = time.monotonic()
        switch = strategy is Strategy.EROFS_BUFFERED and self._may_switch()
        with self._guard:
            self._mounted[view.id] = _Mounted(now, now, switch=switch)
        self._record(view, strategy, totals(root))
        log.info("view_mounted", view=view.id, manifest=str(view.manifest), strategy=strategy.value, layers=len(sizes))

    def _record(self, view: View, strategy: Strategy, size: Totals) -> None:
        self._totals[view.id] = size
        selection = view.selection
        self._store.state.record_view(
            ViewRecord(
                view_id=view.id,
                manifest=view.manifest,
                strategy=strategy.value,
                path=selection.path,
                include=selection.include,
                exclude=selection.exclude,
                bytes=size.bytes,
                inodes=size.inodes,
                last_used=time.time(),
            )
        )

    def _choose(self, root: Directory, sizes: dict[Digest, int], paths: Sequence[Path]) -> Strategy:
        warm = False
        if self._tended:
            cached = residency(paths)
            warm = is_warm(resident=cached.resident, total=cached.total, available=memory.available_bytes())
        return choose_view(self._ladder, all_whole_raw=links_only(root, sizes), pages_warm=warm)

    def _may_switch(self) -> bool:
        return self._ladder.forced is None and self._ladder.works(Strategy.EROFS_DIRECT)

    def _switch_when_read(self, view_id: str, live: _Mounted, now: float) -> None:
        place = self._place(view_id)
        try:
            if live.watched is None:
                live.watched = _largest_files(place)
            read = residency(live.watched)
            if not should_switch(mounted_for=now - live.since, resident=read.resident, total=read.total):
                return
            mounting.switch_to_direct(place, self._layer_files(view_id))
        except (CsiModelError, OSError) as error:
            # The view is readable as it is; what is lost is memory, so say so once and stop trying.
            log.warning("view_not_switched", view=view_id, reason=str(error), effect="what is read stays in memory twice")
        else:
            log.info("view_switched_to_direct", view=view_id)
        live.switch = False

    def _layer_files(self, view_id: str) -> list[Path]:
        record = self._store.state.view(view_id)
        model = self._store.state.model(record.manifest) if record is not None else None
        if model is None:
            return []
        return [self._store.content.path(layer.content) for layer in model.layers if layer.content is not None]

    def _place(self, view_id: str) -> Path:
        return self._store.mounts / view_id

    def _folder(self, view_id: str) -> Path:
        return self._store.views / view_id

    def _image(self, view_id: str) -> Path:
        return self._store.views / f"{view_id}.erofs"


def _unused(live: _Mounted) -> bool:
    return not live.targets and live.holders == 0


def _largest_files(place: Path) -> tuple[Path, ...]:
    found = [(entry.lstat().st_size, entry) for folder, _, names in os.walk(place) for entry in (Path(folder, name) for name in names)]
    return tuple(path for _, path in sorted(found, key=lambda pair: pair[0], reverse=True)[:_WATCHED_FILES])
