"""Views on this node: built once, mounted once, kept for a while after their last volume, and never twice in memory.

    views/<id>.erofs    a view's metadata image       views/<id>/    or its folder of links or plain files
    mounts/<id>/        where it is mounted; targets are clones of this mount

Mounts outlive the process: ``adopt`` takes over what an earlier one left. ``tend``, called every second, lets go of what has been idle
for long enough and switches views that began buffered to direct I/O once their first reader is through.

What a view weighs on the disk lives as long as it is mounted or a volume shows it, and goes with it: a folder of copies weighs as much as
its model, and all else is built again in milliseconds. So a node that comes back from a reboot finds the files of what is published, and
nothing else is kept for anybody.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import BusyError, CsiModelError
from csi_model.linux.mountinfo import read_mounts
from csi_model.mount import views as mounting
from csi_model.mount.materialise import sweep_unfinished
from csi_model.mount.strategy import Strategy
from csi_model.store.faults import disk_errors
from csi_model.store.keylocks import KeyLocks
from csi_model.tree.view import Totals
from csi_model.volumes.building import Build, Builder, View
from csi_model.volumes.flight import Flights
from csi_model.volumes.switching import Switch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from csi_model.config.model import Config
    from csi_model.linux.mountinfo import Mount
    from csi_model.mount.strategy import Ladder
    from csi_model.oci.digest import Digest
    from csi_model.store.store import Store
    from csi_model.volumes.flight import Waiter
    from csi_model.volumes.models import ReadyModel

__all__ = ["View", "Views"]

log = structlog.get_logger(__name__)

_CLEAR_EVERY = 3600.0
_ID = re.compile(r"([0-9a-f]{32})(\.erofs)?")


@dataclass(slots=True)
class _Mounted:
    """A view that is mounted now: for which targets, idle since when, and what is left to do to have it switched to direct I/O."""

    idle_since: float
    targets: set[str] = field(default_factory=set)
    holders: int = 0
    switch: Switch | None = None


class Views:
    """Keeps the node's views. Safe to use from many threads; one view is built by one thread at a time."""

    def __init__(self, store: Store, ladder: Ladder, config: Config, *, tended: bool) -> None:
        """``tended`` says that somebody will call ``tend``; without, no view begins buffered, for nobody would switch it."""
        self._store = store
        self._builder = Builder(store, ladder, reserve=config.pull.free_space_reserve, tended=tended)
        self._builds: Flights[Build] = Flights(Build, "view", config.pull.linger)
        self._idle = config.views.idle
        self._locks = KeyLocks()
        self._guard = Lock()
        self._mounted: dict[str, _Mounted] = {}
        self._unrecorded: set[str] = set()
        self._totals: dict[str, Totals] = {}
        self._cleared = time.monotonic()

    def adopt(self) -> None:
        """Take over the view mounts that an earlier process left, and clear away what its crash left unfinished, or nobody needs."""
        swept = sweep_unfinished(self._store.views)
        if swept:
            log.info("unfinished_views_removed", names=swept)
        mounted = {Path(mount.target) for mount in read_mounts()}
        users: dict[str, set[str]] = {}
        published = self._store.state.publications()
        kept = {publication.view_id for publication in published}
        for publication in published:
            if Path(publication.target) in mounted:
                users.setdefault(publication.view_id, set()).add(publication.target)
        recorded = {record.view_id for record in self._store.state.views()}
        now = time.monotonic()
        for place in sorted(self._store.mounts.iterdir()):
            if not mounting.is_mounted(place):
                if place.name not in kept:  # after a reboot onto a full disk there may be no room to make it again
                    mounting.remove_place(place)
                continue
            strategy = mounting.mounted_strategy(place)
            self._mounted[place.name] = _Mounted(now, users.get(place.name, set()), switch=self._switch(place.name, strategy, now))
            if place.name not in recorded:
                self._unrecorded.add(place.name)
        for name in tuple(self._unrecorded):  # the database was lost; what is in use stays, and gets its record when it is asked for
            self.release(name)
        self._shed()
        self._clear()
        log.info("views_adopted", mounted=len(self._mounted), published=sum(len(targets) for targets in users.values()))

    def is_mounted(self, view: View) -> bool:
        """Whether the view is mounted below the state directory now, and known."""
        return view.id not in self._unrecorded and mounting.is_mounted(self._builder.place(view.id))

    def mounted(self) -> int:
        """How many views are mounted below the state directory now."""
        with self._guard:
            return len(self._mounted)

    @contextmanager
    def hold(self, view: View, model: ReadyModel | None, deadline: float | None = None, waiter: Waiter | None = None) -> Iterator[Path]:
        """Where the view is mounted, mounting it first where it is not; it stays mounted for the body at least.

        ``model`` may be None when ``is_mounted`` has just said yes. ``deadline``, of ``time.monotonic()``, and ``waiter`` end the wait
        for a view that is being built, and never its building.

        Raises:
            NotFoundError, InvalidRequestError, UnsupportedError: what the view asks for cannot be shown.
            StillPullingError: the deadline came first; says how far the building is.
            BusyError: ``waiter`` was cancelled, the view is just going away, or it was unmounted meanwhile; try again.
            StoppedError: the process is stopping.
            MountError, NoSpaceError: the kernel or the disk would not.
        """
        self._shed()
        live = self._held(view, model, deadline, waiter)
        try:
            yield self._builder.place(view.id)
        finally:
            with self._guard:
                live.holders -= 1
                live.idle_since = time.monotonic()

    def enter(self, view_id: str, target: str) -> None:
        """Note that the view is published at ``target``; it is nothing to tend when its own mount has gone and the target's lives on."""
        with self._guard:
            live = self._mounted.get(view_id)
            if live is not None:
                live.targets.add(target)

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
        """Let go of views that were idle for long enough; switch those to direct I/O whose first reader is through."""
        self._shed()
        now = time.monotonic()
        with self._guard:
            idle = [name for name, live in self._mounted.items() if _unused(live) and now - live.idle_since >= self._idle]
            buffered = [(name, live) for name, live in self._mounted.items() if live.switch is not None and name not in idle]
        for name in idle:
            self.release(name, older_than=self._idle)
        for name, live in buffered:
            self._switch_when_read(name, live, now)
        if now - self._cleared >= _CLEAR_EVERY:
            self._clear()

    def release(self, view_id: str, *, older_than: float = 0.0) -> None:
        """Unmount the view and delete its files, unless somebody uses it or has within ``older_than`` seconds.

        A busy one is left for the next time, and one that a mount still shows of which there is no record.
        """
        if view_id not in self._mounted:  # it may be under construction, which takes its time
            return
        with self._locks.hold(view_id, patience=None):
            with self._guard:
                live = self._mounted.get(view_id)
                if live is None or not _unused(live) or time.monotonic() - live.idle_since < older_than:
                    return
            try:
                if view_id in mounting.shown_views(self._store.views, self._store.mounts):
                    live.idle_since = time.monotonic()
                    return
                mounting.unmount_view(self._builder.place(view_id))
                with self._guard:
                    del self._mounted[view_id]
                    self._unrecorded.discard(view_id)
                log.info("view_unmounted", view=view_id)
                self._remove(view_id)
            except CsiModelError as error:
                log.warning("view_not_released", view=view_id, reason=str(error))

    def release_all(self) -> None:
        """Let go of every view that nobody has published."""
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
            with self._locks.hold(record.view_id, patience=None):
                if mounting.is_mounted(self._builder.place(record.view_id)):
                    msg = f"a view of {record.manifest} is still mounted; unmount it first"
                    raise BusyError(msg)
                self._remove(record.view_id)

    def stop(self, grace: float) -> None:
        """Wake all who wait for a view and have its building end."""
        self._builds.stop(grace)

    def _held(self, view: View, model: ReadyModel | None, deadline: float | None, waiter: Waiter | None) -> _Mounted:
        while True:
            if model is not None and not self.is_mounted(view):
                self._building(view, model).wait(deadline, waiter)
            # Whoever has it now only looks, or takes the view away; a build that began in between is waited for like any other.
            patience = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._locks.hold(view.id, patience=patience):
                if self.is_mounted(view):
                    with self._guard:
                        live = self._mounted.setdefault(view.id, _Mounted(time.monotonic()))
                        live.holders += 1
                    return live
            if model is None:
                msg = "the view was unmounted while it was about to be used; try again"
                raise BusyError(msg)  # and no failure: the next try builds it

    def _building(self, view: View, model: ReadyModel) -> Build:
        return self._builds.join(view.id, lambda flight: self._build(view, model, flight))

    def _build(self, view: View, model: ReadyModel, flight: Build) -> None:
        with self._locks.hold(view.id, patience=None):
            if self.is_mounted(view):
                return
            strategy, size = self._builder.build(view, model, flight)
            now = time.monotonic()
            with self._guard:
                self._mounted.setdefault(view.id, _Mounted(now, switch=self._switch(view.id, strategy, now)))
                self._unrecorded.discard(view.id)
            self._totals[view.id] = size

    def _shed(self) -> None:
        """Let go of the views of content that was damaged and removed, so that they are built of what is pulled in its place."""
        damaged = self._store.content.take_dropped()
        if not damaged:
            return
        for record in self._store.state.views():
            if not damaged & self._store.state.contents_of([record.manifest]):
                continue
            self.release(record.view_id)
            with self._guard:
                live = self._mounted.get(record.view_id)
            if live is not None:
                targets = sorted(live.targets)
                log.warning(
                    "view_shows_damaged_content", view=record.view_id, targets=targets, effect="until the pods that read it have ended"
                )

    def _clear(self) -> None:
        """Delete the files and records of views that are neither mounted nor published: a crash, a failed mount or a reboot left them."""
        self._cleared = time.monotonic()
        with disk_errors(f"cannot list {self._store.views}"):
            there = {found[1] for entry in self._store.views.iterdir() if (found := _ID.fullmatch(entry.name))}
        recorded = {record.view_id for record in self._store.state.views()}
        for name in sorted((there | recorded) - self._needed()):
            with suppress(BusyError), self._locks.hold(name, patience=0):  # a busy one is being built
                if name not in self._needed():
                    self._remove_leftover(name)

    def _remove_leftover(self, view_id: str) -> None:
        try:
            self._remove(view_id)
        except CsiModelError as error:  # of no harm to the others
            log.warning("view_not_removed", view=view_id, reason=str(error), effect="its bytes stay on the disk; tried again every hour")
        else:
            log.info("view_removed", view=view_id)

    def _needed(self) -> set[str]:
        """The views that are mounted, published, or shown by a mount of which there is no record."""
        published = {publication.view_id for publication in self._store.state.publications()}
        shown = mounting.shown_views(self._store.views, self._store.mounts)
        with self._guard:
            return published | shown | self._mounted.keys()

    def _remove(self, view_id: str) -> None:
        self._totals.pop(view_id, None)
        self._builder.remove(view_id)

    def _switch(self, view_id: str, strategy: Strategy | None, now: float) -> Switch | None:
        if strategy is not Strategy.EROFS_BUFFERED or not self._builder.may_switch():
            return None
        return Switch(self._builder.place(view_id), now)

    def _switch_when_read(self, view_id: str, live: _Mounted, now: float) -> None:
        assert live.switch is not None, "asked for those that have one"
        try:
            if not live.switch.due(now):
                return
            live.switch.throw(self._layer_files(view_id))
        except (CsiModelError, OSError) as error:
            # The view is readable as it is; what is lost is memory, so say so once and stop trying.
            log.warning("view_not_switched", view=view_id, reason=str(error), effect="what is read stays in memory twice")
        else:
            log.info("view_switched_to_direct", view=view_id)
        live.switch = None

    def _layer_files(self, view_id: str) -> list[Path]:
        record = self._store.state.view(view_id)
        model = self._store.state.model(record.manifest) if record is not None else None
        if model is None:
            return []
        return [self._store.content.path(layer.content) for layer in model.layers if layer.content is not None]


def _unused(live: _Mounted) -> bool:
    return not live.targets and live.holders == 0
