"""Scenario 3: a private registry, and pods whose secret is right, wrong or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests, models
from e2e.kubernetes.conftest import PASSWORD, USER
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry

pytestmark = pytest.mark.gate


@pytest.fixture(scope="module")
def secret_model(private: NodeRegistry, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that only the private registry is ever asked for: what an open one has delivered as well, anybody may have."""
    return models.made_up(private, "secret", tmp_path_factory.mktemp("secret"), mebibytes=8)


@pytest.fixture
def model(node: Node, secret_model: Model) -> Iterator[Model]:
    """That model; no secret is there before or after."""
    yield secret_model
    node.kubectl("delete", "secret", "registry-login", "--ignore-not-found")


def test_the_right_secret_opens_the_registry(node: Node, driver: Installation, private: NodeRegistry, model: Model, pods: Pods) -> None:
    """A pod that names the secret reads the model."""
    node.apply(manifests.secret("registry-login", private.host, USER, PASSWORD))
    pod = pods.run(manifests.pod("right", {"model": manifests.inline(model.reference, secret="registry-login")}))
    assert pod.checksums("/model") == model.files


def test_a_wrong_secret_is_named_and_a_right_one_heals(
    node: Node, driver: Installation, private: NodeRegistry, model: Model, pods: Pods
) -> None:
    """Events on pod and node say which registry refused, the pod's which credentials; with the secret corrected the pod starts by itself."""
    process = driver.process()
    node.apply(manifests.secret("registry-login", private.host, USER, "battery staple"))
    (pod,) = pods.start(manifests.pod("wrong", {"model": manifests.inline(model.reference, secret="registry-login")}))
    event = pod.wait_event(
        "FailedMount", private.host, "credentials tried", f"user '{USER}' from the volume's secret", "nodePublishSecretRef"
    )
    assert "battery staple" not in event.message
    until("the node's admin is told", lambda: any(private.host in text for text in node.told("RegistryRefused")), within=30)
    node.apply(manifests.secret("registry-login", private.host, USER, PASSWORD))
    pod.wait_ready(within=150)
    assert pod.checksums("/model") == model.files
    assert driver.process() == process, "nobody restarted the driver"


def test_a_volume_without_credentials_is_told_so(driver: Installation, private: NodeRegistry, model: Model, pods: Pods) -> None:
    """Without any secret the event says that the registry wants credentials and where to put them; the cache does not open the door."""
    (pod,) = pods.start(manifests.pod("none", {"model": manifests.inline(model.reference)}))
    pod.wait_event("FailedMount", private.host, "credentials tried: none", "nodePublishSecretRef")
    pod.wait_event("ModelUnauthorized", private.host)


def test_a_secret_that_does_not_exist_is_kubelets_to_name(
    node: Node, driver: Installation, private: NodeRegistry, model: Model, pods: Pods
) -> None:
    """While the secret is missing the event names it; once it is made the pod starts."""
    (pod,) = pods.start(manifests.pod("missing", {"model": manifests.inline(model.reference, secret="registry-login")}))
    pod.wait_event("FailedMount", "registry-login", "not found")
    node.apply(manifests.secret("registry-login", private.host, USER, PASSWORD))
    pod.wait_ready(within=150)
    assert pod.checksums("/model") == model.files
