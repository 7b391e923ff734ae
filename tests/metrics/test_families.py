"""From readings to samples."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from csi_model.metrics.families import families
from csi_model.pull.counters import KINDS

if TYPE_CHECKING:
    from csi_model.metrics.readings import Readings


def samples(readings: Readings) -> dict[str, float]:
    """Every sample by its name and labels, as PromQL writes them."""
    found = {}
    for family in families(readings):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_every_reading_is_a_sample(readings: Readings) -> None:
    """Each number appears once, under its own name and label."""
    found = {name: value for name, value in samples(readings).items() if "duration" not in name and "failed" not in name}
    assert found == {
        "csi_model_publishes_waiting": 1,
        "csi_model_pulls_started_total": 20,
        "csi_model_pulls_succeeded_total": 11,
        "csi_model_pulls_in_flight": 4,
        "csi_model_fetched_bytes_total{registry=registry.example:5000}": 7,
        "csi_model_fetched_bytes_total{registry=oci-layout}": 8,
        "csi_model_pull_buffer_bytes": 9,
        "csi_model_stored_bytes{kind=content}": 10,
        "csi_model_stored_bytes{kind=ingest}": 11,
        "csi_model_stored_bytes{kind=views}": 12,
        "csi_model_models": 13,
        "csi_model_references": 14,
        "csi_model_views": 15,
        "csi_model_publications": 16,
        "csi_model_views_mounted": 17,
        "csi_model_disk_size_bytes": 18,
        "csi_model_disk_free_bytes": 19,
        "csi_model_disk_free_inodes": 21,
        "csi_model_mount_rung_info{forced=false,rung=erofs-direct}": 1,
    }


def test_failures_of_every_kind_have_a_sample_from_the_start(readings: Readings) -> None:
    """A kind that has not happened is 0 rather than absent: an alert on its increase sees the first one."""
    found = {name: value for name, value in samples(readings).items() if "pulls_failed" in name}
    assert len(found) == len(KINDS)
    assert found["csi_model_pulls_failed_total{kind=unavailable}"] == 3
    assert found["csi_model_pulls_failed_total{kind=stopped}"] == 2
    assert found["csi_model_pulls_failed_total{kind=not_found}"] == 0


def test_times_of_pulls_are_cumulative(readings: Readings) -> None:
    """Each bucket counts what took up to its end, the last one all, as Prometheus wants it."""
    found = samples(readings)
    assert found["csi_model_pull_duration_seconds_bucket{le=0.1}"] == 1
    assert found["csi_model_pull_duration_seconds_bucket{le=0.5}"] == 3
    assert found["csi_model_pull_duration_seconds_bucket{le=7200.0}"] == 6
    assert found["csi_model_pull_duration_seconds_bucket{le=+Inf}"] == found["csi_model_pull_duration_seconds_count"] == 11
    assert found["csi_model_pull_duration_seconds_sum"] == 36001.5


def test_a_node_that_cannot_mount_says_so(readings: Readings) -> None:
    """Where no rung works, the rung is `none`."""
    found = samples(dataclasses.replace(readings, rung=None, rung_forced=True))
    assert any("rung=none" in name and "forced=true" in name for name in found)
