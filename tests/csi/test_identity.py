"""The Identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model import __version__
from csi_model.generated import csi_pb2

if TYPE_CHECKING:
    import threading

    from .conftest import Client


def test_the_driver_says_its_name_and_version(client: Client) -> None:
    """Name and vendor version are the configured name and the package's version."""
    info = client.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert (info.name, info.vendor_version) == ("csi-model.test", __version__)


def test_the_driver_serves_a_controller_and_nothing_more(client: Client) -> None:
    """The one plugin capability is CONTROLLER_SERVICE."""
    capabilities = client.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest()).capabilities
    assert [item.service.type for item in capabilities] == [csi_pb2.PluginCapability.Service.CONTROLLER_SERVICE]


def test_a_probe_is_well_but_not_ready_while_starting(client: Client, ready: threading.Event) -> None:
    """Starting is healthy: OK with ready=false, then true; never an error."""
    assert client.identity.Probe(csi_pb2.ProbeRequest()).HasField("ready")
    assert not client.identity.Probe(csi_pb2.ProbeRequest()).ready.value
    ready.set()
    assert client.identity.Probe(csi_pb2.ProbeRequest()).ready.value
