"""Many volumes at once."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from tests.fakes.models import push_tars, tar_of
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    import pytest

    from e2e.driver import Driver
    from tests.fakes.registry import FakeRegistry

FILES = {"model.bin": b"weights" * 100_000}
PODS = 110


def test_one_image_for_110_volumes_is_downloaded_once(driver: Driver, fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """All are answered within 2 s once the layer is there, the layer is asked for once, and later publishes take milliseconds."""
    reference = push_tars(fake, "llm/car", tar_of(FILES))
    fake.add_fault(Fault(where="/blobs/", delay=2.0))
    driver.start()
    with ThreadPoolExecutor(PODS) as pods:
        answers = [pods.submit(driver.publish, reference, f"p{number}") for number in range(PODS)]
        targets = [answer.result() for answer in answers]
    layers = fake.requests("/blobs/", "GET")
    assert len(layers) == 2, "the config and the layer, once each"
    assert all(target.joinpath("model.bin").stat().st_size == len(FILES["model.bin"]) for target in targets)
    times = []
    for number in range(100):
        began = time.monotonic()
        driver.publish(reference, f"q{number}")
        times.append(time.monotonic() - began)
    p50, p99 = statistics.median(times) * 1000, statistics.quantiles(times, n=100)[98] * 1000
    with capsys.disabled():
        print(f"\nwarm publish with {PODS} published: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert p50 < 50
    with ThreadPoolExecutor(16) as pods:
        list(pods.map(driver.unpublish, [*(f"p{n}" for n in range(PODS)), *(f"q{n}" for n in range(100))]))
    assert driver.mounts() == [target for target in driver.mounts() if str(driver.state) in target]


def test_registration_answers_while_200_publishes_wait(driver: Driver, fake: FakeRegistry) -> None:
    """Kubelet's GetInfo has its answer within a second though every publish hangs on a silent registry."""
    reference = push_tars(fake, "llm/car", tar_of(FILES))
    fake.add_fault(Fault(where="/blobs/", delay=60))
    driver.start()
    started = threading.Semaphore(0)

    def publish(number: int) -> grpc.StatusCode:
        started.release()
        try:
            driver.publish(reference, f"p{number}", timeout=15)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(200) as pods:
        answers = [pods.submit(publish, number) for number in range(200)]
        for _ in range(200):
            started.acquire()
        time.sleep(1.5)  # the calls are on their way to the driver, which has no sign for their arrival
        waits = []
        for _ in range(5):
            began = time.monotonic()
            driver.get_info(timeout=1.0)
            waits.append(time.monotonic() - began)
        assert max(waits) < 1.0
        codes = {answer.result() for answer in answers}
    assert codes <= {grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}
