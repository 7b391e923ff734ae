"""The driver is killed at every named step and at random moments; what it leaves is never wrong, and the next publish succeeds."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.steps import STEPS
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.driver import Driver
    from tests.fakes.registry import FakeRegistry

FILES = {"models/config.json": b"{}", "models/model.bin": os.urandom(3 << 20)}
MIB = 1 << 20


def _assert_sound(driver: Driver) -> None:
    """No content under a name that it does not hash to."""
    for path in (driver.state / "content" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _assert_nothing_left(driver: Driver) -> None:
    """After an orderly stop: no mount, no target folder, no unfinished work."""
    assert driver.stop() == 0
    assert driver.mounts() == []
    assert not list((driver.state / "mounts").iterdir())
    assert not [path for path in (driver.state / "views").iterdir() if path.name.startswith(".")]
    assert not list((driver.state / "ingest").iterdir())
    assert not list((driver.kubelet / "pods").rglob("mount"))


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_named_step(driver: Driver, fake: FakeRegistry, step: str) -> None:
    """After a kill at the step and a restart, a publish and an unpublish succeed, the bytes are right, and nothing stays behind."""
    reference = push_tars(fake, "llm/car", tar_of(FILES))
    raw = push_artifact(fake, "llm/raw", {"model.bin": FILES["models/model.bin"]})
    driver.start(wait=False, CSI_MODEL_KILL_AT=step)
    with suppress(grpc.RpcError, RuntimeError):
        driver.wait_until_registered()
        for name, model in (("car", reference), ("raw", raw)):
            driver.publish(model, name, timeout=20)
        for name in ("car", "raw"):
            driver.unpublish(name)
    assert driver.died(), "the step was not passed"
    if (driver.state / "content" / "sha256").is_dir():
        _assert_sound(driver)
    driver.start()
    for name, model, inside in (("car", reference, "models/model.bin"), ("raw", raw, "model.bin")):
        target = driver.publish(model, name)
        assert target.joinpath(inside).read_bytes() == FILES["models/model.bin"]
    for name in ("car", "raw"):
        driver.unpublish(name)
    _assert_sound(driver)
    _assert_nothing_left(driver)


def _kill_at_random(driver: Driver, fake: FakeRegistry, moments: random.Random, rounds: int) -> None:
    content = os.urandom(24 * MIB)
    kinds: list[Callable[[str], str]] = [
        lambda name: push_artifact(fake, name, {"model.bin": content + name.encode()}),
        lambda name: push_tars(fake, name, tar_of({"model.bin": content + name.encode()})),
    ]
    for number in range(rounds):
        name = f"llm/m{number}"
        reference = kinds[number % 2](name)
        driver.start()
        failure = threading.Thread(target=_try_to_publish, args=(driver, reference, f"p{number}"))
        failure.start()
        time.sleep(moments.uniform(0, 0.25))
        driver.kill()
        failure.join()
        driver.start()
        target = driver.publish(reference, f"p{number}")
        assert target.joinpath("model.bin").read_bytes() == content + name.encode()
        driver.unpublish(f"p{number}")
        _assert_nothing_left(driver)
        fake.blobs.clear()
    _assert_sound(driver)


def _try_to_publish(driver: Driver, reference: str, name: str) -> None:
    with suppress(grpc.RpcError):
        driver.publish(reference, name, timeout=20)


def test_killed_at_random_moments(driver: Driver, fake: FakeRegistry) -> None:
    """Five kills somewhere in a publish (tests/pull kills a pull twenty times more): each time the next one succeeds."""
    _kill_at_random(driver, fake, random.Random(os.urandom(8)), 5)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_two_hundred_moments(driver: Driver, fake: FakeRegistry) -> None:
    """The same two hundred times."""
    _kill_at_random(driver, fake, random.Random(os.urandom(8)), 200)


def test_a_killed_pull_fetches_little_again(driver: Driver, fake: FakeRegistry) -> None:
    """After a kill in the middle of a raw layer, less than 64 MiB are fetched twice."""
    size = 160 * MIB
    reference = push_artifact(fake, "llm/big", {"model.bin": os.urandom(size)})
    pause = fake.add_fault(Fault(drip=(8 * MIB, 0.05)))
    driver.start()
    waiting = threading.Thread(target=_try_to_publish, args=(driver, reference, "a"))
    waiting.start()
    ingest = driver.state / "ingest"
    _wait_until(lambda: sum(path.stat().st_size for path in _files(ingest)) > 80 * MIB)
    driver.kill()
    waiting.join()
    before = fake.body_bytes
    fake.faults.remove(pause)
    driver.start()
    driver.publish(reference)
    again = before + (fake.body_bytes - before) - size
    print(
        f"fetched again after the kill: {again / MIB:.1f} MiB; from the registry after the restart: {(fake.body_bytes - before) / MIB:.1f} MiB"
    )
    assert fake.body_bytes - before < size - 16 * MIB
    assert again < 64 * MIB
    driver.unpublish()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
