"""From readings to Prometheus's families of samples: names, help and labels of all that is read on a scrape.

No label may take a value that a pod's author can choose without bound: no names of pods, references or digests.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from csi_model.pull.counters import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from csi_model.metrics.readings import Readings
    from csi_model.pull.counters import PullCounts


def families(readings: Readings) -> Iterator[Metric]:
    """Every family, with a sample for each label value that there is."""
    yield _gauge("publishes_waiting", "Publishes that wait for their model now.", readings.publishes_waiting)
    yield from _pulls(readings.pulls)
    yield _gauge("pull_buffer_bytes", "Memory that pulls use for bytes in flight now.", readings.buffers)
    stored = GaugeMetricFamily(
        "csi_model_stored_bytes",
        "Bytes of the state directory's files, looked up every 30 s or less often: verified content, unfinished ingests, images and files of views.",
        labels=["kind"],
    )
    stored.add_metric(["content"], readings.usage.content)
    stored.add_metric(["ingest"], readings.usage.ingest)
    stored.add_metric(["views"], readings.usage.views)
    yield stored
    yield _gauge("models", "Models that were pulled and not removed.", readings.recorded.models)
    yield _gauge("references", "References that are known on this node.", readings.recorded.references)
    yield _gauge("views", "Views that were built and not removed.", readings.recorded.views)
    yield _gauge("views_mounted", "Views that are mounted now, for volumes or for the next one.", readings.views_mounted)
    yield _gauge("publications", "Target paths at which a volume is published.", readings.recorded.publications)
    yield _gauge("disk_size_bytes", "Size of the state directory's filesystem.", readings.disk.total)
    yield _gauge("disk_free_bytes", "Free bytes of the state directory's filesystem.", readings.disk.free)
    yield _gauge("disk_free_inodes", "Free inodes of the state directory's filesystem; 0 where it has no limit.", readings.disk.inodes_free)
    rung = {"rung": readings.rung or "none", "forced": str(readings.rung_forced).lower()}
    yield InfoMetricFamily("csi_model_mount_rung", "How views are mounted on this node, and whether the configuration forces it.", rung)


def _pulls(pulls: PullCounts) -> Iterator[Metric]:
    yield _counter("pulls_started", "Pulls of models that began, those included that found every layer here.", pulls.started)
    yield _counter("pulls_succeeded", "Pulls of models that brought all that was wanted.", pulls.succeeded)
    failed = CounterMetricFamily(
        "csi_model_pulls_failed",
        "Pulls of models that failed, by kind of error; `stopped`: nobody waited any longer, or the driver ended; `disk`: the node's own failed.",
        labels=["kind"],
    )
    for kind, count in pulls.failed.items():
        failed.add_metric([kind], count)
    yield failed
    yield _gauge("pulls_in_flight", "Pulls of models under way now.", pulls.in_flight)
    ends = [*(str(end) for end in SECONDS), "+Inf"]
    yield HistogramMetricFamily(
        "csi_model_pull_duration_seconds",
        "How long pulls that succeeded took.",
        buckets=list(zip(ends, accumulate(pulls.seconds), strict=True)),
        sum_value=pulls.seconds_sum,
    )
    fetched = CounterMetricFamily(
        "csi_model_fetched_bytes",
        "Bytes of layers that arrived, by registry host; hosts after the first 32 count as `other`, layouts on disk as `oci-layout`.",
        labels=["registry"],
    )
    for host, count in pulls.fetched.items():
        fetched.add_metric([host.removesuffix(":")], count)
    yield fetched


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"csi_model_{name}", meaning, value)


def _counter(name: str, meaning: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"csi_model_{name}", meaning, value)
