"""The Node service: what it refuses, in which order, and what it hands on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import grpc
import pytest

from csi_model.csi.node import Node, wait_seconds
from csi_model.errors import InvalidRequestError
from csi_model.generated import csi_pb2
from csi_model.volumes.request import PullPolicy

from .conftest import REFERENCE, Client, FakeEngine, Selinux, mount_capability, publish_request, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Mode = csi_pb2.VolumeCapability.AccessMode
BLOCK = csi_pb2.VolumeCapability(
    block=csi_pb2.VolumeCapability.BlockVolume(), access_mode=Mode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
)
# Alpha in CSI 1.13, so not among the generated names; a number over the wire all the same.
SINGLE_NODE_MULTI_WRITER = cast("csi_pb2.VolumeCapability.AccessMode.Mode", 7)
KUBELET = {
    "csi.storage.k8s.io/pod.name": "web-0",
    "csi.storage.k8s.io/pod.namespace": "shop",
    "csi.storage.k8s.io/pod.uid": "1-2-3",
    "csi.storage.k8s.io/serviceAccount.name": "default",
    "csi.storage.k8s.io/serviceAccount.tokens": '{"aud": {"token": "canary"}}',
    "csi.storage.k8s.io/ephemeral": "true",
    "storage.kubernetes.io/csiProvisionerIdentity": "1-csi",
    "csi.storage.k8s.io/somethingNew": "later",
}


def _uses(engine: FakeEngine) -> int:
    return len(engine.published) + len(engine.unpublished)


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"volume_id": None, "target_path": None, "volume_capability": None}, INVALID, "volume_id is missing"),
        ({"target_path": None, "volume_capability": None}, INVALID, "target_path"),
        ({"volume_capability": None, "volume_context": None}, INVALID, "volume_capability is missing"),
        ({"volume_id": "a\0b"}, INVALID, "NUL"),
        ({"volume_id": "x" * 10_000}, INVALID, "bytes"),
        ({"target_path": "/a\0b"}, INVALID, "target_path"),
        ({"target_path": "/" + "x" * 5000}, INVALID, "target_path"),
        ({"volume_capability": csi_pb2.VolumeCapability()}, INVALID, "neither mount nor block"),
        ({"volume_capability": BLOCK}, grpc.StatusCode.FAILED_PRECONDITION, "block"),
        ({"volume_capability": mount_capability(fs_type="block")}, grpc.StatusCode.FAILED_PRECONDITION, "block"),
        ({"volume_capability": mount_capability(Mode.UNKNOWN)}, INVALID, "access mode"),
        ({"volume_capability": mount_capability(mount_flags=["rw"])}, grpc.StatusCode.FAILED_PRECONDITION, "mountOptions"),
        ({"volume_capability": mount_capability(SINGLE_NODE_MULTI_WRITER)}, grpc.StatusCode.FAILED_PRECONDITION, "access mode 7"),
        ({"volume_context": None}, INVALID, "'reference' is missing"),
        ({"volume_context": {"reference": REFERENCE, "referense": "x"}}, INVALID, "unknown volume attribute 'referense'"),
        ({"volume_context": {"reference": REFERENCE, "example.com/x": "y"}}, INVALID, "'example.com/x'"),
        ({"volume_context": {"reference": REFERENCE, "k8s.io.evil.com/x": "y"}}, INVALID, "'k8s.io.evil.com/x'"),
        ({"volume_context": {"reference": REFERENCE, "notk8s.io/x": "y"}}, INVALID, "'notk8s.io/x'"),
        ({"volume_context": {"reference": REFERENCE, "insecure": "true"}}, INVALID, "unknown volume attribute 'insecure'"),
        ({"volume_context": {"reference": REFERENCE, "path": "a\0b"}}, INVALID, "NUL"),
        ({"volume_context": {"reference": REFERENCE, "include": "*," * 3000}}, INVALID, "4096 bytes"),
        ({"volume_context": {"reference": "https://registry.example/x"}}, INVALID, "not a reference"),
        ({"volume_context": {"reference": REFERENCE, "pullPolicy": "Sometimes"}}, INVALID, "pullPolicy"),
        ({"volume_context": {"reference": "oci-layout:///etc/x"}}, grpc.StatusCode.PERMISSION_DENIED, "allowedPrefixes"),
        ({"volume_context": {"reference": "oci-layout:///srv/models-of-others"}}, grpc.StatusCode.PERMISSION_DENIED, "allowedPrefixes"),
        ({"volume_context": {"reference": "oci-layout+s3://srv/models/x"}}, grpc.StatusCode.PERMISSION_DENIED, "allowedPrefixes"),
        ({"volume_context": {"reference": "oci-layout:///srv/models/../../etc"}}, INVALID, ""),
        ({"volume_context": {"reference": "oci-layout+zip://a::file:///srv/models/b"}}, INVALID, "::"),
    ],
)
def test_a_publish_is_refused_before_the_engine_hears_of_it(
    client: Client, engine: FakeEngine, changes: dict[str, object], code: grpc.StatusCode, text: str
) -> None:
    """Each malformed or forbidden publish has its code and says what is wrong, ids and paths first."""
    with refused(code, text):
        client.node.NodePublishVolume(publish_request(**changes))
    assert _uses(engine) == 0


def test_a_publish_hands_on_what_the_volume_says(client: Client, engine: FakeEngine) -> None:
    """Own attributes are parsed; kubelet's, tokens among them, go nowhere; secrets go to the engine only."""
    context = {"reference": f"oci://{REFERENCE}", "pullPolicy": "Always", "path": "models", "include": "*.json,*.txt", **KUBELET}
    client.node.NodePublishVolume(publish_request(volume_context=context, secrets={".dockerconfigjson": "{}"}))
    (published,) = engine.published.values()
    assert (published.volume_id, str(published.request.reference)) == ("csi-1", REFERENCE)
    assert published.request.pull_policy is PullPolicy.ALWAYS
    assert published.request.selection.include == ("*.json", "*.txt")
    assert published.secrets == {".dockerconfigjson": "{}"}


@pytest.mark.parametrize("mode", [1, 2, 3, 4, 5])
def test_every_access_mode_is_accepted_and_read_only_is_not_asked_for(
    client: Client, engine: FakeEngine, mode: csi_pb2.VolumeCapability.AccessMode.Mode
) -> None:
    """Inline volumes come as SINGLE_NODE_WRITER and persistent ones without readonly: both are published all the same."""
    capability = mount_capability(mode, fs_type="ext4", mount_flags=["ro", "nosuid", "nodev"])
    client.node.NodePublishVolume(publish_request(volume_capability=capability, readonly=False))
    assert len(engine.published) == 1


INLINE = {"reference": REFERENCE, **KUBELET}
CLAIMED = {**INLINE, "csi.storage.k8s.io/ephemeral": "false"}


def test_a_volume_that_forgot_read_only_is_published_read_only(client: Client, engine: FakeEngine) -> None:
    """Where nobody relabels volumes, the pod gets what it would have got with readOnly: true."""
    client.node.NodePublishVolume(publish_request(readonly=False, volume_context=INLINE))
    client.node.NodePublishVolume(publish_request(readonly=False, target_path="/claimed", volume_context=CLAIMED))
    assert len(engine.published) == 2


@pytest.mark.parametrize("selinux", [Selinux.ON])
@pytest.mark.parametrize(("context", "where"), [(INLINE, "beside driver"), (CLAIMED, "beside claimName")])
def test_with_selinux_a_pods_volume_must_say_read_only(client: Client, engine: FakeEngine, context: dict[str, str], where: str) -> None:
    """Kubelet has every volume relabelled that its pod does not call read-only, and that fails: the line to add is named."""
    with refused(INVALID, f"readOnly: true {where}"):
        client.node.NodePublishVolume(publish_request(readonly=False, volume_context=context))
    assert _uses(engine) == 0
    client.node.NodePublishVolume(publish_request(readonly=True, volume_context=context))
    assert len(engine.published) == 1


@pytest.mark.parametrize("selinux", [Selinux.ON])
def test_who_is_no_kubelet_relabels_nothing(client: Client, engine: FakeEngine) -> None:
    """A publish without kubelet's words about the pod, such as csi-sanity's, need not be read-only."""
    client.node.NodePublishVolume(publish_request(readonly=False))
    assert len(engine.published) == 1


@pytest.mark.parametrize("volume_id", ["a static handle, free text / ü", "csi-model:v1:no-digest", "../../x", "x" * 1024])
def test_static_handles_are_free_text(client: Client, engine: FakeEngine, volume_id: str) -> None:
    """A PersistentVolume's handle need not look like an id of ours."""
    client.node.NodePublishVolume(publish_request(volume_id=volume_id))
    assert [published.volume_id for published in engine.published.values()] == [volume_id]


def test_a_layout_below_an_allowed_prefix_is_published(client: Client, engine: FakeEngine) -> None:
    """What the configuration lists may be named by a volume."""
    client.node.NodePublishVolume(publish_request(volume_context={"reference": "oci-layout:///srv/models/tiny:v1"}))
    assert len(engine.published) == 1


def test_publishing_twice_is_the_engines_to_judge(client: Client) -> None:
    """Same volume, target and attributes again is OK; other attributes at that target are ALREADY_EXISTS."""
    client.node.NodePublishVolume(publish_request())
    client.node.NodePublishVolume(publish_request())
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        client.node.NodePublishVolume(publish_request(volume_context={"reference": REFERENCE, "path": "other"}))


def test_unpublish_is_ok_for_what_was_never_published(client: Client, engine: FakeEngine) -> None:
    """Kubelet would repeat a failed unpublish forever: unknown and impossible ids are fine, missing fields are not."""
    for volume_id in ("never", "a\0b", "x" * 10_000):
        client.node.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path="/t"))
    assert engine.unpublished == [("never", "/t")]
    with refused(INVALID, "volume_id"):
        client.node.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(target_path="/t"))
    with refused(INVALID, "target_path"):
        client.node.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id="never"))


def test_stats_are_the_views_own(client: Client) -> None:
    """Bytes and inodes of the view, all of them used and none available."""
    client.node.NodePublishVolume(publish_request())
    stats = client.node.NodeGetVolumeStats(csi_pb2.NodeGetVolumeStatsRequest(volume_id="csi-1", volume_path=publish_request().target_path))
    usage = [(item.unit, item.total, item.used, item.available) for item in stats.usage]
    assert usage == [(csi_pb2.VolumeUsage.BYTES, 140 << 30, 140 << 30, 0), (csi_pb2.VolumeUsage.INODES, 42, 42, 0)]


@pytest.mark.parametrize(
    ("volume_id", "path", "code"),
    [
        ("", "/t", INVALID),
        ("csi-1", "", INVALID),
        ("a\0b", "", INVALID),
        ("fake-vol-id", "some/path", grpc.StatusCode.NOT_FOUND),
        ("a\0b", "some/path", grpc.StatusCode.NOT_FOUND),
        ("x" * 1025, "some/path", grpc.StatusCode.NOT_FOUND),
        ("csi-1", "/elsewhere", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_stats_of_what_is_not_there_are_not_found(client: Client, volume_id: str, path: str, code: grpc.StatusCode) -> None:
    """Missing fields are the caller's mistake; an unknown volume, one that cannot be, or another path is not found."""
    client.node.NodePublishVolume(publish_request())
    with refused(code):
        client.node.NodeGetVolumeStats(csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=path))


def test_the_node_says_what_it_is(client: Client) -> None:
    """Its name, no limit on volumes, and statistics as the one capability."""
    info = client.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("node-1", 0)
    capabilities = client.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest()).capabilities
    assert [item.rpc.type for item in capabilities] == [csi_pb2.NodeServiceCapability.RPC.GET_VOLUME_STATS]


@pytest.mark.parametrize("node_id", ["", "n" * 257])
def test_a_node_id_has_1_to_256_bytes(engine: FakeEngine, node_id: str) -> None:
    """A node id that kubelet would refuse is refused at start."""
    with pytest.raises(InvalidRequestError, match="--node-id"):
        Node(engine, node_id=node_id, publishes=1)


@pytest.mark.parametrize(
    ("remaining", "expected"), [(None, 110), (1e9, 110), (120, 110), (119, 109), (60, 50), (20, 10), (4, 2), (0, 0), (-1, 0)]
)
def test_a_wait_ends_before_its_caller_gives_up(remaining: float | None, expected: float) -> None:
    """Ten seconds before the caller's deadline, at most 110 s, half of a short deadline, and never below nothing."""
    assert wait_seconds(remaining) == expected


def test_a_publish_is_held_until_the_pull_ends(client: Client, engine: FakeEngine) -> None:
    """The call returns when the pull does, not at some later try."""
    engine.pulling = True
    call = client.node.NodePublishVolume.future(publish_request(), timeout=60)
    while not engine.waiting:
        time.sleep(0.01)
    began = time.monotonic()
    engine.finish_pull()
    call.result()
    assert time.monotonic() - began < 2


def test_a_wait_that_ends_before_the_pull_is_aborted(client: Client, engine: FakeEngine) -> None:
    """ABORTED, which kubelet takes for "still running", arrives before the caller's own deadline does."""
    engine.pulling = True
    with refused(grpc.StatusCode.ABORTED, "pulled 1 of 2 GB"):
        client.node.NodePublishVolume(publish_request(), timeout=1)


def test_waiting_publishes_leave_workers_to_other_calls(client: Client, engine: FakeEngine) -> None:
    """With 8 workers for publishes and 8 publishes waiting, the ninth is ABORTED at once, and an unpublish goes through."""
    engine.pulling = True
    calls = [client.node.NodePublishVolume.future(publish_request(target_path=f"/t{number}")) for number in range(8)]
    while engine.waiting < 8:
        time.sleep(0.01)
    began = time.monotonic()
    with refused(grpc.StatusCode.ABORTED, "csi.workers"):
        client.node.NodePublishVolume(publish_request(target_path="/t9"))
    client.node.NodeUnpublishVolume(csi_pb2.NodeUnpublishVolumeRequest(volume_id="b", target_path="/t"))
    assert time.monotonic() - began < 2
    engine.finish_pull()
    for call in calls:
        call.result()
    client.node.NodePublishVolume(publish_request(target_path="/t9"))


def test_a_failed_publish_gives_its_worker_back(client: Client, engine: FakeEngine) -> None:
    """Far more failures than workers, from many threads, leave all workers free."""
    lock = threading.Lock()
    failures = 0

    def fail() -> None:
        nonlocal failures
        with lock:
            failures += 1
        msg = "no"
        raise InvalidRequestError(msg)

    def call(_number: int) -> None:
        with refused(INVALID):
            client.node.NodePublishVolume(publish_request())

    engine.fails = fail
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(40)))
    assert failures == 40
    engine.fails = lambda: None
    client.node.NodePublishVolume(publish_request())
