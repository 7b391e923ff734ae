"""SIGKILL at every named step, and at random moments of a pull: what the next process finds and what pods see."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model import steps
from e2e.driver import eventually
from tests.fakes.models import OCI_TAR, push_artifact, push_tars, tar_of
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.driver import Driver
    from tests.fakes.registry import FakeRegistry

FILES = {"config.json": b"{}", "model.bin": os.urandom(300_000), "vocabulary.txt": b"word\n" * 999}
LAYERS = (
    tar_of({"config.json": b"old", "vocabulary.txt": FILES["vocabulary.txt"]}),
    tar_of({name: FILES[name] for name in ("config.json", "model.bin")}),
)
# Each transaction of a publish and an unpublish, and each step that a view of plain files passes in its own way.
TRANSACTIONS = [f"state.begun:{number}" for number in range(2, 8)]
FOLDER_STEPS = ["view.written", "view.renamed", "view.mounted"]


def _die_at(driver: Driver, step: str, reference: str) -> None:
    """Publish and unpublish until the driver dies at the step."""
    driver.start(CSI_MODEL_KILL_AT=step)
    _quietly(driver.publish, reference)
    _quietly(driver.unpublish)
    assert driver.died()


def _check(driver: Driver) -> None:
    """What must be true at any time: nothing corrupt, no stray mount."""
    assert driver.corrupt() == []
    assert set(driver.published()) <= {str(driver.target("a"))}


def _check_ingest(driver: Driver) -> None:
    """Before anything is asked of a restarted driver, ingest holds only what a pull goes on from: data of blobs that are not decoded."""
    left = [path.split("/") for path in driver.unfinished()]
    assert all(rest in ([], ["data"]) and "-none" in name for _, name, *rest in left), left


def _seen(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.mark.parametrize("step", [*steps.STEPS, *TRANSACTIONS])
def test_a_kill_of_an_images_publish_leaves_nothing_wrong(driver: Driver, fake: FakeRegistry, step: str) -> None:
    """After a kill at the step the next publish shows every byte, and unpublish then leaves no mount and no directory."""
    _die_at(driver, step, push_tars(fake, "llm/car", *LAYERS))
    _recovers(driver, f"{fake.host}/llm/car:v1")


@pytest.mark.parametrize("step", FOLDER_STEPS)
def test_a_kill_of_an_artifacts_publish_leaves_nothing_wrong(driver: Driver, fake: FakeRegistry, step: str) -> None:
    """The same for a view of links, whose steps are others' code."""
    _die_at(driver, step, push_artifact(fake, "llm/raw", FILES))
    _recovers(driver, f"{fake.host}/llm/raw:v1")


def _recovers(driver: Driver, reference: str) -> None:
    _check(driver)
    driver.start()
    _check(driver)
    _check_ingest(driver)
    assert _seen(driver.publish(reference)) == FILES
    assert driver.unfinished() == []
    driver.unpublish()
    assert not driver.target("a").exists()
    assert driver.stop() == 0
    assert driver.mounts() == []


@pytest.mark.parametrize("step", ["view.mounted", "publish.created", "publish.attached", "publish.recorded", "unpublish.detached"])
def test_a_pod_deleted_after_a_kill_leaves_nothing(driver: Driver, fake: FakeRegistry, step: str) -> None:
    """Kubelet's next call may be an unpublish: then, too, no mount and no directory is left."""
    _die_at(driver, step, push_tars(fake, "llm/car", *LAYERS))
    driver.start()
    driver.unpublish()
    assert not driver.target("a").exists()
    assert driver.stop() == 0
    assert driver.mounts() == []


def _kill_at_random(driver: Driver, fake: FakeRegistry, rounds: int, seed: int) -> int:
    """Kill publishes of ever new models at random moments, check after each; returns how many were in the middle of their pull."""
    moments, interrupted = random.Random(seed), 0
    checked: set[str] = set()
    driver.start()
    for number in range(rounds):
        raw, packed = moments.randbytes(12 << 20), tar_of({"model.bin": moments.randbytes(2 << 20)})
        reference = push_artifact(fake, f"llm/r{number}", {"model.bin": raw})
        image = push_tars(fake, f"llm/p{number}", gzip.compress(packed, 1), media_type=f"{OCI_TAR}+gzip", diff_ids=(packed,))
        slow = fake.add_fault(Fault(drip=(1 << 20, 0.05)))
        pods = [threading.Thread(target=_quietly, args=(driver.publish, which, name)) for which, name in ((reference, "a"), (image, "b"))]
        for pod in pods:
            pod.start()
        time.sleep(moments.uniform(0.05, 0.7))
        driver.kill()
        for pod in pods:
            pod.join()
        interrupted += bool(driver.unfinished())
        assert driver.corrupt(checked) == []
        fake.faults.remove(slow)
        driver.start()
        _check_ingest(driver)
        assert driver.publish(reference, "a").joinpath("model.bin").read_bytes() == raw
        assert driver.publish(image, "b").joinpath("model.bin").stat().st_size == 2 << 20
        assert driver.corrupt(checked) == []
        assert driver.unfinished() == []
        for name in ("a", "b"):
            driver.unpublish(name)
        fake.blobs.clear()
    assert driver.stop() == 0
    assert driver.mounts() == []
    return interrupted


def _quietly(call: Callable[..., object], *arguments: object) -> None:
    """Make a call that the driver's end may cut off."""
    try:
        call(*arguments)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - it need not fail


@pytest.mark.timeout(400)
def test_kills_at_random_moments_of_a_pull(driver: Driver, fake: FakeRegistry) -> None:
    """Of 20 moments none leaves anything corrupt, or anything that the next process does not finish; what is there can be removed."""
    print(f"{_kill_at_random(driver, fake, 20, seed=6)} of 20 kills hit the middle of a pull")
    for image in json.loads(driver.command("images", "--json"))[:3]:
        driver.command("rm", image["reference"])


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_two_hundred_kills_at_random_moments_of_a_pull(driver: Driver, fake: FakeRegistry) -> None:
    """The same 200 times."""
    print(f"{_kill_at_random(driver, fake, 200, seed=200)} of 200 kills hit the middle of a pull")


@pytest.mark.parametrize("kind", ["raw", "tar"])
def test_a_killed_layer_is_fetched_again_for_less_than_64_mib(
    driver: Driver, fake: FakeRegistry, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a layer of 192 MiB whose pull is killed after 128 MiB, the next process fetches the missing rest and under 64 MiB more."""
    files = {"model.bin": os.urandom(192 << 20)}
    reference = push_artifact(fake, "llm/big", files) if kind == "raw" else push_tars(fake, "llm/big", tar_of(files))
    slow = fake.add_fault(Fault(where="/blobs/", drip=(1 << 20, 0.01)))
    driver.start()
    pod = threading.Thread(target=_quietly, args=(driver.publish, reference, "a"))
    pod.start()
    assert eventually(lambda: fake.body_bytes > 128 << 20, 60)
    driver.kill()
    pod.join()
    fake.faults.remove(slow)
    driver.start()
    target = driver.publish(reference)
    again = fake.body_bytes - (192 << 20)
    with capsys.disabled():
        print(f"\n{kind}: fetched again after the kill: {again / (1 << 20):.1f} MiB")
    assert again < 64 << 20
    assert target.joinpath("model.bin").read_bytes() == files["model.bin"]


def test_a_dropped_connection_is_resumed_inside_a_compressed_layer(driver: Driver, fake: FakeRegistry) -> None:
    """A gzip layer whose connection breaks in the middle goes on with a range request; nothing is decoded twice."""
    tar = tar_of({"model.bin": os.urandom(8 << 20)})
    reference = push_tars(fake, "llm/gz", gzip.compress(tar, 1), media_type=f"{OCI_TAR}+gzip", diff_ids=(tar,))
    fake.add_fault(Fault(where="/blobs/", reset_after=5 << 20, times=2))  # the config is shorter, but uses one up
    driver.start()
    target = driver.publish(reference)
    assert target.joinpath("model.bin").stat().st_size == 8 << 20
    starts = [seen.headers["range"] for seen in fake.requests("/blobs/") if "range" in seen.headers]
    # How much a reset loses in the sockets is the kernel's affair: what counts is that nothing begins again at the first byte.
    assert starts
    assert not any(start.startswith("bytes=0-") for start in starts)
