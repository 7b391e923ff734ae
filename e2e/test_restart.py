"""The driver's process ends, orderly or not, or the whole node does: volumes live on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.linux.mountinfo import mounts_at
from e2e.driver import eventually
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault
from tests.volumes.conftest import PASSWORD, USER, secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.driver import Driver

FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000}


@pytest.fixture
def private(driver: Driver) -> Iterator[FakeRegistry]:
    """A registry that asks for a name and a password."""
    with FakeRegistry(auth=BasicAuth({USER: PASSWORD})) as registry:
        driver.config.setdefault("registries", {})[registry.host] = {"plainHttp": True}
        yield registry


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_mounts_outlive_the_driver(driver: Driver, private: FakeRegistry, end: str) -> None:
    """After SIGTERM or SIGKILL pods read on; the next driver answers for their volumes with no registry and no secret, and clears up."""
    image, artifact = push_tars(private, "team/car", tar_of(FILES)), push_artifact(private, "team/raw", FILES)
    driver.start()
    targets = [driver.publish(image, "a", secrets=secret(private.host)), driver.publish(artifact, "b", secrets=secret(private.host))]
    mounted = [mounts_at(target) for target in targets]
    if end == "stop":
        assert driver.stop() == 0
        assert not driver.socket.exists()
        assert not driver.registration.exists()
    else:
        driver.kill()
    with (targets[0] / "model.bin").open("rb") as reader:
        private.add_fault(Fault(where="/", status=503))
        driver.start()
        assert driver.publish(image, "a") == targets[0]
        assert driver.publish(artifact, "b") == targets[1]
        assert [mounts_at(target) for target in targets] == mounted
        assert driver.stats("a") == {"BYTES": sum(map(len, FILES.values())), "INODES": 3}
        assert reader.read() == FILES["model.bin"]
    driver.unpublish("a")
    driver.unpublish("b")
    assert not any(target.exists() for target in targets)
    assert eventually(lambda: not driver.mounts()), "idle views are unmounted"


def test_a_stop_unmounts_what_nobody_uses(driver: Driver, fake: FakeRegistry) -> None:
    """SIGTERM leaves the published view and takes the unpublished one, whose idle time is not over."""
    driver.config["views"]["idle"] = "1h"
    driver.start()
    driver.publish(push_tars(fake, "llm/one", tar_of(FILES)), "a")
    driver.publish(push_tars(fake, "llm/two", tar_of({"x": b"y"})), "b")
    driver.unpublish("b")
    assert len(driver.views()) == 2
    assert driver.stop() == 0
    assert len(driver.views()) == 1


def test_a_reboot_needs_no_registry(driver: Driver, private: FakeRegistry) -> None:
    """Mounts gone, disk kept, registry down: volumes that were published come back from the cache, by the pods' own secrets."""
    image, artifact = push_tars(private, "team/car", tar_of(FILES)), push_artifact(private, "team/raw", FILES)
    driver.start()
    for name, reference in (("a", image), ("b", artifact)):
        driver.publish(reference, name, secrets=secret(private.host))
    driver.kill()
    driver.reboot()
    private.add_fault(Fault(where="/", status=503))
    driver.start()
    for name, reference in (("a", image), ("b", artifact)):
        target = driver.publish(reference, name, secrets=secret(private.host))
        assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    code, _ = driver.refused(image, "new", secrets=secret(private.host))
    assert code is grpc.StatusCode.UNAVAILABLE, "a new volume needs the registry's word"


def test_a_pod_that_was_deleted_meanwhile_leaves_nothing(driver: Driver, fake: FakeRegistry) -> None:
    """Unpublish as the first call after a kill, or after a reboot, takes all away; once more is no error."""
    driver.start()
    for name in ("a", "b"):
        driver.publish(push_tars(fake, "llm/car", tar_of(FILES)), name)
    driver.kill()
    driver.start()
    driver.unpublish("a")
    driver.kill()
    driver.reboot()
    driver.start()
    driver.unpublish("b")
    driver.unpublish("b")
    assert not driver.target("a").exists()
    assert not driver.target("b").exists()
    assert eventually(lambda: not driver.mounts())


def test_a_second_driver_keeps_its_hands_off(driver: Driver, fake: FakeRegistry) -> None:
    """A second process on the same state directory ends with an error that names it; the first serves on."""
    driver.start()
    first = driver.process
    driver.start(wait=False)
    assert driver.process is not None
    assert driver.process.wait(30) not in {0, None}
    assert f"{driver.state}" in driver.log.splitlines()[-1]
    driver.process = first
    driver.publish(push_tars(fake, "llm/car", tar_of(FILES)))
