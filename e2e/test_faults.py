"""Registries that lie and break, and requests that nobody may make: the code, the text, and nothing left behind."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from tests.fakes.models import push_artifact, push_manifest, push_tars, tar_of
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault, TokenAuth
from tests.volumes.conftest import PASSWORD, USER, secret

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.driver import Driver

DATA = os.urandom(300_000)
FILES = {"model.bin": DATA}


def _refused(driver: Driver, reference: str, **more: object) -> tuple[grpc.StatusCode, str]:
    """The code and text of a publish that fails and leaves nothing."""
    with pytest.raises(grpc.RpcError) as failure:
        driver.publish(reference, **more)  # type: ignore[arg-type]
    assert not driver.target("a").exists()
    assert driver.mounts() == []
    error = failure.value
    return error.code(), error.details()


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (Fault(body=DATA[:-1]), "DATA_LOSS", "300000"),
        (Fault(body=DATA[:-1] + bytes([DATA[-1] ^ 1])), "DATA_LOSS", "sha256"),
        (Fault(body=DATA + b"!"), "DATA_LOSS", "300000"),
        (Fault(status=503), "UNAVAILABLE", "503"),
        (Fault(status=429, headers={"Retry-After": "0"}), "UNAVAILABLE", "429"),
        (Fault(hang_up=True), "UNAVAILABLE", ""),
        (Fault(reset_after=0), "UNAVAILABLE", ""),
        (Fault(status=404), "NOT_FOUND", ""),
        (Fault(status=403), "PERMISSION_DENIED", ""),
        (Fault(status=401), "UNAUTHENTICATED", ""),
        (Fault(where="/manifests/", status=404), "NOT_FOUND", "llm/raw"),
        (Fault(where="/manifests/", body=b"{}"), "DATA_LOSS|INVALID_ARGUMENT", ""),
    ],
    ids=["truncated", "flipped", "overlong", "503", "429", "hang-up", "reset", "404", "403", "401", "no-tag", "lying-manifest"],
)
def test_a_registry_that_fails_for_good(driver: Driver, fake: FakeRegistry, fault: Fault, code: str, text: str) -> None:
    """Each failure has its code; once the registry is well again the same publish succeeds."""
    reference = push_artifact(fake, "llm/raw", FILES)
    fake.add_fault(fault)
    driver.start()
    answered, said = _refused(driver, reference)
    assert answered.name in code.split("|"), said
    assert text in said
    fake.faults.clear()
    assert driver.publish(reference).joinpath("model.bin").read_bytes() == DATA
    driver.unpublish()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, times=2),
        Fault(status=429, headers={"Retry-After": "1"}, times=1),
        Fault(reset_after=100_000, times=2),
        Fault(close_after=100_000, times=2),
        Fault(stall_after=100_000, times=1),
        Fault(body=bytes(300_000), times=1),
    ],
    ids=["503", "429", "reset", "closed", "stall", "flipped-once"],
)
def test_a_registry_that_recovers(driver: Driver, fake: FakeRegistry, fault: Fault) -> None:
    """A passing failure costs a retry and nothing else."""
    reference = push_artifact(fake, "llm/raw", FILES)
    fake.add_fault(fault)
    driver.config["pull"]["stallTimeout"] = "1s"
    driver.start()
    assert driver.publish(reference).joinpath("model.bin").read_bytes() == DATA
    driver.unpublish()


def test_a_dropped_compressed_layer_is_resumed_in_the_process(driver: Driver, fake: FakeRegistry) -> None:
    """A gzip layer whose connection breaks twice goes on from where it was."""
    import gzip

    tar = tar_of(FILES)
    packed = gzip.compress(tar, mtime=0)
    reference = push_tars(fake, "llm/car", packed, media_type="application/vnd.oci.image.layer.v1.tar+gzip", diff_ids=(tar,))
    fake.add_fault(Fault(reset_after=100_000, times=2, where=str(Digest.of(packed))))
    driver.start()
    assert driver.publish(reference).joinpath("model.bin").read_bytes() == DATA
    assert len([seen for seen in fake.requests(str(Digest.of(packed))) if "range" in seen.headers]) == 2
    driver.unpublish()


def test_a_token_that_runs_out_is_renewed(driver: Driver) -> None:
    """When a token is refused in the middle of a pull, one new token is asked for and the pull goes on."""
    auth = TokenAuth(users={USER: PASSWORD})
    with FakeRegistry(auth=auth) as registry:
        driver.config["registries"] = {registry.host: {"plainHttp": True}}
        reference = push_artifact(registry, "llm/raw", FILES)
        registry.add_fault(Fault(status=401, headers={"WWW-Authenticate": f'Bearer realm="{registry.url}/token",service="x"'}, times=1))
        driver.start()
        assert driver.publish(reference, secrets=secret(registry.host)).joinpath("model.bin").read_bytes() == DATA
        driver.unpublish()
    assert PASSWORD not in driver.log


def test_a_redirect_carries_no_credentials(driver: Driver, fake: FakeRegistry) -> None:
    """A blob that lies on another host is fetched there, without the registry's Authorization."""
    with FakeRegistry(auth=BasicAuth({USER: PASSWORD})) as front:
        driver.config["registries"][front.host] = {"plainHttp": True}
        reference = push_artifact(front, "llm/raw", FILES)
        push_artifact(fake, "llm/raw", FILES)
        front.add_fault(Fault(redirect=f"{fake.url}{{path}}"))
        driver.start()
        assert driver.publish(reference, secrets=secret(front.host)).joinpath("model.bin").read_bytes() == DATA
        assert all("authorization" not in seen.headers for seen in fake.seen)
        driver.unpublish()


def test_a_manifest_that_lies_about_sizes(driver: Driver, fake: FakeRegistry) -> None:
    """A layer that is longer or shorter than its manifest says is refused."""
    blob = fake.add_blob(DATA)
    config = fake.add_blob(b"{}", mediatypes.OCI_EMPTY)
    for size in (len(DATA) - 1, len(DATA) + 1):
        layer = {
            "mediaType": blob.media_type,
            "digest": str(blob.digest),
            "size": size,
            "annotations": {"org.opencontainers.image.title": "model.bin"},
        }
        described = {"mediaType": config.media_type, "digest": str(config.digest), "size": config.size}
        document = {"artifactType": "application/x-test", "config": described, "layers": [layer]}
        reference = push_manifest(fake, "llm/liar", json.loads(json.dumps(document)), tag=f"v{size}")
        if driver.process is None:
            driver.start()
        assert _refused(driver, reference)[0] is grpc.StatusCode.DATA_LOSS


@pytest.mark.parametrize(
    ("reference", "attributes", "code", "text"),
    [
        ("oci-layout:///etc:v1", {}, "PERMISSION_DENIED|INVALID_ARGUMENT", "allowedPrefixes"),
        ("oci-layout+simplecache::file:///srv/x:v1", {}, "INVALID_ARGUMENT", "::"),
        ("r.example/a:v1", {"insecure": "true"}, "INVALID_ARGUMENT", "insecure"),
        ("r.example/a:v1", {"path": "../.."}, "INVALID_ARGUMENT", ".."),
        ("r.example/UPPER:v1", {}, "INVALID_ARGUMENT", "capitals"),
        ("", {}, "INVALID_ARGUMENT", "reference"),
    ],
    ids=["layout", "chain", "attribute", "path", "capitals", "missing"],
)
def test_requests_that_nobody_may_make(driver: Driver, reference: str, attributes: dict[str, str], code: str, text: str) -> None:
    """Each is refused with a text that names the thing, beside the keys that kubelet adds."""
    driver.start()
    answered, said = _refused(driver, reference, **attributes)
    assert answered.name in code.split("|"), said
    assert text in said


def test_a_layout_under_an_allowed_prefix(driver: Driver, folder: Path) -> None:
    """An OCI layout that the configuration allows is published like a registry's model."""
    from e2e import packing

    model = folder / "model"
    model.mkdir()
    (model / "model.bin").write_bytes(DATA)
    layout = packing.write_layout(folder / "layouts" / "tiny", model)
    driver.config["layouts"] = {"allowedPrefixes": [f"oci-layout://{folder}/layouts/"]}
    driver.start()
    assert driver.publish(f"oci-layout://{layout}:v1").joinpath("model.bin").read_bytes() == DATA
    driver.unpublish()
