"""The engine: store, models, views and volumes put together, for the driver and for the command line."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import NoSpaceError
from csi_model.mount.probe import probe
from csi_model.mount.strategy import Strategy
from csi_model.sources.connect import Connector
from csi_model.store.store import Store
from csi_model.volumes.models import Models
from csi_model.volumes.views import Views
from csi_model.volumes.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_model.config.model import Config
    from csi_model.mount.strategy import Ladder


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts, for whoever needs one of them alone. ``volumes`` serves the driver."""

    store: Store
    ladder: Ladder
    models: Models
    views: Views
    volumes: Volumes


@contextmanager
def open_engine(state_dir: Path, config: Config, *, targets: Path, tended: bool, loopback_plain_http: bool = False) -> Iterator[Engine]:
    """Open the state directory for writing and put everything together; at the end pulls stop and published mounts stay.

    ``targets`` is the directory below which views may be published. ``tended`` is for a process that lives on: it keeps views for
    their idle time and switches them; without, each call leaves things as they should stay.
    ``loopback_plain_http`` lets loopback addresses be spoken to without TLS, as a person on the command line may ask.

    Raises:
        BusyError: another process owns the state directory.
        UnsupportedError, NoSpaceError, MountError: the directory or the kernel will not do. A full disk alone ends no start while there
            is something of the store's reserve left.
    """
    with ExitStack() as resources:
        store = resources.enter_context(Store.open(state_dir, writable=True))
        forced = None if config.views.strategy == "auto" else Strategy(config.views.strategy)
        ladder = _probed(store, forced)
        models = Models(store, config, Connector(config, loopback_plain_http=loopback_plain_http))
        views = Views(store, ladder, config, tended=tended)
        volumes = Volumes(store, models, views, targets)
        if tended:
            volumes.start()
        else:
            views.adopt()
        if tended:
            resources.callback(views.release_all)  # the last thing before the store closes
        resources.callback(volumes.stop)
        yield Engine(store, ladder, models, views, volumes)


def _probed(store: Store, forced: Strategy | None) -> Ladder:
    while True:
        try:
            return probe(store.root, forced)
        except NoSpaceError:  # the probe writes a few KiB
            if not store.reserve.lend():
                raise
