"""Scenarios 4 and 5: a pull that takes minutes, and pods that come and go in the middle of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests, models
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.pods import Pod, Pods
    from e2e.kubernetes.registries import NodeRegistry, SlowWire

_MEBIBYTES = 48
_UNPUBLISHED_WITHIN = 120


@pytest.fixture
def trickle(slow_wire: SlowWire) -> Iterator[SlowWire]:
    """The slow wire; nothing passes before and after."""
    slow_wire.set_rate(0)
    yield slow_wire
    slow_wire.set_rate(0)


def fetched(driver: Installation) -> float:
    """Bytes of layers that have arrived since the driver's start."""
    return sum(value for name, value in driver.metrics().items() if name.startswith("csi_model_fetched_bytes_total"))


def ready_after_pulled(*pods: Pod) -> tuple[float, ...]:
    """Seconds from the moment at which all bytes were there until each pod was Ready, polled ten times a second."""
    until("the pull has ended", lambda: any(event.reason == "Pulled" for pod in pods for event in pod.events()), within=300)
    ended = time.monotonic()
    ready: dict[str, float] = {}

    def all_ready() -> bool:
        ready.update({pod.name: time.monotonic() - ended for pod in pods if pod.name not in ready and pod.ready()})
        return len(ready) == len(pods)

    until(f"pods {', '.join(pod.name for pod in pods)} are Ready", all_ready)
    return tuple(ready[pod.name] for pod in pods)


def test_a_pull_of_three_minutes(
    driver: Installation, registry: NodeRegistry, trickle: SlowWire, pods: Pods, tmp_path: Path, record_property: Record
) -> None:
    """Progress is told, a pod that joins in the middle costs no byte, and both run within 3 s of the pull's end, whichever wait sees it."""
    model = models.made_up(registry, "slow", tmp_path, mebibytes=_MEBIBYTES)
    volume = manifests.inline(trickle.seen_here(model.reference))
    trickle.set_rate(model.size // 180)
    began = time.monotonic()
    (first,) = pods.start(manifests.pod("first", {"model": volume}))
    first.wait_event("Pulling")
    # Of 110 s of its first wait, 70 to 90 will have passed at the pull's end, which the first pod's second wait sees.
    time.sleep(95)
    (second,) = pods.start(manifests.pod("second", {"model": volume}))
    second.wait_event("Pulling")
    waited = ready_after_pulled(first, second)
    took = time.monotonic() - began - max(waited)
    record_property("a pull that was made slow", f"{took:.0f} s")
    for which, seconds in zip(("second", "first"), waited, strict=True):
        record_property(f"Ready after its end, seen by the {which} wait", f"{seconds:.1f} s")
    assert 150 < took < 200
    assert max(waited) < 3
    told = first.wait_event("PullProgress", "of ", "left")
    assert 2 <= told.count <= 8, "progress is one event, counted each time that it is told"
    told = first.wait_event("FailedMount", "of ")
    assert told.count == 1, "a first wait of 110 s ends before the pull, and the second sees its end"
    assert "FailedMount" not in [event.reason for event in second.events()], "its first wait sees the end"
    assert first.checksums("/model") == second.checksums("/model") == model.files
    sent = registry.served()
    assert sum(sent[f"sha256:{digest}"] for digest in model.files.values()) == model.size, "every byte came once"


def test_pods_deleted_in_mid_pull(
    driver: Installation, registry: NodeRegistry, trickle: SlowWire, pods: Pods, tmp_path: Path, record_property: Record
) -> None:
    """Whatever their grace, within two minutes nothing of them is left; the pull stops after its linger, and the next pod fetches what is missing."""
    model = models.made_up(registry, "deleted", tmp_path, mebibytes=_MEBIBYTES)
    volume = {"model": manifests.inline(trickle.seen_here(model.reference))}
    at_first = fetched(driver)
    trickle.set_rate(256 * 1024)
    graces = (0, 30)
    begun = pods.start(*(manifests.pod(f"deleted-{grace}", volume, terminationGracePeriodSeconds=grace) for grace in graces))
    for pod in begun:
        pod.wait_event("Pulling")
    until("a piece of 4 MiB of some layer has come", lambda: fetched(driver) - at_first > 1 << 20, within=90)
    for pod, grace in zip(begun, graces, strict=True):
        pod.delete(grace=grace)
    deleted = time.monotonic()
    for pod, grace in zip(begun, graces, strict=True):
        pod.wait_gone(within=_UNPUBLISHED_WITHIN)
        record_property(f"deleted in mid-pull with a grace of {grace} s, gone after", f"{time.monotonic() - deleted:.0f} s")
    until("the pull has stopped", lambda: not driver.metrics().get("csi_model_pulls_in_flight"), within=30)
    trickle.set_rate(64 << 20)
    before = fetched(driver)
    again = pods.run(manifests.pod("again", volume), within=90)
    assert again.checksums("/model") == model.files
    assert fetched(driver) - before < model.size - (1 << 20), "what was kept was not fetched again"
