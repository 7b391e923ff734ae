"""csi_model.oci.platform."""

from __future__ import annotations

import platform as machine

import pytest

from csi_model.errors import InvalidRequestError, NotFoundError
from csi_model.oci import mediatypes
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.oci.platform import Platform, choose

AMD64 = Platform("linux", "amd64")


def entry(
    platform: str | None, *, media_type: str = mediatypes.OCI_MANIFEST, artifact_type: str | None = None, note: str = ""
) -> Descriptor:
    """An entry of an index, told apart by its digest."""
    parts = platform.split("/") if platform else []
    annotations = {"vnd.docker.reference.type": note} if note else {}
    return Descriptor(
        media_type,
        Digest.of(f"{platform} {media_type} {artifact_type} {note}".encode()),
        1,
        annotations,
        artifact_type,
        Platform.of(*parts) if parts else None,
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64"),
        ({"os": "Linux", "architecture": "x86_64"}, "linux/amd64"),
        ({"os": "linux", "architecture": "amd64", "variant": "v1"}, "linux/amd64"),
        ({"os": "linux", "architecture": "amd64", "variant": "v3"}, "linux/amd64/v3"),
        ({"os": "linux", "architecture": "aarch64"}, "linux/arm64"),
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64"),
        ({"os": "linux", "architecture": "arm64", "variant": "8"}, "linux/arm64"),
        ({"os": "linux", "architecture": "arm64", "variant": "v9"}, "linux/arm64/v9"),
        ({"os": "linux", "architecture": "arm"}, "linux/arm/v7"),
        ({"os": "linux", "architecture": "armhf"}, "linux/arm/v7"),
        ({"os": "linux", "architecture": "armel"}, "linux/arm/v6"),
        ({"os": "linux", "architecture": "arm", "variant": "6"}, "linux/arm/v6"),
        ({"os": "linux", "architecture": "armv7l"}, "linux/arm/v7"),
        ({"os": "linux", "architecture": "i686"}, "linux/386"),
        ({"os": "linux", "architecture": "riscv64"}, "linux/riscv64"),
        ({}, "unknown/unknown"),
        ({"os": "", "architecture": None}, "unknown/unknown"),
    ],
)
def test_platforms_are_normalised(value: dict[str, object], expected: str) -> None:
    """Spellings of one processor become one platform."""
    assert str(Platform.parse(value, "it")) == expected


def test_versions_and_features_are_kept() -> None:
    """What Windows images say of their system is read."""
    value = {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["win32k"]}
    assert Platform.parse(value, "it") == Platform("windows", "amd64", None, "10.0.1", ("win32k",))


@pytest.mark.parametrize("value", [None, [], {"os": 1}, {"variant": []}, {"os.features": "x"}, {"os.features": [1]}])
def test_malformed_platforms_are_refused(value: object) -> None:
    """A platform is an object of strings."""
    with pytest.raises(InvalidRequestError, match="platform of it"):
        Platform.parse(value, "it")


@pytest.mark.parametrize(("uname", "expected"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv6l", "linux/arm/v6")])
def test_the_host_is_what_uname_says(monkeypatch: pytest.MonkeyPatch, uname: str, expected: str) -> None:
    """This machine's platform is Linux on the processor that the kernel names."""
    monkeypatch.setattr(machine, "machine", lambda: uname)
    assert str(Platform.host()) == expected


@pytest.mark.parametrize(
    ("host", "offered", "expected"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64", "linux/amd64/v3"], "linux/amd64"),
        ("linux/amd64", ["windows/amd64", "linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v4"], "linux/amd64"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v9", ["linux/arm64"], "linux/arm64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], "linux/arm/v6"),
        ("linux/ppc64le", ["linux/ppc64le"], "linux/ppc64le"),
        ("linux/odd/special", ["linux/odd"], "linux/odd"),
    ],
)
def test_the_best_variant_is_chosen(host: str, offered: list[str], expected: str) -> None:
    """The entry with the highest variant that this processor still runs wins."""
    assert choose(Platform.of(*host.split("/")), [entry(offer) for offer in offered]) == entry(expected)


def test_the_first_of_equals_is_chosen() -> None:
    """With two entries for one platform, the first is taken."""
    first, second = entry("linux/amd64"), entry("linux/amd64", media_type=mediatypes.DOCKER_MANIFEST)
    assert choose(AMD64, [first, second]) is first
    assert choose(AMD64, [second, first]) is second


def test_what_is_no_image_is_passed_over() -> None:
    """Attestations, SOCI's index for the same platform and unknown media types never win over the image."""
    image = entry("linux/amd64")
    entries = [
        entry("unknown/unknown", note="attestation-manifest"),
        entry("linux/amd64", note="attestation-manifest"),
        entry("linux/amd64", artifact_type="application/vnd.amazon.soci.index.v2+json"),
        entry("linux/amd64", media_type="application/vnd.acme.thing+json"),
        image,
    ]
    assert choose(AMD64, entries) is image


def test_a_lone_entry_needs_no_platform() -> None:
    """An artifact, or a nested index, that is alone without a platform is taken, attestations beside it or not."""
    model = entry(None, artifact_type="application/vnd.cncf.model.manifest.v1+json")
    nested = entry(None, media_type=mediatypes.OCI_INDEX)
    assert choose(AMD64, [model]) is model
    assert choose(AMD64, [entry("unknown/unknown", note="attestation-manifest"), nested]) is nested
    assert choose(AMD64, [entry("linux/s390x"), nested]) is nested


def test_a_matching_entry_wins_over_one_without_platform() -> None:
    """An entry that names the platform is preferred to one that names none."""
    named = entry("linux/amd64")
    assert choose(AMD64, [entry(None), named]) is named


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([], "no manifest at all"),
        ([entry("linux/amd64", note="attestation-manifest")], "no manifest at all"),
        ([entry("linux/arm64"), entry("windows/amd64")], "nothing for linux/amd64; it offers linux/arm64, windows/amd64"),
        ([entry("linux/amd64/v2")], "offers linux/amd64/v2"),
        ([entry(None), entry(None, media_type=mediatypes.OCI_INDEX)], "2 manifests without a platform"),
    ],
)
def test_nothing_suitable_is_said_with_what_there_is(entries: list[Descriptor], why: str) -> None:
    """When no entry fits, the message lists what the index offers."""
    with pytest.raises(NotFoundError, match=why):
        choose(AMD64, entries)
