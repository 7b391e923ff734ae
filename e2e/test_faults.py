"""What goes wrong at registries and in requests, as kubelet sees it: the code, the text with the next step, and nothing left behind."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from tests.fakes.models import OCI_TAR, push_artifact, push_manifest, push_tars, tar_of
from tests.fakes.registry import FakeRegistry, Fault, TokenAuth
from tests.volumes.conftest import PASSWORD, USER, secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.driver import Driver

Code = grpc.StatusCode
SIZE = 300_000
NOWHERE = f"sha256:{'b' * 64}"


@pytest.fixture
def driver(shared_driver: Driver) -> Iterator[Driver]:
    """The module's driver; whatever a test does with it, nothing unfinished, nothing corrupt and no pod's mount is left."""
    before = shared_driver.unfinished() if shared_driver.state.exists() else []
    yield shared_driver
    for pod in list((shared_driver.kubelet / "pods").iterdir()):
        if shared_driver.target(pod.name).exists():
            shared_driver.unpublish(pod.name)
    assert shared_driver.published() == []
    assert set(shared_driver.unfinished()) <= set(before)
    assert shared_driver.corrupt() == []


@pytest.fixture
def fake(shared_fake: FakeRegistry) -> Iterator[FakeRegistry]:
    """The module's registry, healthy again after each test."""
    yield shared_fake
    shared_fake.faults.clear()


@dataclass(frozen=True)
class Case:
    """What happens to requests for the blob, how the publish ends, and what its text says."""

    fault: Callable[[bytes], Fault]
    code: Code
    says: tuple[str, ...]
    told: dict[str, Any] = field(default_factory=dict)
    """What the manifest says of the blob instead of the truth."""


def _healthy(_: bytes) -> Fault:
    return Fault(times=0)


CASES = {
    "truncated": Case(lambda data: Fault(body=data[:-1]), Code.DATA_LOSS, ("299999", "300000")),
    "closed-early": Case(lambda _: Fault(close_after=0), Code.UNAVAILABLE, ("127.0.0.1",)),
    "flipped": Case(lambda data: Fault(body=data[:9] + bytes((data[9] ^ 1,)) + data[10:]), Code.DATA_LOSS, ("sha256",)),
    "overlong": Case(lambda data: Fault(body=data + b"x"), Code.DATA_LOSS, ("300001", "300000")),
    "overlong-untold": Case(lambda _: Fault(extra=b"x"), Code.DATA_LOSS, ("300000",)),
    "size-too-small": Case(_healthy, Code.DATA_LOSS, ("299999",), {"size": SIZE - 1}),
    "size-too-large": Case(_healthy, Code.DATA_LOSS, ("300001",), {"size": SIZE + 1}),
    "size-negative": Case(_healthy, Code.INVALID_ARGUMENT, ("size",), {"size": -1}),
    "digest-unknown": Case(_healthy, Code.NOT_FOUND, ("blob",), {"digest": NOWHERE}),
    "digest-md5": Case(_healthy, Code.INVALID_ARGUMENT, ("md5",), {"digest": f"md5:{'b' * 32}"}),
    "digest-climbing": Case(_healthy, Code.INVALID_ARGUMENT, ("digest",), {"digest": "sha256:../../../etc/passwd"}),
    "stalled": Case(lambda _: Fault(stall_after=0), Code.UNAVAILABLE, ("127.0.0.1",)),
    "hung-up": Case(lambda _: Fault(hang_up=True), Code.UNAVAILABLE, ("127.0.0.1",)),
    "status-503": Case(lambda _: Fault(status=503), Code.UNAVAILABLE, ("503",)),
    "status-429": Case(lambda _: Fault(status=429, headers={"Retry-After": "1"}), Code.UNAVAILABLE, ("429",)),
    "status-403": Case(lambda _: Fault(status=403), Code.PERMISSION_DENIED, ("status-403",)),
    "status-401": Case(lambda _: Fault(status=401), Code.UNAUTHENTICATED, ("nodePublishSecretRef",)),
    "circle": Case(lambda _: Fault(redirect="{path}"), Code.UNAVAILABLE, ("redirect",)),
    "other-range": Case(lambda _: Fault(content_range="bytes 5-9/300000", status=206), Code.DATA_LOSS, ("bytes",)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_that_stays_is_named(driver: Driver, fake: FakeRegistry, name: str) -> None:
    """It ends in the code that fits, with a text that says what was wrong; once it is mended the same pod gets its model."""
    case, data = CASES[name], os.urandom(SIZE)
    blob = fake.add_blob(data)
    layer = {"mediaType": "application/x", "digest": str(blob.digest), "size": SIZE, "annotations": {"org.opencontainers.image.title": "m"}}
    config = fake.add_blob(b"{}", mediatypes.OCI_EMPTY)
    described = {"mediaType": mediatypes.OCI_EMPTY, "digest": str(config.digest), "size": 2}
    document = {"artifactType": "application/x-test", "config": described, "layers": [{**layer, **case.told}]}
    fake.add_fault(case.fault(data))
    code, text = driver.refused(push_manifest(fake, f"llm/{name}", document))
    assert (code, [part for part in case.says if part not in text]) == (case.code, []), text
    print(f"{name}: {code.name}: {text}")
    fake.faults.clear()
    assert driver.publish(push_artifact(fake, f"llm/{name}", {"m": data}), pullPolicy="Always").joinpath("m").read_bytes() == data


PASSING: dict[str, Callable[[bytes], Fault]] = {
    "truncated-once": lambda data: Fault(body=data[: SIZE // 2], times=1),
    "flipped-once": lambda data: Fault(body=bytes(SIZE), times=1),
    "closed-early": lambda _: Fault(close_after=100_000, times=2),
    "reset": lambda _: Fault(reset_after=100_000, times=2),
    "stalled": lambda _: Fault(stall_after=100_000, times=1),
    "hung-up": lambda _: Fault(hang_up=True, times=1),
    "range-ignored": lambda _: Fault(close_after=200_000, ignore_range=True, times=2),
    "status-503": lambda _: Fault(status=503, times=2),
    "status-429": lambda _: Fault(status=429, headers={"Retry-After": "1"}, times=1),
    "slow-drip": lambda _: Fault(drip=(30_000, 0.3), times=1),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("packed", ["raw", "gzip"])
def test_a_fault_that_passes_is_not_seen(driver: Driver, fake: FakeRegistry, name: str, packed: str) -> None:
    """The publish succeeds after the driver's own retries, for what is stored as it comes and for what is decoded."""
    data = os.urandom(SIZE)
    if packed == "raw":
        reference = push_artifact(fake, f"ok/{packed}-{name}", {"m": data})
        blob = data
    else:
        tar = tar_of({"m": data})
        blob = gzip.compress(tar, 1)
        reference = push_tars(fake, f"ok/{packed}-{name}", blob, media_type=f"{OCI_TAR}+gzip", diff_ids=(tar,))
    fault = PASSING[name](blob)
    fault.where = str(Digest.of(blob))
    fake.add_fault(fault)
    assert driver.publish(reference).joinpath("m").read_bytes() == data
    assert fault.times == 0


def test_a_token_that_runs_out_in_mid_pull_is_renewed(driver: Driver, fake: FakeRegistry) -> None:
    """A 401 in the middle of a model costs one new token, and the volume does not notice."""
    files = {f"m{number}": os.urandom(SIZE) for number in range(3)}
    fake.auth = TokenAuth(users={USER: PASSWORD})
    try:
        reference = push_artifact(fake, "team/tokens", files)
        fake.add_fault(Fault(close_after=SIZE // 2, times=3))
        fake.add_fault(Fault(where="/blobs/", status=401, headers={"WWW-Authenticate": f'Bearer realm="{fake.url}/token"'}, times=1))
        target = driver.publish(reference, secrets=secret(fake.host))
        assert {path.name: path.read_bytes() for path in target.iterdir()} == files
        assert fake.auth.issued >= 2
    finally:
        fake.auth = None


def test_a_redirect_to_another_host_takes_no_password_along(driver: Driver, fake: FakeRegistry) -> None:
    """Blobs behind a redirect to storage, which has to be named if it speaks no TLS, are fetched there without an Authorization header."""
    data = os.urandom(SIZE)
    fake.auth = TokenAuth(users={USER: PASSWORD})
    try:
        with FakeRegistry() as storage:
            reference = push_artifact(fake, "team/redirected", {"m": data})
            storage.add_blob(data)
            elsewhere = f"localhost:{storage.port}"
            fake.add_fault(Fault(redirect=f"http://{elsewhere}{{path}}"))
            code, text = driver.refused(reference, secrets=secret(fake.host))
            assert (code, f"registries.{elsewhere}.plainHttp" in text) == (Code.PERMISSION_DENIED, True), text
            assert storage.seen == []
            driver.config["registries"][elsewhere] = {"plainHttp": True}
            driver.stop()
            driver.start()
            target = driver.publish(reference, secrets=secret(fake.host))
            assert target.joinpath("m").read_bytes() == data
            assert [seen.headers.get("authorization") for seen in storage.requests("/blobs/")] == [None]
    finally:
        fake.auth = None


REFUSED = {
    "a layout that is not allowed": ({"reference": "oci-layout:///etc:v1"}, Code.PERMISSION_DENIED, "layouts.allowedPrefixes"),
    "a layout that climbs": ({"reference": "oci-layout://{allowed}/../../etc:v1"}, Code.INVALID_ARGUMENT, ".."),
    "a chain of filesystems": ({"reference": "oci-layout+zip://x::file:///etc/x.zip:v1"}, Code.INVALID_ARGUMENT, "::"),
    "an unknown attribute": ({"insecure": "true"}, Code.INVALID_ARGUMENT, "'insecure'"),
    "a password in the reference": ({"reference": "user:word@registry.example/x:v1"}, Code.INVALID_ARGUMENT, "reference"),
    "no reference": ({"reference": ""}, Code.INVALID_ARGUMENT, "'reference' is missing"),
    "an unknown pull policy": ({"pullPolicy": "Sometimes"}, Code.INVALID_ARGUMENT, "IfNotPresent"),
    "a path that climbs": ({"path": "/a/../../etc"}, Code.INVALID_ARGUMENT, "path"),
    "a path that is not there": ({"path": "/models"}, Code.NOT_FOUND, "holds 'm'"),
    "a tag that is not there": ({"reference": "{host}/llm/attributes:v2"}, Code.NOT_FOUND, "v2"),
    "a registry that nobody answers at": ({"reference": "127.0.0.1:9/x:v1"}, Code.UNAVAILABLE, "127.0.0.1:9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_by_name(driver: Driver, fake: FakeRegistry, name: str) -> None:
    """Beside the keys that kubelet adds, an attribute that cannot be granted ends in its code and a text that names it."""
    given, code, says = REFUSED[name]
    good = push_artifact(fake, "llm/attributes", {"m": b"weights"})
    wanted: dict[str, Any] = {"reference": good, **given}
    wanted = {key: value.format(host=fake.host, allowed=f"{driver.folder.parent}/layouts") for key, value in wanted.items()}
    got, text = driver.refused(wanted.pop("reference"), **wanted)
    assert (got, says in text) == (code, True), text
    print(f"{name}: {got.name}: {text}")


def test_kubelets_and_the_provisioners_keys_are_no_attributes(driver: Driver, fake: FakeRegistry) -> None:
    """What the cluster adds to a volume's context, known or not, is not taken for a wrong attribute."""
    keys: dict[str, Any] = {
        "storage.kubernetes.io/csiProvisionerIdentity": "1-csi-model",
        "csi.storage.k8s.io/pv/name": "pvc-1",
        "csi.storage.k8s.io/new": "",
    }
    assert driver.publish(push_artifact(fake, "llm/keys", {"m": b"weights"}), **keys).joinpath("m").exists()


def test_a_target_outside_kubelets_directory_is_refused(driver: Driver, fake: FakeRegistry) -> None:
    """Neither a path elsewhere nor one that leads through a symlink becomes a mount point."""
    reference = push_artifact(fake, "llm/attributes", {"m": b"weights"})
    outside = driver.folder / "outside"
    outside.mkdir()
    link = driver.kubelet / "pods" / "link"
    link.symlink_to(outside)
    for target in (outside / "mount", link / "mount", driver.kubelet / "pods" / ".." / ".." / "outside" / "mount"):
        with pytest.raises(grpc.RpcError) as failure:
            driver.publish(reference, target=target)
        assert failure.value.code() is Code.INVALID_ARGUMENT
    assert list(outside.iterdir()) == []
    link.unlink()
