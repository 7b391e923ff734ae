"""Who gets a private model that is on the node already, and that asking for it obeys whoever ends the call."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from csi_model.errors import BusyError, CsiModelError, StillPullingError, StoppedError, UnauthenticatedError
from csi_model.oci.digest import Digest
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import FakeRegistry, Fault
from tests.volumes.conftest import Node, secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

FILES = {"models/config.json": b"{}", "models/model.bin": b"weights" * 1000}
SOON = 3.0


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@contextmanager
def _publishing(node: Node, reference: str, name: str, **more: object) -> Iterator[list[CsiModelError]]:
    """Publish in another thread for the body, which must end it; then the errors that it ended with."""
    errors: list[CsiModelError] = []

    def publish() -> None:
        try:
            node.publish(reference, name, **more)  # type: ignore[arg-type]
        except CsiModelError as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    yield errors
    thread.join(SOON)
    assert not thread.is_alive()


@pytest.fixture
def cached(node: Node, private: FakeRegistry) -> str:
    """A private image that one volume shows."""
    reference = push_tars(private, "team/secret", tar_of(FILES))
    node.publish(reference, "a", secrets=secret(private.host))
    return reference


@pytest.fixture
def silent(private: FakeRegistry) -> Fault:
    """The private registry no longer answers."""
    return Fault(where="/manifests/", delay=20)


@pytest.mark.parametrize("attributes", [{"path": "/models/x"}, {"path": "/models/config.json"}, {"include": "*.none"}])
def test_a_refused_volume_is_told_nothing_of_the_files(node: Node, private: FakeRegistry, attributes: dict[str, Any]) -> None:
    """Without the right to a model, of which a part is here, a path or a glob that it has not got is answered like any other."""
    reference = push_artifact(private, "team/secret", FILES)
    node.publish(reference, "a", secrets=secret(private.host), include="models/config.json")
    with pytest.raises(UnauthenticatedError) as refused:
        node.publish(reference, "b", **attributes)
    assert "config" not in str(refused.value)
    assert "model.bin" not in str(refused.value)


def test_a_page_that_asks_for_a_login_gives_no_right(node: Node, registry: FakeRegistry, private: FakeRegistry, cached: str) -> None:
    """A registry that sends strangers to a login page, which answers 200, has not accepted them."""
    registry.add_manifest("login", b"<html>Please log in</html>", tag="page")
    private.add_fault(Fault(where="/manifests/", redirect=f"{registry.url}/v2/login/manifests/page"))
    with pytest.raises(UnauthenticatedError, match=private.host):
        node.publish(cached, "b")
    assert not node.target("b").exists()


def test_the_question_for_a_right_ends_with_the_deadline(node: Node, private: FakeRegistry, silent: Fault, cached: str) -> None:
    """When the registry is silent, the call is answered in time and says whose answer is missing; the retry asks no second time."""
    private.add_fault(silent)
    asked = len(private.requests("/manifests/", "HEAD"))
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(StillPullingError, match=rf"{private.host}/team/secret has not answered"):
            node.publish(cached, "b", secrets=secret(private.host), wait=0.2)
        assert time.monotonic() - began < 1
    assert len(private.requests("/manifests/", "HEAD")) == asked + 1


def test_an_unpublish_ends_the_question_for_a_right(node: Node, private: FakeRegistry, silent: Fault, cached: str) -> None:
    """The pod that is deleted while its registry is silent does not wait for it."""
    private.add_fault(silent)
    asked = len(private.requests("/manifests/"))
    with _publishing(node, cached, "b", secrets=secret(private.host)) as errors:
        assert _eventually(lambda: len(private.requests("/manifests/")) > asked)
        node.unpublish("b")
    assert [type(error) for error in errors] == [BusyError]
    assert not node.target("b").exists()


def test_a_stop_ends_the_question_for_a_right(node: Node, private: FakeRegistry, silent: Fault, cached: str) -> None:
    """A driver that is told to stop waits for no silent registry, neither where it asks for a right nor where it resolves."""
    private.add_fault(silent)
    asked = len(private.requests("/manifests/"))
    other = push_artifact(private, "team/other", {"x": b"y"})
    with (
        _publishing(node, cached, "b", secrets=secret(private.host)) as errors,
        _publishing(node, other, "c", secrets=secret(private.host)) as others,
    ):
        assert _eventually(lambda: len(private.requests("/manifests/")) == asked + 2)
        assert node.engine is not None
        began = time.monotonic()
        node.engine.volumes.stop()
        assert time.monotonic() - began < SOON
    assert [type(error) for error in errors + others] == [StoppedError, StoppedError]


def test_a_registry_that_asks_for_a_pause_gets_it(node: Node, private: FakeRegistry, cached: str) -> None:
    """429 with a long Retry-After ends no call late, and the next call does not ask before its time."""
    private.add_fault(Fault(where="/manifests/", status=429, headers={"Retry-After": "30"}))
    asked = len(private.requests("/manifests/"))
    for _ in range(2):
        with pytest.raises(StillPullingError):
            node.publish(cached, "b", secrets=secret(private.host), wait=0.2)
    assert len(private.requests("/manifests/")) == asked + 1


def _slow_copy(node: Node, registry: FakeRegistry, private: FakeRegistry) -> tuple[str, bytes]:
    """A private layer that is here, and another repository's model of it, which delivers it for a second and a half."""
    data = os.urandom(8 << 20)
    node.publish(push_artifact(private, "team/secret", {"model.bin": data}), "a", secrets=secret(private.host))
    registry.add_fault(Fault(where=f"/blobs/{Digest.of(data)}", drip=(256 << 10, 0.05)))
    return push_artifact(registry, "other/copy", {"model.bin": data}), data


def test_a_proof_ends_when_nobody_waits_for_it(node: Node, registry: FakeRegistry, private: FakeRegistry) -> None:
    """Bytes that only prove a right are not read to their end for a pod that has gone."""
    reference, data = _slow_copy(node, registry, private)
    with pytest.raises(StillPullingError, match="other/copy is being read once more"):
        node.publish(reference, "b", wait=0.2)
    assert node.engine is not None
    models = node.engine.models
    assert _eventually(lambda: not models._flights.under_way())
    assert registry.body_bytes < len(data)
    assert node.publish(reference, "b").joinpath("model.bin").read_bytes() == data


def test_a_stop_ends_a_proof(node: Node, registry: FakeRegistry, private: FakeRegistry) -> None:
    """A driver that is told to stop ends it at once, even where no byte comes."""
    reference, data = _slow_copy(node, registry, private)
    registry.faults.clear()
    registry.add_fault(Fault(where=f"/blobs/{Digest.of(data)}", stall_after=100_000))
    with _publishing(node, reference, "b") as errors:
        assert _eventually(lambda: bool(registry.requests("/blobs/")))
        assert node.engine is not None
        began = time.monotonic()
        node.engine.volumes.stop()
        assert time.monotonic() - began < SOON
    assert [type(error) for error in errors] == [StoppedError]
