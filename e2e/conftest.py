"""A driver and registries for each test; nothing is left when it ends."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.linux.mountinfo import read_mounts
from e2e.driver import Driver
from e2e.kubernetes.figures import pytest_terminal_summary  # noqa: F401 - pytest finds it here
from e2e.registry import Registry, running_registry
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything here is end to end; soak tests run only when they are asked for."""
    asked = "soak" in config.option.markexpr
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.root)
        if item.get_closest_marker("soak") and not asked:
            item.add_marker(pytest.mark.skip(reason="runs in `make soak`"))


@contextmanager
def disk_folder() -> Iterator[Path]:
    """A folder on a disk, for EROFS images cannot lie on a tmpfs, with a short path, for sockets need one."""
    path = Path(tempfile.mkdtemp(prefix="cm-", dir="/var/tmp"))
    yield path
    assert not [mount.target for mount in read_mounts() if mount.target.startswith(f"{path}/")]
    shutil.rmtree(path)


def halted_driver(folder: Path) -> Driver:
    """A driver with little patience that is not started yet."""
    made = Driver(folder / "node")
    pull = {"linger": "2s", "stallTimeout": "2s", "retries": 3, "freeSpaceReserve": 0}
    made.config.update({"pull": pull, "views": {"idle": "1s"}, "logLevel": "debug"})
    return made


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the test's own."""
    with disk_folder() as path:
        yield path


@pytest.fixture
def driver(folder: Path) -> Iterator[Driver]:
    """A driver that is not started yet."""
    made = halted_driver(folder)
    yield made
    made.clean_up()


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """A folder that a module's tests share."""
    with disk_folder() as path:
        yield path


@pytest.fixture(scope="module")
def shared_fake() -> Iterator[FakeRegistry]:
    """A registry that misbehaves on demand, for a module."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture(scope="module")
def shared_driver(module_folder: Path, shared_fake: FakeRegistry) -> Iterator[Driver]:
    """A driver that runs for a whole module, which may speak plain HTTP to the module's registry."""
    made = halted_driver(module_folder)
    made.config["pull"].update({"stallTimeout": "1s", "retries": 2})
    made.config["registries"] = {shared_fake.host: {"plainHttp": True}}
    made.config["layouts"] = {"allowedPrefixes": [f"oci-layout://{module_folder}/layouts/"]}
    made.start()
    yield made
    made.clean_up()


@pytest.fixture
def fake(driver: Driver) -> Iterator[FakeRegistry]:
    """A registry that misbehaves on demand; the driver may speak plain HTTP to it."""
    with FakeRegistry() as registry:
        driver.config.setdefault("registries", {})[registry.host] = {"plainHttp": True}
        yield registry


@pytest.fixture
def registry(folder: Path, driver: Driver) -> Iterator[Registry]:
    """Debian's docker-registry; the driver may speak plain HTTP to it."""
    with running_registry(folder / "registry") as running:
        driver.config.setdefault("registries", {})[running.host] = {"plainHttp": True}
        yield running
