"""Lines of a publish by the real engine, over a real socket, as an admin would filter them."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from csi_model.config.model import Config, Pull, RegistryHost
from csi_model.csi import sockets
from csi_model.csi.controller import Controller
from csi_model.csi.identity import Identity
from csi_model.csi.node import Node
from csi_model.csi.server import csi_server
from csi_model.volumes.engine import open_engine
from tests.fakes.models import push_tars, tar_of
from tests.fakes.registry import BasicAuth, FakeRegistry
from tests.volumes.conftest import PASSWORD, USER, secret

from .conftest import connected, publish_request, refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Client

pytestmark = pytest.mark.root

POD = {"pod": "web-0", "namespace": "shop", "pod_uid": "1234"}
CONTEXT = {
    "csi.storage.k8s.io/pod.name": "web-0",
    "csi.storage.k8s.io/pod.namespace": "shop",
    "csi.storage.k8s.io/pod.uid": "1234",
    "csi.storage.k8s.io/ephemeral": "true",
}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry(auth=BasicAuth({USER: PASSWORD})) as fake:
        yield fake


@pytest.fixture
def driver(tmp_path: Path, short_dir: Path, registry: FakeRegistry) -> Iterator[Client]:
    config = Config(registries={registry.host: RegistryHost(plain_http=True)}, pull=Pull(retries=0, free_space_reserve=0))
    with open_engine(tmp_path / "state", config, targets=tmp_path, tended=True) as engine:
        node = Node(engine.volumes, node_id="n", publishes=2)
        server = csi_server(Identity("csi-model.test", threading.Event()), Controller(), node, workers=4)
        sockets.listen(server, short_dir / "csi.sock")
        server.start()
        with connected(short_dir / "csi.sock") as client:
            yield client
        server.stop(5).wait()


@pytest.fixture
def logged(driver: Client) -> Iterator[io.StringIO]:
    """Every line from now on, at debug, rendered as the driver renders it."""
    stream = io.StringIO()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    yield stream
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_of_a_publish_says_for_whom(driver: Client, registry: FakeRegistry, logged: io.StringIO, tmp_path: Path) -> None:
    """Lines of the call carry pod, namespace, volume and reference; those of its pull, in threads of the pull's own, reference and manifest."""
    reference = push_tars(registry, "llm/car", tar_of({"model.bin": b"w" * 50_000_000}))
    request = publish_request(
        target_path=str(tmp_path / "target"), volume_context={"reference": reference, **CONTEXT}, secrets=secret(registry.host)
    )
    driver.node.NodePublishVolume(request)
    found = lines(logged)
    by_event = {line["event"]: line for line in found}
    assert {"layer pulled", "view_mounted", "call"} <= by_event.keys()
    manifest = by_event["call"]["manifest"]
    for line in found:
        assert line["reference"] == reference, line
        if line["event"] in {"view_mounted", "call"}:
            assert POD.items() <= line.items(), line
            assert line["volume_id"] == "csi-1"
        else:
            assert line["manifest"] == manifest, line
    again = {"target_path": str(tmp_path / "other"), "volume_id": "csi-2", "volume_context": {"reference": reference}}
    driver.node.NodePublishVolume(publish_request(**again, secrets=secret(registry.host)))
    for line in lines(logged)[len(found) :]:
        assert line["volume_id"] == "csi-2"
        assert "pod" not in line, "one call's pod shows in another's line"


def test_a_refusal_names_the_pod_and_no_secret(driver: Client, registry: FakeRegistry, logged: io.StringIO, tmp_path: Path) -> None:
    """With a wrong password the lines say which pod and which model, and nowhere what the secret was."""
    reference = push_tars(registry, "llm/car", tar_of({"model.bin": b"w"}))
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        driver.node.NodePublishVolume(
            publish_request(
                target_path=str(tmp_path / "target"),
                volume_context={"reference": reference, **CONTEXT},
                secrets=secret(registry.host, password="wr0ng-s3cret"),
            )
        )
    (call,) = [line for line in lines(logged) if line["event"] == "call"]
    assert POD.items() <= call.items()
    assert call["reference"] == reference
    text = logged.getvalue()
    assert "wr0ng-s3cret" not in text
    assert secret(registry.host, password="wr0ng-s3cret")[".dockerconfigjson"][20:60] not in text
