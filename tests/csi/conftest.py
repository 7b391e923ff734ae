"""A fake engine that keeps volumes in a dictionary, and real gRPC servers over real sockets around it."""

from __future__ import annotations

import enum
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.csi import sockets
from csi_model.csi.controller import Controller
from csi_model.csi.identity import Identity
from csi_model.csi.node import Node
from csi_model.csi.server import RESERVED, csi_server
from csi_model.errors import ConflictError, NotFoundError, StillPullingError, UnavailableError
from csi_model.generated import csi_pb2
from csi_model.generated.csi_pb2_grpc import ControllerStub, IdentityStub, NodeStub
from csi_model.oci.digest import Digest
from csi_model.volumes.observer import Mounted, tell_nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from csi_model.volumes.observer import Happening, PublishCall, Tell
    from csi_model.volumes.request import VolumeRequest

REFERENCE = "registry.example/llm/tiny:v1"
LAYOUTS = ("oci-layout:///srv/models/",)


@dataclass(frozen=True, slots=True)
class Published:
    """What one publish handed to the engine."""

    volume_id: str
    target: str
    request: VolumeRequest
    secrets: Mapping[str, str] = field(repr=False)
    deadline: float


@dataclass(frozen=True, slots=True)
class FakeUsage:
    bytes: int
    inodes: int


class FakeEngine:
    """Publishes into a dictionary by target; waits while ``pulling`` is set, and raises what ``fails`` raises."""

    def __init__(self) -> None:
        self.published: dict[str, Published] = {}
        self.unpublished: list[tuple[str, str]] = []
        self.waiting = 0
        self.fails: Callable[[], None] = lambda: None
        self.pulling = False
        self._stopped = False
        self._changed = threading.Condition()

    def publish(
        self,
        *,
        volume_id: str,
        target: str,
        request: VolumeRequest,
        secrets: Mapping[str, str],
        deadline: float,
        tell: Tell = tell_nobody,
    ) -> None:
        self.fails()
        with self._changed:
            self.waiting += 1
            try:
                self._changed.wait_for(lambda: not self.pulling or self._stopped, timeout=deadline - time.monotonic())
            finally:
                self.waiting -= 1
            if self._stopped:
                msg = "the driver stops; try again"
                raise UnavailableError(msg)
            if self.pulling:
                msg = "pulled 1 of 2 GB"
                raise StillPullingError(msg)
        before = self.published.get(target)
        if before and (before.volume_id, before.request) != (volume_id, request):
            msg = f"{target} shows something else"
            raise ConflictError(msg)
        self.published[target] = Published(volume_id, target, request, secrets, deadline)
        tell(Mounted(Digest.of(b"m"), 0.1))

    def unpublish(self, *, volume_id: str, target: str) -> None:
        self.fails()
        self.unpublished.append((volume_id, target))
        self.published.pop(target, None)

    def stats(self, *, volume_id: str, path: str) -> FakeUsage:
        if path not in self.published or self.published[path].volume_id != volume_id:
            msg = f"volume {volume_id} is not published at {path}"
            raise NotFoundError(msg)
        return FakeUsage(bytes=140 << 30, inodes=42)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def finish_pull(self) -> None:
        """Let every waiting publish through."""
        with self._changed:
            self.pulling = False
            self._changed.notify_all()


class Selinux(enum.Enum):
    """Whether a node has it."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Client:
    """Stubs for one socket."""

    channel: grpc.Channel
    identity: IdentityStub
    controller: ControllerStub
    node: NodeStub


@contextmanager
def connected(path: Path, *options: tuple[str, str | int]) -> Iterator[Client]:
    """A client of the socket at ``path``."""
    # Subchannels are shared by address otherwise, and a test would get the connection of the one before.
    with grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1), *options]) as channel:
        yield Client(channel, IdentityStub(channel), ControllerStub(channel), NodeStub(channel))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name within the kernel's 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="csi-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def ready() -> threading.Event:
    return threading.Event()


@pytest.fixture
def workers() -> int:
    return RESERVED + 8


@pytest.fixture
def selinux() -> Selinux:
    """Whether the served node relabels volumes."""
    return Selinux.OFF


@pytest.fixture
def told() -> list[tuple[PublishCall, Happening]]:
    """What an observer of the served node was told."""
    return []


@pytest.fixture
def node(engine: FakeEngine, workers: int, selinux: Selinux, told: list[tuple[PublishCall, Happening]]) -> Node:
    return Node(
        engine,
        node_id="node-1",
        publishes=workers - RESERVED,
        layouts=LAYOUTS,
        relabels=selinux is Selinux.ON,
        observers=[lambda call, happening: told.append((call, happening))],
    )


@pytest.fixture
def client(node: Node, ready: threading.Event, short_dir: Path, workers: int, engine: FakeEngine) -> Iterator[Client]:
    """A client of a served fake engine."""
    server = csi_server(Identity("csi-model.test", ready), Controller(layouts=LAYOUTS), node, workers=workers)
    sockets.listen(server, short_dir / "csi.sock")
    server.start()
    with connected(short_dir / "csi.sock") as client:
        yield client
    engine.stop()
    server.stop(5).wait()


def mount_capability(
    mode: csi_pb2.VolumeCapability.AccessMode.Mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER,
    **mount: object,
) -> csi_pb2.VolumeCapability:
    """A filesystem capability; inline volumes always come as SINGLE_NODE_WRITER."""
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(**mount),  # type: ignore[arg-type]
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=mode),
    )


def publish_request(**changes: object) -> csi_pb2.NodePublishVolumeRequest:
    """A good publish, with changes; a change to None takes the field away."""
    fields: dict[str, object] = {
        "volume_id": "csi-1",
        "target_path": "/var/lib/kubelet/pods/p/volumes/kubernetes.io~csi/m/mount",
        "volume_capability": mount_capability(),
        "readonly": True,
        "volume_context": {"reference": REFERENCE},
        **changes,
    }
    return csi_pb2.NodePublishVolumeRequest(**{name: value for name, value in fields.items() if value is not None})  # type: ignore[arg-type]


@contextmanager
def refused(code: grpc.StatusCode, text: str = "") -> Iterator[None]:
    """The call inside must end with this code and with this text in its message, and with no status details."""
    with pytest.raises(grpc.RpcError) as error:
        yield
    said = error.value.details() or ""
    assert error.value.code() is code, said
    assert text in said
    assert "grpc-status-details-bin" not in {item.key for item in error.value.trailing_metadata() or ()}
