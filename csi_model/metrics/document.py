"""Write docs/metrics.md from the metrics themselves: ``python -m csi_model.metrics.document > docs/metrics.md``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from csi_model.linux.disk import Space
from csi_model.metrics.metrics import Metrics
from csi_model.metrics.readings import Readings
from csi_model.pull.counters import KINDS, Counters
from csi_model.store.records import Counts
from csi_model.store.usage import Usage

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_HEAD = """# Metrics, probes and logs

<!-- Generated from csi_model/metrics by `make docs`; edit the descriptions there. -->

`csi-model serve --metrics-address :9808` serves three pages over HTTP, from the first moment of the driver's start to its end. The address
is `HOST:PORT`, `[IPV6]:PORT`, or `:PORT` for all addresses. There is no TLS and no login: nothing secret is on these pages, and nothing can
be changed there. The chart gives the flag, and has a PodMonitor, a NetworkPolicy and a Grafana dashboard behind switches.

| page | answers |
|---|---|
| `/metrics` | the metrics below, as Prometheus text or OpenMetrics, whichever the caller asks for |
| `/healthz` | 503 when CSI is served but Identity.Probe is not answered over the socket within 3 s, else 200. A long start, a full disk, a silent registry and waiting publishes do not fail it: a restart would help none of these. Give a probe 5 s |
| `/readyz` | 200 while CSI is served and, with `--registration-dir`, once kubelet has registered the driver; else 503 with the reason |

## Metrics

No label names a pod, a reference or a digest. `_total` counts from the driver's start; a `histogram` has `_bucket`, `_sum` and `_count`.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_ALERTS = """
## Alerts to copy

`node` is a label that the chart's PodMonitor adds.

```yaml
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: csi-model
  namespace: csi-model
spec:
  groups:
    - name: csi-model
      rules:
        - alert: CsiModelNotRegistered
          expr: csi_model_registered == 0
          for: 10m
          labels: {severity: critical}
          annotations:
            summary: "kubelet on {{ $labels.node }} has not registered csi-model: no pod with a model starts there"
            action: "look at /readyz, at the driver's log for 'kubelet refused', and at kubelet's log for plugins_registry"
        - alert: CsiModelPullsFail
          expr: sum by (node, kind) (increase(csi_model_pulls_failed_total{kind=~"unavailable|disk|corrupt_content|no_space|bug"}[15m])) > 0
          for: 15m
          labels: {severity: warning}
          annotations:
            summary: "pulls on {{ $labels.node }} fail again and again: {{ $labels.kind }}"
            action: "`csi-model doctor --registry HOST` in the driver's pod, and its log: event 'layer not pulled' or 'call'"
        - alert: CsiModelDiskNearlyFull
          expr: csi_model_disk_free_bytes / csi_model_disk_size_bytes < 0.1
          for: 10m
          labels: {severity: warning}
          annotations:
            summary: "the disk of csi-model on {{ $labels.node }} is nearly full: {{ $value | humanizePercentage }} is left"
            action: "`csi-model images` in the driver's pod shows what may go; or give the state directory a larger disk"
```

## Logs

Lines of JSON on standard error. Each line of a CSI call has `volume_id`, `target`, `reference` and, where the CSIDriver has podInfoOnMount,
`pod`, `namespace`, `pod_uid` and `service_account`; the line with event `call` ends it, with `method`, `code`, `seconds`, and
the `manifest` that is shown or the `error`. A pull serves any number of pods, so its lines have `reference`, `manifest` and `blob` instead. Secrets, tokens and mount options are never logged.
"""


class _Well:
    """A driver of which everything is true."""

    is_registered = True

    def dead_because(self) -> str | None:
        return None

    def unready_because(self) -> str | None:
        return None


def example() -> tuple[Metric, ...]:
    """Every family that there is, each with a sample."""
    metrics = Metrics(_Well())
    metrics.calls.began("NodePublishVolume")
    metrics.calls.ended("NodePublishVolume", "OK", 1.0)
    with metrics.show(_readings):
        return tuple(sorted(metrics.registry.collect(), key=lambda family: family.name))


def _readings() -> Readings:
    counters = Counters()
    counters.arrived("registry.example", 1)
    return Readings(
        publishes_waiting=0,
        pulls=counters.read(),
        buffers=0,
        usage=Usage(0, 0, 0),
        recorded=Counts(0, 0, 0, 0),
        views_mounted=0,
        disk=Space(0, 0, 0, 0),
        rung="erofs-direct",
        rung_forced=False,
    )


def render() -> str:
    """The whole page."""
    rows = [_row(family) for family in example()]
    kinds = ", ".join(f"`{kind}`" for kind in KINDS)
    return "".join([_HEAD, *rows, f"\nKinds of failed pulls: {kinds}.\n", _ALERTS])


def _row(family: Metric) -> str:
    names = sorted({name for sample in family.samples for name in sample.labels if name != "le"})
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = ", ".join(f"`{name}`" for name in names)
    return f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
