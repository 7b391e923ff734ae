"""The node and what runs on it, for scenarios.

One node serves a whole run, or each of pytest-xdist's workers its own; each test cleans up its own pods. A scenario asks for fixtures by what it needs:

- ``node``: Kubernetes (``Node``): ``kubectl``, ``apply``, ``start``/``stop``/``kill``/``restart`` of services, ``rebooted``.
- ``registry``: an open registry on the node (``NodeRegistry``); ``private`` asks for a password; ``slow_wire`` leads to the open one slowly.
- ``artifact``, ``car``: the real model in the registry (``Model``), as ModelPack artifact and as Modelcar image.
- ``driver``: csi-model, installed by helm and Ready (``Installation``). What a test changes of it is put back.
- ``cut``: the open registry, for a test that stops it.
- ``operators``, ``gpu_node``: the API server knows the operators' kinds; the node is labelled and tainted as one with GPUs.
- ``pods``: starts pods (``Pods``) and makes what they need; at the end of the test all is deleted, and the test fails if anything stays.

A test hands what it measures to pytest's ``record_property``; the run ends with a table of that (``figures.py``).

A test that fails leaves its artifacts in ``e2e/artifacts/<test>``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e import image
from e2e.kubernetes import artifacts, build, images, models
from e2e.kubernetes.examples import CRDS
from e2e.kubernetes.init import NAME
from e2e.kubernetes.installation import Installation, default_values
from e2e.kubernetes.leftovers import traces
from e2e.kubernetes.node import Node, running_node
from e2e.kubernetes.pods import Pods
from e2e.kubernetes.registries import NodeRegistry, SlowWire

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from e2e.kubernetes.models import Model

_HERE = Path(__file__).parent
_SECONDS = 600
USER, PASSWORD = "reader", "correct horse"


_LONGEST = ("test_slow.py", "test_image_volume.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the node, and time; what takes minutes begins first, so that two nodes side by side end together."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.kubernetes)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep artifacts of a failed test."""
    report = yield
    node = getattr(item, "funcargs", {}).get("node")
    # A run whose node is gone has failed to leave nothing, and says itself what it left.
    if report.failed and isinstance(node, Node) and node.machine.folder.exists():
        report.sections.append(("artifacts", str(artifacts.keep(node, f"{item.name}-{report.when}"))))
    return report


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A Kubernetes node that is Ready. When the run ends, nothing of it is left on this machine."""
    before = traces()
    with running_node() as running:
        provisioner = images.provisioner(build.programs()["csi-provisioner"])
        running.load_image(provisioner.write(running.machine.folder / "provisioner.tar"))
        name = running.machine.folder.name
        yield running
    assert traces().since(before, name) == []


@pytest.fixture(scope="session")
def registry(node: Node) -> NodeRegistry:
    """An open registry."""
    made = NodeRegistry(node, "registry", 5000, node.machine.folder / "registry")
    made.add()
    made.start()
    return made


@pytest.fixture(scope="session")
def private(node: Node, registry: NodeRegistry) -> NodeRegistry:
    """The same content for those who know the password."""
    made = NodeRegistry(node, "private-registry", 5001, registry.data)
    made.add(username=USER, password=PASSWORD)
    made.start()
    return made


@pytest.fixture(scope="session")
def slow_wire(node: Node, registry: NodeRegistry) -> SlowWire:
    """A way to the registry that lets nothing through until a test says how much."""
    made = SlowWire(node, registry, 5002)
    made.start(0)
    return made


@pytest.fixture(scope="session")
def artifact(registry: NodeRegistry) -> Model:
    """The real model as a ModelPack artifact."""
    return models.real_artifact(registry)


@pytest.fixture(scope="session")
def car(registry: NodeRegistry, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The real model as a Modelcar image, in ``/models``."""
    return models.real_image(registry, tmp_path_factory.mktemp("car"))


@pytest.fixture(scope="session")
def _installed(node: Node) -> Installation:
    node.load_image(image.build_image())
    made = Installation(node)
    made.install(default_values([f"10.99.0.1:{port}" for port in (5000, 5001, 5002)]))
    return made


@pytest.fixture
def driver(_installed: Installation) -> Iterator[Installation]:
    """csi-model, installed with helm. What a test changes of it is changed back."""
    values = dict(_installed.values)
    yield _installed
    _installed.values = values
    if _installed.differs(values):
        _installed.install(values)


@pytest.fixture
def cut(registry: NodeRegistry) -> Iterator[NodeRegistry]:
    """The open registry, for a test that stops it; it runs again at the end."""
    yield registry
    if not registry.running():
        registry.start()


@pytest.fixture
def pods(node: Node) -> Iterator[Pods]:
    """The test's pods; they are gone when it ends."""
    made = Pods(node)
    yield made
    made.end()


@pytest.fixture(scope="module")
def operators(node: Node) -> Iterator[None]:
    """The API server knows the operators' kinds, by their reduced schemas."""
    files = [option for path in sorted(CRDS.glob("*.yaml")) for option in ("--filename", str(path))]
    node.kubectl("apply", "--validate=strict", *files)
    node.kubectl("wait", "--for=condition=Established", "--timeout=60s", *files)
    yield
    node.kubectl("delete", "--timeout=60s", *files)


@pytest.fixture
def gpu_node(node: Node) -> Iterator[None]:
    """The node has the label and the taint of one with GPUs."""
    node.kubectl("label", "node", NAME, "nvidia.com/gpu.present=true")
    node.kubectl("taint", "node", NAME, "nvidia.com/gpu=present:NoSchedule")
    yield
    node.kubectl("taint", "node", NAME, "nvidia.com/gpu-")
    node.kubectl("label", "node", NAME, "nvidia.com/gpu.present-")
