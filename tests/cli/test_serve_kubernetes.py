"""``csi-model serve --kubernetes`` as a process: the driver of a pod, its API server in this process, and kubelet's calls."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.generated import csi_pb2
from csi_model.generated import pluginregistration_pb2 as registration_pb2
from csi_model.generated.csi_pb2_grpc import NodeStub
from csi_model.generated.pluginregistration_pb2_grpc import RegistrationStub
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.certificates import server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Person

pytestmark = pytest.mark.root
TAINT = {"key": "csi-model.dev/agent-not-ready", "effect": "NoExecute"}


def _eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _inline(folder: Path) -> csi_pb2.NodePublishVolumeRequest:
    """What kubelet asks for a pod whose reference is misspelt."""
    parent = folder / "pods" / "u-1" / "volumes" / "kubernetes.io~csi" / "model"
    mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(), access_mode=csi_pb2.VolumeCapability.AccessMode(mode=mode)
    )
    pod = {"name": "web-0", "namespace": "shop", "uid": "u-1"}
    context = {"reference": "https://registry.example/x", **{f"csi.storage.k8s.io/pod.{key}": value for key, value in pod.items()}}
    return csi_pb2.NodePublishVolumeRequest(
        volume_id="csi-1", target_path=str(parent / "mount"), volume_capability=capability, volume_context=context
    )


@pytest.fixture
def account(person: Person, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that lets the driver live in the person's folder, and where its service account would be."""
    person.folder.joinpath("config.yaml").write_text(f"csi: {{kubeletRoot: {person.folder}}}\n")
    return person.folder / "account"


def _words(folder: Path, *more: str) -> list[str]:
    words = ["serve", "--endpoint", f"unix://{folder}/csi.sock", "--node-id", "n1", "--registration-dir", str(folder)]
    return [*words, "--config", str(folder / "config.yaml"), *more]


def test_a_driver_without_its_pod_is_told_what_it_lacks(person: Person, account: Path) -> None:
    """--kubernetes outside a pod ends with 2 and says why, in a line of JSON."""
    driver = person.start(*_words(person.folder, "--kubernetes"))
    _, log = driver.communicate(timeout=30)
    assert driver.returncode == 2
    assert "--kubernetes needs the service account" in json.loads(log.splitlines()[-1])["error"]


def test_what_is_not_asked_for_is_not_imported(person: Person) -> None:
    """Without the flag the driver has nothing of the Kubernetes client in its memory."""
    import subprocess
    import sys

    script = (
        "import sys, csi_model.cli.main, csi_model.cli.serve, csi_model.csi.serve, csi_model.volumes.engine, csi_model.config.load\n"
        "print([name for name in sys.modules if name.split('.')[0] in {'lightkube', 'httpx2', 'msgspec'}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_refused_pod_and_the_taint_are_seen_in_the_api(person: Person, account: Path, tmp_path: Path) -> None:
    """The pod's event has the driver's words; the taint goes when kubelet has registered the driver; SIGTERM still ends with 0."""
    context, authority = server_context(tmp_path)
    folder = person.folder
    account.mkdir()
    for name, text in {"token": "token-1", "namespace": "csi-model", "ca.crt": authority.read_text()}.items():
        (account / name).write_text(text)
    with FakeApiServer(context) as api:
        api.add_node("n1", taints=[TAINT], drivers=("csi-model.dev",))
        person.environment.update(KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT=str(api.port), PYTHONPATH=str(tmp_path))
        # The account's place is Kubernetes' own, so the process is told another one before it starts.
        (tmp_path / "sitecustomize.py").write_text(
            f"from pathlib import Path\nfrom csi_model.kube import api\napi.ApiServer.of_pod.__func__.__kwdefaults__['account'] = Path({str(account)!r})\n"
        )
        driver = person.start(*_words(folder, "--kubernetes"))
        try:
            _eventually((folder / "csi-model.dev-reg.sock").exists)
            with grpc.insecure_channel(f"unix:{folder}/csi.sock") as channel, pytest.raises(grpc.RpcError):
                NodeStub(channel).NodePublishVolume(_inline(folder), timeout=20)
            _eventually(lambda: bool(api.events()))
            assert api.taints("n1") == [TAINT]
            with grpc.insecure_channel(f"unix:{folder}/csi-model.dev-reg.sock") as channel:
                status = registration_pb2.RegistrationStatus(plugin_registered=True)
                RegistrationStub(channel).NotifyRegistrationStatus(status, timeout=20)
            _eventually(lambda: api.taints("n1") == [])
        finally:
            driver.send_signal(signal.SIGTERM)
            driver.communicate(timeout=30)
        assert driver.returncode == 0
        (event,) = api.events()
    assert (event["reason"], event["source"]) == ("InvalidVolume", {"component": "csi-model.dev", "host": "n1"})
    assert event["message"].startswith('volume "model": ')
    assert "https:// is not supported" in event["message"]
    assert os.sep not in event["metadata"]["name"]
