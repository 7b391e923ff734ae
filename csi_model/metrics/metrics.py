"""All metrics of one driver: a registry of its own, what is counted as it happens, and what is read on a scrape."""

from __future__ import annotations

import platform
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from csi_model import __version__
from csi_model.errors import CsiModelError
from csi_model.metrics.calls import CallMetrics
from csi_model.metrics.families import families
from csi_model.metrics.readings import Gauges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from csi_model.metrics.readings import Readings
    from csi_model.volumes.engine import Engine

log = structlog.get_logger(__name__)


class Health(Protocol):
    """Where the driver is in its course; answers with what is wrong, or None."""

    @property
    def is_registered(self) -> bool:
        """Whether kubelet has registered the driver."""

    def dead_because(self) -> str | None:
        """Why a restart would help."""

    def unready_because(self) -> str | None:
        """Why kubelet cannot use the driver now."""


class Metrics:
    """The metrics of a driver from its start on; those of the engine appear once there is one."""

    def __init__(self, health: Health) -> None:
        self.registry = CollectorRegistry()
        self.calls = CallMetrics(self.registry)
        self.registry.register(_Driver(health))
        ProcessCollector(registry=self.registry)

    def render(self, accept: str) -> tuple[str, bytes]:
        """All of it in the format that ``accept``, a header of HTTP, likes best; its content type and bytes."""
        encode, kind = choose_encoder(accept)
        return kind, encode(self.registry)

    @contextmanager
    def watch(self, engine: Engine) -> Iterator[None]:
        """Show the engine's metrics during the body."""
        with self.show(Gauges(engine).read):
            yield

    @contextmanager
    def show(self, read: Callable[[], Readings]) -> Iterator[None]:
        """Show what ``read`` returns on each scrape of the body; at the end nobody is reading any more."""
        collector = _Engine(read)
        self.registry.register(collector)
        try:
            yield
        finally:
            self.registry.unregister(collector)
            collector.end()


class _Driver(Collector):
    """What is known before there is an engine."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("csi_model_build", "The driver's version.", {"version": __version__, "python": platform.python_version()})
        registered = float(self._health.is_registered)
        yield GaugeMetricFamily("csi_model_registered", "1 once kubelet has registered the driver, else 0.", registered)


class _Engine(Collector):
    """What the engine shows. A disk that cannot be read takes only these metrics away, for the others may tell why."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read: Callable[[], Readings] | None = read
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if self._read is None:
                return
            try:
                readings = self._read()
            except CsiModelError as error:
                log.warning("the engine's metrics cannot be read", reason=str(error))
                return
        yield from families(readings)

    def end(self) -> None:
        """Read no more; waits for a scrape that is reading."""
        with self._lock:
            self._read = None
