"""Private models: who may see what is on the node, and what is never written down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi_model.oci.digest import Digest
from e2e import packing
from e2e.registry import running_registry
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault
from tests.volumes.conftest import PASSWORD, USER, secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.driver import Driver
    from e2e.registry import Registry

FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000}
REFUSED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def car(module_folder: Path) -> Path:
    """An OCI layout that holds a tiny Modelcar-style image, made by umoci."""
    model = module_folder / "model"
    model.mkdir()
    for name, data in FILES.items():
        (model / name).write_bytes(data)
    return packing.image_layout(model, module_folder)


@pytest.fixture(params=["http", "tls"])
def guarded(request: pytest.FixtureRequest, folder: Path, driver: Driver) -> Iterator[Registry]:
    """Debian's docker-registry with Basic authentication, over HTTP or over TLS with a CA of its own."""
    tls = request.param == "tls"
    with running_registry(folder / "guarded", username=USER, password=PASSWORD, tls=tls) as registry:
        driver.config["registries"] = {registry.host: {"caFile": str(registry.ca_file)} if tls else {"plainHttp": True}}
        yield registry


def test_each_volume_needs_its_own_right(driver: Driver, guarded: Registry, car: Path) -> None:
    """Missing and wrong secrets are refused, before and after the model is on the node; the right one is served from the cache."""
    reference = packing.push_image(guarded, "team/secret", car)
    driver.start()
    wrong = secret(guarded.host, password="wrong horse")
    elsewhere = secret("registry.example")
    for secrets in ({}, wrong, elsewhere):
        code, text = driver.refused(reference, secrets=secrets)
        assert (code, guarded.host in text) == (REFUSED, True), text
    target = driver.publish(reference, "a", secrets=secret(guarded.host), path="/models")
    assert packing.checksums(target) == {name: Digest.of(data).hex for name, data in FILES.items()}
    for name, secrets in (("b", {}), ("c", wrong)):
        assert driver.refused(reference, name, secrets=secrets, path="/models")[0] is REFUSED
    pulled = guarded.requests("GET /v2/team/secret/blobs")
    driver.publish(reference, "d", secrets=secret(guarded.host), path="/models")
    assert guarded.requests("GET /v2/team/secret/blobs") == pulled


def test_a_certificate_that_nobody_vouches_for_is_refused(driver: Driver, folder: Path, car: Path) -> None:
    """Without the CA file in the configuration the registry is not spoken to, and the message names the key to set."""
    with running_registry(folder / "guarded", username=USER, password=PASSWORD, tls=True) as registry:
        reference = packing.push_image(registry, "team/secret", car)
        driver.start()
        code, text = driver.refused(reference, secrets=secret(registry.host))
    assert (code, "caFile" in text) == (grpc.StatusCode.UNAVAILABLE, True), text


def test_nothing_secret_is_logged(driver: Driver, guarded: Registry, car: Path) -> None:
    """Neither passwords, right or wrong, nor tokens of service accounts reach the log at debug level or any answer."""
    reference = packing.push_image(guarded, "team/secret", car)
    driver.start()
    tokens: dict[str, Any] = {"csi.storage.k8s.io/serviceAccount.tokens": '{"aud":{"token":"canary-token"}}'}
    driver.publish(reference, secrets=secret(guarded.host), **tokens)
    _, text = driver.refused(reference, "b", secrets=secret(guarded.host, password="canary-wrong"), **tokens)
    _, malformed = driver.refused(reference, "c", secrets={".dockerconfigjson": '{"auths": {"canary-broken'}, **tokens)
    _, url = driver.refused(f"https://{USER}:canary-url@{guarded.host}/x:v1", "d")
    driver.stop()
    encoded = next(iter(secret(guarded.host).values())).split('"auth": "')[1].split('"')[0]
    told = driver.log + text + malformed + url
    assert '"level": "debug"' in told
    for canary in (PASSWORD, encoded, "canary-token", "canary-wrong", "canary-broken", "canary-url"):
        assert canary not in told


@pytest.fixture
def two(driver: Driver) -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    """A victim's registry, which asks for a password, and an attacker's, which does not."""
    with FakeRegistry(auth=BasicAuth({USER: PASSWORD})) as victim, FakeRegistry() as attacker:
        driver.config["registries"] = {registry.host: {"plainHttp": True} for registry in (victim, attacker)}
        yield victim, attacker


def test_knowing_a_layers_digest_gives_no_right_to_it(driver: Driver, two: tuple[FakeRegistry, FakeRegistry]) -> None:
    """An attacker's manifest that names a private layer gets nothing, whether their registry lacks the layer or makes bytes up."""
    victim, attacker = two
    layer = tar_of(FILES)
    driver.start()
    driver.publish(push_tars(victim, "team/secret", layer), "a", secrets=secret(victim.host))
    stolen = push_tars(attacker, "thief/copy", layer)
    where = f"/blobs/{Digest.of(layer)}"
    missing = attacker.add_fault(Fault(where=where, status=404))
    assert driver.refused(stolen, "b")[0] is grpc.StatusCode.NOT_FOUND
    attacker.faults.remove(missing)
    attacker.add_fault(Fault(where=where, body=bytes(len(layer))))
    assert driver.refused(stolen, "c")[0] is grpc.StatusCode.DATA_LOSS
    attacker.faults.clear()
    assert driver.publish(stolen, "d").joinpath("model.bin").read_bytes() == FILES["model.bin"], "who has the layer has the right"


def test_knowing_a_manifests_digest_gives_no_right_to_it(driver: Driver, two: tuple[FakeRegistry, FakeRegistry]) -> None:
    """An attacker's registry may claim to have a private manifest, or even serve it: without its layers that is worth nothing."""
    victim, attacker = two
    layer = tar_of(FILES)
    driver.start()
    driver.publish(push_tars(victim, "team/secret", layer), "a", secrets=secret(victim.host))
    ((_, (media_type, body)),) = [item for item in victim.manifests.items() if item[0][1] == "v1"]
    attacker.blobs.update({digest: data for digest, data in victim.blobs.items() if digest != str(Digest.of(layer))})
    attacker.add_manifest("thief/copy", body, tag="v1", media_type=media_type)
    for number, reference in enumerate((f"thief/copy@{Digest.of(body)}", "thief/copy:v1")):
        assert driver.refused(f"{attacker.host}/{reference}", f"b{number}")[0] is grpc.StatusCode.NOT_FOUND


def test_a_right_to_one_file_is_no_right_to_the_next(driver: Driver, two: tuple[FakeRegistry, FakeRegistry]) -> None:
    """An attacker's manifest names a file of theirs and a private one: pulling the first earns no cached copy of the second."""
    victim, attacker = two
    driver.start()
    private = {"config.json": b"{}", "model.bin": FILES["model.bin"]}
    driver.publish(push_artifact(victim, "team/secret", private), "a", secrets=secret(victim.host))
    missing = Fault(where=f"/blobs/{Digest.of(private['model.bin'])}", status=404)
    attacker.add_fault(missing)
    mixed = push_artifact(attacker, "thief/mixed", {"mine": b"my own", "theirs": private["model.bin"]})
    driver.publish(mixed, "b", include="mine")
    assert driver.refused(mixed, "c")[0] is grpc.StatusCode.NOT_FOUND
    copied = push_artifact(attacker, "thief/copied", private)
    driver.publish(copied, "d", include="config.json")
    assert driver.refused(copied, "e")[0] is grpc.StatusCode.NOT_FOUND
    assert driver.refused(push_artifact(victim, "team/secret", private), "f")[0] is REFUSED, "it is as private as before"


def test_what_a_kill_interrupted_is_as_private_as_the_rest(driver: Driver, two: tuple[FakeRegistry, FakeRegistry]) -> None:
    """A private layer whose pull was killed before its model was recorded, or before it was content, is nobody else's."""
    victim, attacker = two
    data = os.urandom(9 << 20)
    whole = {"model.bin": data}
    attacker.add_fault(Fault(where=f"/blobs/{Digest.of(data)}", status=404))
    for step in ("commit.sealed", "commit.durable", "pull.layers"):
        driver.start(CSI_MODEL_KILL_AT=step)
        with pytest.raises(grpc.RpcError):
            driver.publish(push_artifact(victim, "team/secret", whole), "a", secrets=secret(victim.host))
        assert driver.died()
        driver.start()
        assert driver.refused(push_artifact(attacker, "thief/whole", whole), f"b-{step}")[0] is grpc.StatusCode.NOT_FOUND
        driver.kill()
