"""Publish and unpublish: the use cases behind the CSI node calls and behind ``csi-model mount`` and ``unmount``."""

from __future__ import annotations

import math
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars

from csi_model.errors import BusyError, ConflictError, CsiModelError, InvalidRequestError, NotFoundError, StillPullingError
from csi_model.mount import targets
from csi_model.mount.targets import Target
from csi_model.mount.views import shown_view
from csi_model.steps import step
from csi_model.store.keylocks import KeyLocks
from csi_model.store.records import Publication
from csi_model.volumes.flight import Waiter
from csi_model.volumes.look import Look
from csi_model.volumes.models import credentials_for
from csi_model.volumes.observer import Mounted, Pulled, tell_nobody
from csi_model.volumes.recognise import recognise, remember_view
from csi_model.volumes.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from csi_model.linux.mountinfo import Mount
    from csi_model.oci.digest import Digest
    from csi_model.registry.credentials import Credential
    from csi_model.store.store import Store
    from csi_model.tree.view import Totals
    from csi_model.volumes.models import Models, ReadyModel
    from csi_model.volumes.observer import Tell
    from csi_model.volumes.request import VolumeRequest
    from csi_model.volumes.views import Views

log = structlog.get_logger(__name__)

_STOP_GRACE = 10.0
_TEND_EVERY = 1.0
_TIDY_EVERY = 3600.0
_PIN_KEPT = 86400.0
_UNPUBLISH_PATIENCE = 5.0
"""Seconds that an unpublish waits for the publish it has just cancelled to leave."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One publish: what was asked, until when, and how an unpublish can end the wait."""

    volume_id: str
    place: Target
    request: VolumeRequest
    secrets: Mapping[str, str] = field(repr=False)
    deadline: float | None
    tell: Tell
    waiter: Waiter = field(default_factory=Waiter)
    began: float = field(default_factory=time.monotonic)


class Volumes:
    """Makes views appear at target paths and disappear again. Safe to use from many threads.

    Order of a publish, and what a crash between two steps leaves:

    1. the model's layers are committed to the store: found again;
    2. the view is mounted below the state directory: adopted by the next start;
    3. the publication is recorded: the retry finds a record without a mount and goes on;
    4. the target is mounted: the retry finds both and answers.

    Unpublish takes them back in reverse (4, 3), so a mount at a target always has its record.
    """

    def __init__(self, store: Store, models: Models, views: Views, root: Path) -> None:
        self._store = store
        self._models = models
        self._views = views
        self._root = root
        self._targets = KeyLocks()
        self._waiters: dict[str, Waiter] = {}
        self._stopping = threading.Event()
        self._complaints: dict[str, str] = {}
        """What tending and tidying last failed with: said once, not every second."""
        self._tending = threading.Thread(target=self._tend, name="views", daemon=True)

    def publish(
        self,
        *,
        volume_id: str,
        target: str,
        request: VolumeRequest,
        secrets: Mapping[str, str],
        deadline: float | None,
        tell: Tell = tell_nobody,
    ) -> None:
        """Make what the request names appear at ``target``, read-only.

        A live mount of the same volume is left as it is, without asking or telling anybody. ``deadline`` is of ``time.monotonic()``.

        Raises:
            StillPullingError: the deadline came before the pull's end; the pull goes on.
            BusyError: another call is at work on this target.
            ConflictError: something else is mounted there, or the volume was published there with other arguments.
            CsiModelError: the reference, the registry, the disk or the kernel would not.
        """
        place = Target.parse(target, root=self._root)
        with self._targets.hold(str(place), patience=0):
            call = _Call(volume_id, place, request, secrets, deadline, tell)
            self._waiters[str(place)] = call.waiter
            try:
                manifest = self._publish(call)
            finally:
                del self._waiters[str(place)]
        bind_contextvars(manifest=str(manifest))  # for the line that ends the call

    def unpublish(self, *, volume_id: str, target: str) -> None:
        """Undo ``publish``; a waiting publish of the target is ended first. Nothing to undo is no error.

        Raises:
            ConflictError: somebody else's mount or files are there; they are left untouched.
            MountError: the target is busy.
        """
        place = Target.parse(target, root=self._root)
        waiter = self._waiters.get(str(place))
        if waiter is not None:
            waiter.cancel()
        with self._targets.hold(str(place), patience=_UNPUBLISH_PATIENCE):
            record = self._store.state.publication(str(place))
            if record is not None and record.volume_id != volume_id:
                log.warning("unpublish_of_another_volume", target=str(place), volume_id=volume_id, published=record.volume_id)
            targets.detach(place, ours=self._is_ours)
            former = self._store.state.unpublish(str(place))
            step("unpublish.recorded")
            if former is None:
                self._store.state.unpin(volume_id)
            else:
                self._views.leave(former.view_id, str(place))

    def stats(self, *, volume_id: str, path: str) -> Totals:
        """The size of the view that the volume shows at ``path``: its own bytes and inodes, not the disk's.

        Raises:
            NotFoundError: the volume is not published there.
        """
        record = self._store.state.publication(self._recorded(path))
        usage = self._views.usage(record.view_id) if record is not None and record.volume_id == volume_id else None
        if usage is None:
            msg = f"volume {volume_id[:160]} is not published at {path[:300]}"
            raise NotFoundError(msg)
        return usage

    def stop(self) -> None:
        """Wake every waiting publish; published mounts stay."""
        self._views.stop(_STOP_GRACE)
        self._models.stop(_STOP_GRACE)
        self._stopping.set()
        if self._tending.is_alive():
            self._tending.join(_STOP_GRACE)

    def start(self) -> None:
        """Take over what an earlier process left mounted, and tend the views from now on."""
        self._views.adopt()
        self._tending.start()

    def _recorded(self, path: str) -> str:
        """A target path as it is recorded: without symlinks above the root, and without a slash at its end."""
        try:
            return str(Target.parse(path, root=self._root))
        except InvalidRequestError:
            return ""  # nothing is published there

    def _tend(self) -> None:
        tidied = -math.inf
        while not self._stopping.wait(_TEND_EVERY):
            with self._carrying_on("views_not_tended"):
                self._views.tend()
            if time.monotonic() - tidied >= _TIDY_EVERY:
                tidied = time.monotonic()
                with self._carrying_on("not_tidied"):
                    self._tidy(time.time())

    @contextmanager
    def _carrying_on(self, event: str) -> Iterator[None]:
        """Log whatever ends the body, a bug of ours too, and go on: no caller would start the thread that tends again."""
        told = ""
        try:
            yield
        except CsiModelError as error:
            told = str(error)
            if self._complaints.get(event) != told:
                log.warning(event, reason=told)
        except Exception as error:  # noqa: BLE001 - see above
            # Formatted here, without the values of variables: a log renderer that shows those would show secrets.
            told = "".join(traceback.format_exception(error))
            if self._complaints.get(event) != told:
                log.error(event, traceback=told)  # noqa: TRY400
        self._complaints[event] = told

    def _tidy(self, now: float) -> None:
        """Let go of what no unpublish will ever undo: old ingests and layers, old pins, and publications whose pod's folder is gone."""
        self._store.content.sweep(now=now)
        self._models.tidy(now)
        self._store.reserve.refill()
        self._store.state.unpin_older(now - _PIN_KEPT)
        for publication in self._store.state.publications():
            target = Path(publication.target)
            with suppress(BusyError), self._targets.hold(publication.target, patience=0):
                if not target.parent.exists():
                    self._store.state.unpublish(publication.target)
                    self._views.leave(publication.view_id, publication.target)
                    log.info("publication_forgotten", target=publication.target, reason="its directory is gone")

    def _publish(self, call: _Call) -> Digest:
        state, place, reference = self._store.state, str(call.place), str(call.request.reference)
        record = state.publication(place)
        if mounted := targets.what_is_mounted(call.place):
            return self._already_there(call, record, mounted)
        # A volume that was published at this very target had its right to what it showed checked then: a reboot takes neither away.
        former = record.manifest if record is not None and _same(record, call) else None
        pinned = state.pinned(call.volume_id, reference) or former
        view, model = self._model(call, pinned, granted=former is not None and pinned == former)
        with self._views.hold(view, model, call.deadline, call.waiter) as shown:
            if call.waiter.cancelled:
                msg = "the volume was unpublished while it was being published"
                raise BusyError(msg)
            state.publish(_publication(call, view))
            step("publish.recorded")
            try:
                targets.attach(shown, call.place)
            except BaseException:
                if record is None:
                    state.unpublish(place)
                else:
                    state.publish(record)  # the volume's right to the model, and the digest that it shows, are in it
                raise
            self._views.enter(view.id, place)
        call.tell(Mounted(view.manifest, time.monotonic() - call.began))
        return view.manifest

    def _already_there(self, call: _Call, record: Publication | None, mounted: Sequence[Mount]) -> Digest:
        """What the target shows, if it is what is asked for; a live mount is never touched, and nobody is asked about it.

        Raises:
            ConflictError: it shows something else.
        """
        if record is None:
            return self._recognised(call, mounted)
        if not _same(record, call):
            msg = f"{call.place} already shows {record.reference} for volume {record.volume_id}; unpublish it first"
            raise ConflictError(msg)
        if shown_view(mounted[-1], self._store.views) != record.view_id:
            raise _foreign(call.place, mounted[-1], "is not what csi-model mounted there")
        return record.manifest

    def _recognised(self, call: _Call, mounted: Sequence[Mount]) -> Digest:
        """Record anew what is mounted at the target, when it can only be this volume: the state database has lost the record."""
        state, views = self._store.state, {shown_view(mount, self._store.views) for mount in mounted}
        name = views.pop()
        pinned = state.pinned(call.volume_id, str(call.request.reference))
        view = None if views or name is None else recognise(state, name, call.request, pinned)
        if view is None:
            raise _foreign(call.place, mounted[-1], "csi-model has no record of")
        remember_view(state, view, call.place.path)
        state.publish(_publication(call, view))
        self._views.enter(view.id, str(call.place))
        log.warning("publication_recognised", target=str(call.place), view=view.id, manifest=str(view.manifest))
        return view.manifest

    def _model(self, call: _Call, pinned: Digest | None, *, granted: bool) -> tuple[View, ReadyModel | None]:
        """The view to show and, unless it is mounted already, the layers to build it from."""
        request = call.request
        credentials = credentials_for(request.reference, call.secrets)
        manifest = pinned or self._models.resolved(request)
        # The right comes before all else that is said of the model: what its tree lacks would name files of others.
        if manifest is not None and (granted or self._may_have(call, manifest, credentials)):
            view = View(manifest, request.selection)
            mounted = self._views.is_mounted(view)
            model = None if mounted else self._models.find(manifest, request.selection)
            if mounted or model is not None:
                call.tell(Pulled(manifest, self._models.size(manifest), fetched=0, seconds=0.0))
                return view, model
        flight = self._models.fetch(request, credentials, pinned)
        try:
            model = flight.wait(call.deadline, call.waiter, look := Look(flight, call.tell))
        except StillPullingError:
            if flight.manifest is not None:
                self._store.state.pin_volume(call.volume_id, str(request.reference), flight.manifest)
            raise
        look.last(model)
        return View(model.manifest, request.selection), model

    def _may_have(self, call: _Call, manifest: Digest, credentials: Sequence[Credential]) -> bool:
        access, reference = self._models.access, call.request.reference
        return access.may_have(reference, manifest, credentials, deadline=call.deadline, waiter=call.waiter)

    def _is_ours(self, mount: Mount) -> bool:
        return self._views.made(mount)


def _foreign(place: Target, mount: Mount, how: str) -> ConflictError:
    what = f"{mount.filesystem} {mount.source} {mount.root}"
    return ConflictError(f"{place} carries a mount that {how} ({what}); it was left untouched, unmount it")


def _publication(call: _Call, view: View) -> Publication:
    return Publication(
        target=str(call.place),
        volume_id=call.volume_id,
        reference=str(call.request.reference),
        manifest=view.manifest,
        view_id=view.id,
        path=view.selection.path,
        include=view.selection.include,
        exclude=view.selection.exclude,
        when=time.time(),
    )


def _same(record: Publication, call: _Call) -> bool:
    selection = call.request.selection
    return (record.volume_id, record.reference, record.path, record.include, record.exclude) == (
        call.volume_id,
        str(call.request.reference),
        selection.path,
        selection.include,
        selection.exclude,
    )
