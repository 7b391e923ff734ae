"""The three pages at one address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from structlog.testing import capture_logs

from csi_model.errors import BusyError, InvalidRequestError
from csi_model.metrics.monitor import monitoring

if TYPE_CHECKING:
    from tests.metrics.conftest import FakeHealth


def ask(address: str, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urlopen(f"http://{address}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_and_probes_are_served(health: FakeHealth) -> None:
    """Each page answers from the first moment on, and the log says where; health's own words come with 503."""
    with capture_logs() as lines, monitoring("127.0.0.1:0", health) as metrics:
        (where,) = [line["address"] for line in lines if line["event"] == "monitoring"]
        metrics.calls.began("Probe")
        status, text = ask(where, "/metrics")
        assert status == 200
        assert 'csi_model_csi_calls_in_flight{method="Probe"} 1.0' in text
        assert ask(where, "/healthz") == (200, "ok\n")
        health.unready = "the driver is starting"
        assert ask(where, "/readyz") == (503, "the driver is starting\n")
        assert ask(where, "/healthz") == (200, "ok\n")
        health.dead, health.unready = "Identity.Probe does not answer", None
        assert ask(where, "/healthz") == (503, "Identity.Probe does not answer\n")
        assert ask(where, "/readyz") == (200, "ok\n")
        assert ask(where, "/")[0] == 404


def test_an_address_that_cannot_be_had_ends_the_start(health: FakeHealth) -> None:
    """A malformed address and a taken port are errors of ours before anything is served."""
    with pytest.raises(InvalidRequestError, match="no address to listen at"), monitoring("9808", health):
        pass
    with capture_logs() as lines, monitoring("127.0.0.1:0", health):
        where = lines[0]["address"]
        with pytest.raises(BusyError, match=where), monitoring(where, health):
            pass
