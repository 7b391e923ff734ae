"""A driver's metrics as a monitoring system reads them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from csi_model import __version__
from csi_model.errors import UnavailableError
from csi_model.metrics.metrics import Metrics

if TYPE_CHECKING:
    from csi_model.metrics.readings import Readings
    from tests.metrics.conftest import FakeHealth


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels; the text must parse."""
    _, body = metrics.render("")
    return {
        "".join([sample.name, *(f" {name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_driver_that_starts_has_metrics(health: FakeHealth) -> None:
    """Before there is an engine: the build, the process, and whether kubelet has registered the driver."""
    metrics = Metrics(health)
    found = scrape(metrics)
    assert any(f"version={__version__}" in name for name in found if name.startswith("csi_model_build_info"))
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["csi_model_registered"] == 0
    health.is_registered = True
    assert scrape(metrics)["csi_model_registered"] == 1


def test_an_engine_is_shown_while_it_is_there(health: FakeHealth, readings: Readings) -> None:
    """Its metrics appear with it and go with it."""
    metrics = Metrics(health)
    with metrics.show(lambda: readings):
        assert scrape(metrics)["csi_model_models"] == 13
    assert "csi_model_models" not in scrape(metrics)


def test_a_disk_that_cannot_be_read_leaves_the_other_metrics(health: FakeHealth) -> None:
    """The scrape still succeeds, without the engine's metrics, and the log says why."""
    metrics = Metrics(health)

    def fail() -> Readings:
        msg = "cannot look at the disk"
        raise UnavailableError(msg)

    with metrics.show(fail), capture_logs() as lines:
        assert "csi_model_registered" in scrape(metrics)
    assert [line["reason"] for line in lines] == ["cannot look at the disk"]


def test_calls_are_counted_and_those_that_ended_well_timed(health: FakeHealth) -> None:
    """A call is in flight until it ends; its code is counted, and its time only when that was OK."""
    metrics = Metrics(health)
    metrics.calls.began("NodePublishVolume")
    assert scrape(metrics)["csi_model_csi_calls_in_flight method=NodePublishVolume"] == 1
    metrics.calls.ended("NodePublishVolume", "OK", 0.3)
    metrics.calls.began("NodePublishVolume")
    metrics.calls.ended("NodePublishVolume", "ABORTED", 110.0)
    found = scrape(metrics)
    assert found["csi_model_csi_calls_in_flight method=NodePublishVolume"] == 0
    assert found["csi_model_csi_calls_total code=OK method=NodePublishVolume"] == 1
    assert found["csi_model_csi_calls_total code=ABORTED method=NodePublishVolume"] == 1
    assert found["csi_model_csi_call_duration_seconds_count method=NodePublishVolume"] == 1
    assert found["csi_model_csi_call_duration_seconds_bucket le=0.25 method=NodePublishVolume"] == 0
    assert found["csi_model_csi_call_duration_seconds_bucket le=0.5 method=NodePublishVolume"] == 1


def test_the_format_is_the_callers_choice(health: FakeHealth) -> None:
    """Prometheus, which asks for OpenMetrics, gets it; everybody else the text format."""
    metrics = Metrics(health)
    kind, body = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert metrics.render("*/*")[0].startswith("text/plain")


def test_nothing_is_global(health: FakeHealth) -> None:
    """Two drivers in one process do not meet, and the client library's own registry stays out of it."""
    first, second = Metrics(health), Metrics(health)
    first.calls.began("Probe")
    assert not [name for name in scrape(second) if "Probe" in name]
    assert not [family.name for family in prometheus_client.REGISTRY.collect() if family.name.startswith("csi_model")]


def test_a_scrape_is_cheap(health: FakeHealth, readings: Readings) -> None:
    """With every kind of call seen, a scrape takes less than 10 ms of CPU time."""
    metrics = Metrics(health)
    for method in ("NodePublishVolume", "NodeUnpublishVolume", "NodeGetVolumeStats", "NodeGetInfo", "Probe"):
        for code in ("OK", "ABORTED", "UNAVAILABLE", "NOT_FOUND"):
            metrics.calls.began(method)
            metrics.calls.ended(method, code, 1.0)
    with metrics.show(lambda: readings):
        metrics.render("")
        began = time.thread_time()
        for _ in range(20):
            metrics.render("")
        each = (time.thread_time() - began) / 20
    assert each < 0.010


def test_an_engine_may_close_once_its_metrics_are_gone(health: FakeHealth, readings: Readings) -> None:
    """The end waits for a scrape that is reading the engine, so that none reads one that is closed."""
    metrics = Metrics(health)
    reading, go_on = threading.Event(), threading.Event()
    closed = False

    def read() -> Readings:
        reading.set()
        go_on.wait(5)
        assert not closed
        return readings

    with ThreadPoolExecutor(1) as pool:
        with metrics.show(read):
            scraped = pool.submit(scrape, metrics)
            assert reading.wait(5)
            threading.Timer(0.2, go_on.set).start()
        closed = True
        assert scraped.result(5)["csi_model_models"] == 13
