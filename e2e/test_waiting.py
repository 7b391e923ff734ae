"""Pulls that take longer than a call: deadlines, retries, and pods that are deleted while they wait."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import grpc

from e2e.driver import eventually
from tests.fakes.models import push_artifact
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from e2e.driver import Driver
    from tests.fakes.registry import FakeRegistry


def test_a_deadline_ends_the_wait_and_not_the_pull(driver: Driver, fake: FakeRegistry) -> None:
    """The publish ends ABORTED and says how far the pull is; the pull goes on, a retry joins it, and every byte came once."""
    data = os.urandom(3_000_000)
    reference = push_artifact(fake, "llm/slow", {"model.bin": data})
    fake.add_fault(Fault(drip=(100_000, 0.1), times=1))
    driver.start()
    code, text = driver.refused(reference, timeout=2)
    assert code is grpc.StatusCode.ABORTED
    assert "of 3.0 MB" in text
    assert driver.publish(reference).joinpath("model.bin").read_bytes() == data
    assert len(fake.requests("/blobs/")) == 1


def test_unpublish_ends_a_waiting_publish(driver: Driver, fake: FakeRegistry) -> None:
    """The publish of a pod that was deleted ends at once, and no mount appears when the pull that another pod waits for is over."""
    reference = push_artifact(fake, "llm/slow", {"model.bin": os.urandom(2_000_000)})
    fake.add_fault(Fault(drip=(100_000, 0.1), times=1))
    driver.start()
    codes: list[grpc.StatusCode] = []
    waiting = threading.Thread(target=lambda: codes.append(driver.refused(reference, "gone")[0]))
    staying = threading.Thread(target=driver.publish, args=(reference, "stays"))
    waiting.start()
    staying.start()
    assert eventually(lambda: bool(fake.requests("/blobs/")))
    driver.unpublish("gone")
    waiting.join(1)
    assert codes == [grpc.StatusCode.ABORTED]
    staying.join(20)
    assert driver.target("stays").joinpath("model.bin").exists()
    assert not driver.target("gone").exists()
    assert not [target for target in driver.mounts() if "/gone/" in target]


def test_a_pull_that_nobody_wants_stops_and_is_resumed(driver: Driver, fake: FakeRegistry) -> None:
    """After its linger an abandoned pull stops and keeps what it has; the next publish asks for the rest only."""
    data = os.urandom(24 << 20)
    reference = push_artifact(fake, "llm/slow", {"model.bin": data})
    slow = fake.add_fault(Fault(drip=(1 << 20, 0.3)))
    driver.start()
    assert driver.refused(reference, timeout=1)[0] is grpc.StatusCode.ABORTED
    assert eventually(lambda: "stopping a pull that nobody waits for" in driver.log or "was stopped" in driver.log)
    sent = fake.body_bytes
    assert sent < len(data)
    fake.faults.remove(slow)
    asked = len(fake.requests("/blobs/"))
    assert driver.publish(reference).joinpath("model.bin").read_bytes() == data
    starts = [int(seen.headers["range"].removeprefix("bytes=").partition("-")[0]) for seen in fake.requests("/blobs/")[asked:]]
    print(f"stopped after {sent} bytes; went on at byte {min(starts)}")
    assert min(starts) > 0
    assert driver.unfinished() == []


def test_a_stopping_driver_lets_its_callers_come_back(driver: Driver, fake: FakeRegistry) -> None:
    """SIGTERM ends waiting publishes with UNAVAILABLE and the process within its grace; the next process resumes the pull."""
    data = os.urandom(24 << 20)
    reference = push_artifact(fake, "llm/slow", {"model.bin": data})
    slow = fake.add_fault(Fault(drip=(1 << 20, 0.3)))
    driver.start()
    codes: list[grpc.StatusCode] = []
    waiting = threading.Thread(target=lambda: codes.append(driver.refused(reference)[0]))
    waiting.start()
    assert eventually(lambda: fake.body_bytes > 8 << 20)
    assert driver.stop() == 0
    waiting.join(5)
    assert codes == [grpc.StatusCode.UNAVAILABLE]
    fake.faults.remove(slow)
    asked = len(fake.requests("/blobs/"))
    driver.start()
    assert driver.publish(reference).joinpath("model.bin").read_bytes() == data
    assert all("range" in seen.headers for seen in fake.requests("/blobs/")[asked:])
