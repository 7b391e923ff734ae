"""The pages that a monitoring system and kubelet's probes ask for, served from the driver's first moment to its last."""

from __future__ import annotations

from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from csi_model.metrics.address import Address
from csi_model.metrics.metrics import Metrics
from csi_model.metrics.server import Answer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.metrics.metrics import Health
    from csi_model.metrics.server import Page

log = structlog.get_logger(__name__)


@contextmanager
def monitoring(address: str, health: Health) -> Iterator[Metrics]:
    """Serve ``/metrics``, ``/healthz`` and ``/readyz`` at ``address`` for the body.

    ``/healthz`` fails only where a restart would help, ``/readyz`` while kubelet cannot use the driver.

    Raises:
        InvalidRequestError, BusyError: nobody can listen there.
    """
    metrics = Metrics(health)
    listener = Address.parse(address).listen()
    where = Address(*listener.getsockname()[:2])
    pages: dict[str, Page] = {
        "/metrics": lambda accept: _rendered(metrics, accept),
        "/healthz": lambda _: _verdict(health.dead_because()),
        "/readyz": lambda _: _verdict(health.unready_because()),
    }
    with serving(listener, pages):
        log.info("monitoring", address=str(where))
        yield metrics


def _rendered(metrics: Metrics, accept: str) -> Answer:
    kind, body = metrics.render(accept)
    return Answer(body, kind)


def _verdict(wrong: str | None) -> Answer:
    if wrong is None:
        return Answer(b"ok\n")
    return Answer(f"{wrong}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
