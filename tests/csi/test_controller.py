"""The Controller service: stateless, and strict about what no publish could serve."""

from __future__ import annotations

import grpc
import pytest

from csi_model.csi import volumeid
from csi_model.errors import InvalidRequestError
from csi_model.generated import csi_pb2

from .conftest import REFERENCE, Client, mount_capability, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNSUPPORTED = grpc.StatusCode.FAILED_PRECONDITION
PROVISIONER = {"csi.storage.k8s.io/pvc/name": "weights", "csi.storage.k8s.io/pvc/namespace": "shop", "csi.storage.k8s.io/pv/name": "pvc-1"}


def _create(**changes: object) -> csi_pb2.CreateVolumeRequest:
    fields: dict[str, object] = {
        "name": "pvc-1",
        "volume_capabilities": [mount_capability()],
        "parameters": {"reference": REFERENCE, "path": "models"},
        **changes,
    }
    return csi_pb2.CreateVolumeRequest(**{name: value for name, value in fields.items() if value is not None})  # type: ignore[arg-type]


def test_a_class_becomes_the_volumes_context(client: Client) -> None:
    """The parameters come back as the context, without what the provisioner added; the capacity is unknown; no registry is asked."""
    request = _create(parameters={"reference": REFERENCE, "path": "models", **PROVISIONER}, capacity_range={"required_bytes": 10 << 30})
    volume = client.controller.CreateVolume(request).volume
    assert dict(volume.volume_context) == {"reference": REFERENCE, "path": "models"}
    assert volume.capacity_bytes == 0
    assert volumeid.is_created(volume.volume_id)
    assert len(volume.volume_id.encode()) <= 128


def test_one_name_is_one_volume(client: Client) -> None:
    """The id comes from the name alone: the same again for a repeated call, another for another name."""
    first, again, other = (client.controller.CreateVolume(_create(name=name)).volume.volume_id for name in ("a", "a", "b"))
    assert first == again != other


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"name": None, "volume_capabilities": None}, INVALID, "name is missing"),
        ({"name": "x" * 129}, INVALID, "128"),
        ({"name": "a\u0085b"}, INVALID, "control"),
        ({"volume_capabilities": None, "parameters": None}, INVALID, "volume_capabilities is missing"),
        (
            {"volume_capabilities": [mount_capability(), csi_pb2.VolumeCapability(block={}, access_mode={"mode": 1})]},
            UNSUPPORTED,
            "block",
        ),
        ({"capacity_range": {"required_bytes": -1}}, INVALID, "capacity_range"),
        ({"capacity_range": {"required_bytes": 2, "limit_bytes": 1}}, INVALID, "capacity_range"),
        ({"volume_content_source": {"volume": {"volume_id": "a"}}}, INVALID, "snapshots"),
        ({"volume_content_source": {"snapshot": {"snapshot_id": "a"}}}, INVALID, "snapshots"),
        ({"mutable_parameters": {"a": "b"}}, INVALID, "VolumeAttributesClass"),
        ({"parameters": None}, INVALID, "'reference' is missing"),
        ({"parameters": {"reference": REFERENCE, "fast": "yes"}}, INVALID, "'fast'"),
        ({"parameters": {"reference": "oci-layout:///etc"}}, grpc.StatusCode.PERMISSION_DENIED, "allowedPrefixes"),
    ],
)
def test_a_volume_that_no_node_could_publish_is_not_created(
    client: Client, changes: dict[str, object], code: grpc.StatusCode, text: str
) -> None:
    """The mistake in a storage class shows when the claim is made, not when its pod starts."""
    with refused(code, text):
        client.controller.CreateVolume(_create(**changes))


def test_a_name_of_128_characters_is_fine(client: Client) -> None:
    """The longest name that the specification allows, in any script, gives an id of the usual length."""
    volume = client.controller.CreateVolume(_create(name="x" * 128)).volume
    assert len(volume.volume_id) == len(volumeid.created("y"))


def test_any_volume_can_be_deleted(client: Client) -> None:
    """Nothing is kept, so deletion of a known, an unknown and a static id is OK; only a missing id is a mistake."""
    for volume_id in (volumeid.created("a"), "never", "../../x"):
        client.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id))
    with refused(INVALID, "volume_id"):
        client.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest())


def _validate(**changes: object) -> csi_pb2.ValidateVolumeCapabilitiesRequest:
    fields: dict[str, object] = {
        "volume_id": volumeid.created("a"),
        "volume_capabilities": [mount_capability()],
        "volume_context": {"reference": REFERENCE},
        **changes,
    }
    return csi_pb2.ValidateVolumeCapabilitiesRequest(**fields)  # type: ignore[arg-type]


def test_a_created_volume_is_confirmed_with_what_was_asked(client: Client) -> None:
    """Confirmation repeats context, capabilities and parameters."""
    request = _validate(parameters={"reference": REFERENCE})
    confirmed = client.controller.ValidateVolumeCapabilities(request).confirmed
    assert confirmed.volume_context == request.volume_context
    assert list(confirmed.volume_capabilities) == list(request.volume_capabilities)
    assert confirmed.parameters == request.parameters


@pytest.mark.parametrize(
    "changes",
    [
        {"volume_capabilities": [csi_pb2.VolumeCapability(block={}, access_mode={"mode": 1})]},
        {"volume_context": {"reference": "???"}},
        {"parameters": {"fast": "yes"}},
        {"mutable_parameters": {"a": "b"}},
    ],
)
def test_what_is_not_supported_is_not_confirmed(client: Client, changes: dict[str, object]) -> None:
    """The answer is OK with a message and without a confirmation, as the specification asks."""
    answer = client.controller.ValidateVolumeCapabilities(_validate(**changes))
    assert answer.message
    assert not answer.HasField("confirmed")


def test_only_ids_of_the_controller_are_known_to_it(client: Client) -> None:
    """Missing fields are mistakes, and are found first; an id that CreateVolume never gives, possible or not, is NOT_FOUND."""
    for volume_id in ("fake-vol-id-12", "a\0b", "x" * 10_000, "csi-model:v1:", "csi-model:v1:" + "g" * 64, volumeid.created("a").upper()):
        with refused(grpc.StatusCode.NOT_FOUND):
            client.controller.ValidateVolumeCapabilities(_validate(volume_id=volume_id))
    with refused(INVALID, "volume_id"):
        client.controller.ValidateVolumeCapabilities(_validate(volume_id=""))
    with refused(INVALID, "volume_capabilities"):
        client.controller.ValidateVolumeCapabilities(_validate(volume_id="fake", volume_capabilities=[]))


def test_the_controller_creates_and_deletes_only(client: Client) -> None:
    """CREATE_DELETE_VOLUME is the one capability."""
    capabilities = client.controller.ControllerGetCapabilities(csi_pb2.ControllerGetCapabilitiesRequest()).capabilities
    assert [item.rpc.type for item in capabilities] == [csi_pb2.ControllerServiceCapability.RPC.CREATE_DELETE_VOLUME]


@pytest.mark.parametrize("volume_id", ["", "a\0", "ü" * 513])
def test_ids_are_bounded(volume_id: str) -> None:
    """An id has 1 to 1024 bytes and no NUL."""
    with pytest.raises(InvalidRequestError, match="volume_id"):
        volumeid.require(volume_id)
    assert not volumeid.is_possible(volume_id)
