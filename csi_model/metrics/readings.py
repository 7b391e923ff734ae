"""Readings: what an engine shows at one moment, as a value."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError
from csi_model.linux.disk import Space, space
from csi_model.pull.pool import PIECE
from csi_model.store.faults import disk_errors
from csi_model.store.usage import Usage, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.mount.strategy import Ladder
    from csi_model.pull.counters import PullCounts
    from csi_model.store.records import Counts
    from csi_model.volumes.engine import Engine

_FRESH = 30.0
_SHARE = 100.0


@dataclass(frozen=True, slots=True)
class Readings:
    """One moment of an engine. ``rung`` is how views are mounted here, None where nothing works; sizes are bytes."""

    publishes_waiting: int
    pulls: PullCounts
    buffers: int
    usage: Usage
    recorded: Counts
    views_mounted: int
    disk: Space
    rung: str | None
    rung_forced: bool


class Gauges:
    """Reads one engine; cheap enough for every scrape. Safe to use from many threads."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        root = engine.store.root
        self._usage = Seldom(lambda: usage(root), clock)

    def read(self) -> Readings:
        """What is to be seen now; the weight of the store may be half a minute old.

        Raises:
            CsiModelError: the disk or the database cannot be read.
        """
        engine = self._engine
        root = engine.store.root
        with disk_errors(f"cannot look at the filesystem of {root}"):
            disk = space(root)
        return Readings(
            publishes_waiting=engine.models.waiting(),
            pulls=engine.models.counters.read(),
            buffers=engine.models.buffers_lent() * PIECE,
            usage=self._usage.value(),
            recorded=engine.store.state.counts(),
            views_mounted=engine.views.mounted(),
            disk=disk,
            rung=_rung(engine.ladder),
            rung_forced=engine.ladder.forced is not None,
        )


class Seldom:
    """A value that takes its time: computed anew after 30 s, and never for more than a hundredth of the time that goes by."""

    def __init__(self, compute: Callable[[], Usage], clock: Callable[[], float]) -> None:
        self._compute = compute
        self._clock = clock
        self._lock = threading.Lock()
        self._known: Usage | None = None
        self._due = 0.0

    def value(self) -> Usage:
        """The value, or an earlier one."""
        with self._lock:
            began = self._clock()
            if self._known is None or began >= self._due:
                self._known = self._compute()
                now = self._clock()
                self._due = now + max(_FRESH, _SHARE * (now - began))
            return self._known


def _rung(ladder: Ladder) -> str | None:
    try:
        return ladder.best.value
    except UnsupportedError:
        return None
