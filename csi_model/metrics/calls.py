"""Calls of CSI in Prometheus's terms; fed by the interceptor at the gRPC edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# From a call that finds everything mounted to one that was held for a pull as long as kubelet's patience allows, which is 110 s.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class CallMetrics:
    """Counts calls by method and code, and times those that ended well. Methods and codes are CSI's and gRPC's: a bounded set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "csi_model_csi_calls", "CSI calls that ended, by method and gRPC code.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "csi_model_csi_call_duration_seconds",
            "How long CSI calls took that ended with OK; a publish may be held for up to 110 s while its model is pulled.",
            ["method"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge("csi_model_csi_calls_in_flight", "CSI calls under way now.", ["method"], registry=registry)

    def began(self, method: str) -> None:
        """A call has come."""
        self._in_flight.labels(method).inc()

    def ended(self, method: str, code: str, seconds: float) -> None:
        """It was answered."""
        self._in_flight.labels(method).dec()
        self._total.labels(method, code).inc()
        if code == "OK":
            self._seconds.labels(method).observe(seconds)
