"""The real driver as a process of its own, and the calls that kubelet would make over its socket."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import yaml

from csi_model.generated import csi_pb2, csi_pb2_grpc, pluginregistration_pb2, pluginregistration_pb2_grpc
from csi_model.linux.mountinfo import read_mounts
from csi_model.linux.mounts import unmount
from e2e.wire import timed_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass
class Driver:
    """A node of its own below ``folder``: state directory, kubelet root, sockets and log. ``config`` is the driver's file."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        (self.kubelet / "plugins_registry").mkdir(parents=True)
        (self.kubelet / "pods").mkdir()
        self.config.setdefault("csi", {})["kubeletRoot"] = str(self.kubelet)

    @property
    def kubelet(self) -> Path:
        return self.folder / "kubelet"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def socket(self) -> Path:
        return self.folder / "csi.sock"

    @property
    def registration(self) -> Path:
        return self.kubelet / "plugins_registry" / "csi-model.dev-reg.sock"

    @property
    def log(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")

    def start(self, *, wait: bool = True, **environment: str) -> None:
        """Start it, and wait until it is registered, which is the last thing that it does."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        command = [sys.executable, "-m", "csi_model", "serve", "--endpoint", f"unix://{self.socket}", "--node-id", "node-1"]
        command += ["--registration-dir", str(self.registration.parent), "--state-dir", str(self.state)]
        with (self.folder / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(self.folder / "config.yaml")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        if wait:
            self.wait_until_registered()

    def wait_until_registered(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                self.get_info()
            except grpc.RpcError:
                time.sleep(0.02)
            else:
                return
        msg = f"the driver did not start:\n{self.log}"
        raise RuntimeError(msg)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def died(self) -> bool:
        """Whether the process ends by itself within a while."""
        assert self.process is not None
        return self.process.wait(60) == -signal.SIGKILL

    def target(self, name: str) -> Path:
        """Where kubelet would publish the volume of pod ``name``; its parent is made, as kubelet does."""
        parent = self.kubelet / "pods" / name / "volumes" / "kubernetes.io~csi" / "model"
        parent.mkdir(parents=True, exist_ok=True)
        return parent / "mount"

    def publish(
        self,
        reference: str,
        name: str = "a",
        *,
        secrets: Mapping[str, str] | None = None,
        timeout: float = 120,
        target: Path | None = None,
        **attributes: Any,
    ) -> Path:
        """NodePublishVolume as kubelet calls it for an inline volume; returns the target."""
        request = self._request(reference, name, target or self.target(name), secrets=secrets or {}, **attributes)
        with self.channel() as channel:
            csi_pb2_grpc.NodeStub(channel).NodePublishVolume(request, timeout=timeout)
        return Path(request.target_path)

    def publish_seconds(self, reference: str, name: str) -> float:
        """Publish as kubelet's client does, on a connection of its own; return the seconds until the answer, which is all that a pod waits for."""
        request = self._request(reference, name, self.target(name), secrets={})
        return timed_call(self.socket, "/csi.v1.Node/NodePublishVolume", request)

    def _request(
        self, reference: str, name: str, target: Path, *, secrets: Mapping[str, str], **attributes: Any
    ) -> csi_pb2.NodePublishVolumeRequest:
        context = {"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": name, "csi.storage.k8s.io/pod.namespace": "test"}
        capability = csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
        )
        return csi_pb2.NodePublishVolumeRequest(
            volume_id=f"csi-{name}",
            target_path=str(target),
            volume_capability=capability,
            readonly=True,
            secrets=dict(secrets),
            volume_context={"reference": reference, **context, **attributes},
        )

    def refused(self, reference: str, name: str = "a", **more: Any) -> tuple[grpc.StatusCode, str]:
        """The code and text with which a publish fails; the target is not there afterwards."""
        try:
            self.publish(reference, name, **more)
        except grpc.RpcError as error:
            assert not self.target(name).exists()
            return error.code(), error.details() or ""
        msg = f"{reference} was published"
        raise AssertionError(msg)

    def unpublish(self, name: str = "a") -> None:
        """NodeUnpublishVolume, and the removal of the folder that kubelet made."""
        target = self.target(name)
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=f"csi-{name}", target_path=str(target))
        with self.channel() as channel:
            csi_pb2_grpc.NodeStub(channel).NodeUnpublishVolume(request, timeout=30)
        target.parent.rmdir()

    def stats(self, name: str = "a") -> dict[str, int]:
        """NodeGetVolumeStats: used bytes and inodes."""
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=f"csi-{name}", volume_path=str(self.target(name)))
        with self.channel() as channel:
            answer = csi_pb2_grpc.NodeStub(channel).NodeGetVolumeStats(request, timeout=10)
        return {csi_pb2.VolumeUsage.Unit.Name(usage.unit): usage.used for usage in answer.usage}

    def get_info(self, timeout: float = 1.0) -> Any:
        """What kubelet asks first over the registration socket, with kubelet's deadline."""
        with grpc.insecure_channel(f"unix://{self.registration}") as channel:
            stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
            return stub.GetInfo(pluginregistration_pb2.InfoRequest(), timeout=timeout)

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            yield channel

    def mounts(self) -> list[str]:
        """Mount points below the folder, in this mount namespace."""
        return [mount.target for mount in read_mounts() if mount.target.startswith(f"{self.folder}/")]

    def views(self) -> list[str]:
        """The mounts of views below the state directory."""
        return [target for target in self.mounts() if target.startswith(f"{self.state}/")]

    def published(self) -> list[str]:
        """The mounts that are no views: those of volumes, and strays. One look, for a driver mounts views anew meanwhile."""
        return [target for target in self.mounts() if not target.startswith(f"{self.state}/")]

    def unfinished(self) -> list[str]:
        """What lies in ingest."""
        return [str(path.relative_to(self.state)) for path in (self.state / "ingest").rglob("*")]

    def corrupt(self, checked: set[str] | None = None) -> list[str]:
        """Contents that are not what their name says; those in ``checked`` are not looked at again, and new ones are added to it."""
        known = checked if checked is not None else set()
        contents = [path for folder in (self.state / "content").iterdir() for path in folder.iterdir() if path.name not in known]
        known.update(path.name for path in contents)
        return [str(path) for path in contents if hashlib.new(path.parent.name, path.read_bytes()).hexdigest() != path.name]

    def command(self, *arguments: str) -> str:
        """What ``csi-model`` prints, run on this node's state directory."""
        line = [sys.executable, "-m", "csi_model", *arguments, "--state-dir", str(self.state)]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    def clean_up(self) -> None:
        """Stop it and take every mount below the folder away."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.reboot()

    def reboot(self) -> None:
        """What a reboot does to a driver that does not run: every mount below the folder goes, the disk stays."""
        for target in reversed(self.mounts()):
            unmount(target)


def eventually(condition: Callable[[], bool], within: float = 10.0) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
