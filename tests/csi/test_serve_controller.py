"""The controller by itself, over a real socket: what it serves, what it does not, and how it ends."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.config.model import Config, Csi, Layouts
from csi_model.csi.serve_controller import run_controller
from csi_model.csi.shutdown import Shutdown
from csi_model.errors import BusyError, InvalidRequestError
from csi_model.generated import csi_pb2

from .conftest import REFERENCE, Client, connected, mount_capability, refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = Config(csi=Csi(driver_name="csi-model.test"), layouts=Layouts(allowed_prefixes=("oci-layout:///srv/models/",)))


@contextmanager
def _running(directory: Path) -> Iterator[Client]:
    """A client of a controller that runs in a thread; at the end it must stop with exit code 0."""
    shutdown, codes = Shutdown(), list[int]()
    socket = directory / "csi.sock"
    thread = threading.Thread(target=lambda: codes.append(run_controller(CONFIG, endpoint=f"unix://{socket}", shutdown=shutdown)))
    thread.start()
    try:
        with connected(socket) as client:
            assert client.identity.Probe(csi_pb2.ProbeRequest(), wait_for_ready=True, timeout=10).ready.value
            yield client
    finally:
        shutdown.ask(exit_code=0)
        thread.join(10)
    assert codes == [0]


def _create(reference: str) -> csi_pb2.CreateVolumeRequest:
    return csi_pb2.CreateVolumeRequest(name="pvc-1", volume_capabilities=[mount_capability()], parameters={"reference": reference})


def test_claims_become_volumes(short_dir: Path) -> None:
    """The provisioner finds the same name and capabilities as on a node, and gets volumes; layouts are those that the file allows."""
    with _running(short_dir) as client:
        assert client.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest()).name == "csi-model.test"
        services = client.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest()).capabilities
        assert [item.service.type for item in services] == [csi_pb2.PluginCapability.Service.CONTROLLER_SERVICE]
        for reference in (REFERENCE, "oci-layout:///srv/models/tiny:v1"):
            volume = client.controller.CreateVolume(_create(reference)).volume
            assert volume.volume_context["reference"] == reference
            client.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id))
        with refused(grpc.StatusCode.PERMISSION_DENIED, "allowedPrefixes"):
            client.controller.CreateVolume(_create("oci-layout:///etc/x:v1"))


def test_it_is_no_node(short_dir: Path) -> None:
    """The Node service is not there at all, so that nobody registers a controller with a kubelet."""
    with _running(short_dir) as client, refused(grpc.StatusCode.UNIMPLEMENTED):
        client.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())


def test_the_socket_goes_with_it(short_dir: Path) -> None:
    """While it runs its socket is root's alone and taken by nobody else; afterwards the directory is empty."""
    with _running(short_dir):
        assert (short_dir / "csi.sock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(BusyError):
            run_controller(CONFIG, endpoint=str(short_dir / "csi.sock"), shutdown=Shutdown())
    assert list(short_dir.iterdir()) == []


def test_a_layout_prefix_that_is_none_ends_the_start(short_dir: Path) -> None:
    """The mistake in the configuration shows when it starts, not at the first claim."""
    config = Config(layouts=Layouts(allowed_prefixes=("oci-layout:///a//b",)))
    with pytest.raises(InvalidRequestError):
        run_controller(config, endpoint=str(short_dir / "csi.sock"), shutdown=Shutdown())
    assert list(short_dir.iterdir()) == []
