"""What a meter is told of calls over a real socket."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.csi import sockets
from csi_model.csi.controller import Controller
from csi_model.csi.identity import Identity
from csi_model.csi.node import Node
from csi_model.csi.server import csi_server
from csi_model.generated import csi_pb2

from .conftest import connected, publish_request, refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Client, FakeEngine


class FakeMeter:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.seconds: list[float] = []

    def began(self, method: str) -> None:
        self.told.append((method,))

    def ended(self, method: str, code: str, seconds: float) -> None:
        self.told.append((method, code))
        self.seconds.append(seconds)


@pytest.fixture
def meter() -> FakeMeter:
    return FakeMeter()


@pytest.fixture
def metered(engine: FakeEngine, meter: FakeMeter, short_dir: Path) -> Iterator[Client]:
    node = Node(engine, node_id="n", publishes=2)
    server = csi_server(Identity("csi-model.test", threading.Event()), Controller(), node, workers=4, meter=meter)
    sockets.listen(server, short_dir / "csi.sock")
    server.start()
    with connected(short_dir / "csi.sock") as client:
        yield client
    server.stop(1).wait(2)


def test_each_call_is_told_with_its_code(metered: Client, meter: FakeMeter) -> None:
    """A call is told when it comes and when it ends, with the code that the caller saw."""
    metered.node.NodePublishVolume(publish_request())
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        metered.node.NodePublishVolume(publish_request(target_path=None))
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        metered.node.NodeExpandVolume(csi_pb2.NodeExpandVolumeRequest())
    assert meter.told == [
        ("NodePublishVolume",),
        ("NodePublishVolume", "OK"),
        ("NodePublishVolume",),
        ("NodePublishVolume", "INVALID_ARGUMENT"),
        ("NodeExpandVolume",),
        ("NodeExpandVolume", "UNIMPLEMENTED"),
    ]
    assert all(0 <= seconds < 5 for seconds in meter.seconds)


def test_a_method_that_nobody_serves_is_not_told(metered: Client, meter: FakeMeter) -> None:
    """A caller cannot make up names that would be counted."""
    call = metered.channel.unary_unary("/csi.v1.Node/Nonsense", request_serializer=None, response_deserializer=None)
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        call(b"")
    assert meter.told == []
