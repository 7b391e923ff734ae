"""A pod's service account, the API server that knows it, and calls of kubelet's to be told about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from csi_model.kube.api import ApiServer
from csi_model.volumes.observer import PublishCall
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.certificates import server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DRIVER, NODE = "csi-model.test", "worker-1"
REFERENCE = "registry.example/llm/tiny:v1"


def publish_call(pod: str = "web-0", *, volume: str = "model", reference: str = REFERENCE, uid: str | None = None) -> PublishCall:
    """What kubelet asks for a volume of a pod; ``uid`` is what the context says where it differs from kubelet's path."""
    true = f"uid-{pod}"
    return PublishCall(
        volume_id=f"csi-{pod}-{volume}",
        target=f"/var/lib/kubelet/pods/{true}/volumes/kubernetes.io~csi/{volume}/mount",
        reference=reference,
        namespace="shop",
        pod=pod,
        pod_uid=true if uid is None else uid,
    )


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    """An API server, and a pod's view of it: its environment and its service account in ``tmp_path/account``."""
    context, authority = server_context(tmp_path)
    with FakeApiServer(context) as fake:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(fake.port))
        account = tmp_path / "account"
        account.mkdir()
        (account / "token").write_text("token-1")
        (account / "namespace").write_text("csi-model")
        (account / "ca.crt").write_bytes(authority.read_bytes())
        yield fake


@pytest.fixture
def account(tmp_path: Path, api: FakeApiServer) -> Path:
    return tmp_path / "account"


@pytest.fixture
def cluster(account: Path) -> Iterator[ApiServer]:
    """The real client."""
    server = ApiServer.of_pod(component=DRIVER, node=NODE, account=account)
    yield server
    server.close()
