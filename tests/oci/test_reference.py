"""csi_model.oci.reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.oci.reference import LayoutReference, Reference, parse_reference

HEX = "0123456789abcdef" * 4
SHA = f"sha256:{HEX}"
DIGEST = Digest.parse(SHA)

REGISTRIES = st.from_regex(r"([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\.){1,3}[a-z]{2,5}(:[1-9][0-9]{0,3})?", fullmatch=True)
COMPONENTS = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
DIGESTS = st.binary().map(Digest.of)
NAMES = st.from_regex(r"[A-Za-z0-9_@:,+ =~-][A-Za-z0-9_.,+=~-]{0,10}[A-Za-z0-9_]", fullmatch=True).filter(lambda name: " " not in name)


@given(REGISTRIES, st.lists(COMPONENTS, min_size=1, max_size=4), st.none() | TAGS, st.none() | DIGESTS)
def test_registry_references_survive_text(registry: str, components: list[str], tag: str | None, digest: Digest | None) -> None:
    """A reference parses from its own text, with or without oci:// before it."""
    if tag is None and digest is None:
        tag = "latest"
    reference = Reference(registry, "/".join(components), tag, digest)
    assert parse_reference(str(reference)) == reference
    assert parse_reference(f"oci://{reference}") == reference


@given(
    st.sampled_from(["file://", "s3://bucket", "memory://", "http://host.example:8080"]),
    st.lists(NAMES, min_size=1, max_size=4),
    st.none() | TAGS,
    st.none() | DIGESTS,
)
def test_layout_references_survive_text(root: str, components: list[str], tag: str | None, digest: Digest | None) -> None:
    """A layout reference parses from its own text; colons and at signs are free in all but the last name."""
    last = components[-1].replace(":", "").replace("@", "") or "x"
    reference = LayoutReference("/".join([root, *components[:-1], last]), tag, digest)
    if "::" not in reference.url:
        assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("busybox", "docker.io", "library/busybox", "latest", None),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", None),
        ("ai/smollm2", "docker.io", "ai/smollm2", "latest", None),
        ("docker.io/busybox", "docker.io", "library/busybox", "latest", None),
        ("index.docker.io/a/b:c", "docker.io", "a/b", "c", None),
        ("oci-layout:v1", "docker.io", "library/oci-layout", "v1", None),
        ("localhost/x", "localhost", "x", "latest", None),
        ("localhost:5000/x:y", "localhost:5000", "x", "y", None),
        ("127.0.0.1:5000/x", "127.0.0.1:5000", "x", "latest", None),
        ("[::1]:5000/x/y:z", "[::1]:5000", "x/y", "z", None),
        ("[fd00::1]/x", "[fd00::1]", "x", "latest", None),
        ("Registry/x", "Registry", "x", "latest", None),
        ("ghcr.io/a/b__c/d--e.f_g:T", "ghcr.io", "a/b__c/d--e.f_g", "T", None),
        (f"ghcr.io/a/b@{SHA}", "ghcr.io", "a/b", None, DIGEST),
        (f"ghcr.io/a/b:v1@{SHA}", "ghcr.io", "a/b", "v1", DIGEST),
        (f"oci://ghcr.io/a/b@sha512:{HEX}{HEX}", "ghcr.io", "a/b", None, Digest("sha512", HEX + HEX)),
        (f"ghcr.io/a/b:{'t' * 128}", "ghcr.io", "a/b", "t" * 128, None),
        (f"ghcr.io/{'r' * 255}", "ghcr.io", "r" * 255, "latest", None),
        (f"ghcr.io/{HEX}", "ghcr.io", HEX, "latest", None),
    ],
)
def test_registry_references(text: str, registry: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    """Docker's naming rules: when the first component is a host, what Docker Hub's short names stand for, and the default tag."""
    assert parse_reference(text) == Reference(registry, repository, tag, digest)


def test_where_a_registry_answers() -> None:
    """Docker Hub's API has a host of its own; every other registry is its own host, and a name carries neither tag nor digest."""
    hub, other = parse_reference("busybox"), parse_reference(f"r.example:5000/x:y@{SHA}")
    assert isinstance(hub, Reference)
    assert isinstance(other, Reference)
    assert (hub.host, hub.name) == ("registry-1.docker.io", "docker.io/library/busybox")
    assert (other.host, other.name) == ("r.example:5000", "r.example:5000/x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "1 to 4096"),
        ("x" * 4097, "1 to 4096"),
        ("a b", "no spaces"),
        ("busybox\n", "printable"),
        ("bücher/x", "ASCII"),
        (HEX, "digest alone"),
        (SHA, "digest alone"),
        ("oci://" + HEX.upper(), "digest alone"),
        ("ghcr.io/Org/Repo", "lower-case"),
        ("Busybox", "lower-case"),
        ("ghcr.io/", "not a repository"),
        ("ghcr.io//x", "not a repository"),
        ("/x", "not a repository"),
        ("ghcr.io/x/", "not a repository"),
        ("ghcr.io/-x", "not a repository"),
        ("ghcr.io/x-", "not a repository"),
        ("ghcr.io/a..b", "not a repository"),
        ("ghcr.io/a___b", "not a repository"),
        ("ghcr.io/../x", "not a repository"),
        (f"ghcr.io/{'r' * 256}", "256 characters"),
        ("ghcr.io/x:", "a tag has"),
        ("ghcr.io/x:-y", "a tag has"),
        ("ghcr.io/x:a:b", "a tag has"),
        (f"ghcr.io/x:{'t' * 129}", "a tag has"),
        ("-bad.example/x", "not a registry host"),
        ("bad_host.example/x", "not a registry host"),
        ("host.example:0/x", "not a registry host"),
        ("host.example:65536/x", "not a registry host"),
        ("host.example:port/x", "not a registry host"),
        ("[::1/x", "not a registry host"),
        ("[1:2]/llm/tiny:v1", "not a registry host"),
        ("[12345::1]:5000/x", "not a registry host"),
        ("[:]/x", "not a registry host"),
        (f"{'a.' * 140}example/x", "not a registry host"),
        ("ghcr.io/x@", "not a digest"),
        (f"ghcr.io/x@sha256:{HEX.upper()}", "not a digest"),
        (f"ghcr.io/x@{SHA}@{SHA}", "not a digest"),
        (f"ghcr.io/x@{SHA}:tag", "not a digest"),
        ("https://ghcr.io/x", "https:// is not supported"),
        ("docker://busybox", "docker:// is not supported"),
        ("OCI://busybox", "OCI:// is not supported"),
        ("hf://org/model", "hf:// is not supported"),
        ("oci-layout://srv/x", "three slashes"),
        ("oci-layout+s3:///x:-y", "a layout's tag"),
        ("oci-layout:///x:", "a layout's tag"),
        ("oci-layout:///x@latest", "not a digest"),
        ("oci-layout+zip::file:///x.zip", "chains"),
        ("oci-layout+simplecache::s3://b/x", "chains"),
        ("oci-layout:///a::b/c", "chains"),
        ("OCI-LAYOUT:///x", "is written oci-layout:///"),
        ("oci-layout-v2:///x", "is written oci-layout:///"),
        ("oci-layout:///a/../b", "'..' component"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(text: str, why: str) -> None:
    """Each malformed reference is refused, and the message says what is wrong with it."""
    with pytest.raises(InvalidRequestError, match=why):
        parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2@ghcr.io/x",
        "https://user:hunt/er2:hunter2@ghcr.io/x",
        "https://bucket.example/x?X-Amz-Signature=hunter2",
        "https://user:hunter2@ghcr.io/x with spaces",
        "user:hunter2@ghcr.io/x",
        "registry.example/x?sig=hunter2",
        "registry.example/x@hunter2",
        "oci-layout+ftp://user:hunter2@host.example/x",
        "oci-layout+https://host.example/x?token=hunter2",
        "oci-layout+zip::https://user:hunter2@host.example/x",
    ],
)
def test_a_pasted_secret_is_not_repeated(text: str) -> None:
    """A password or signature inside what was pasted as a reference does not reach the error message."""
    with pytest.raises(InvalidRequestError) as raised:
        parse_reference(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "url", "tag", "digest"),
    [
        ("oci-layout:///srv/models/tiny", "file:///srv/models/tiny", None, None),
        ("oci-layout:///srv/models/tiny:v1", "file:///srv/models/tiny", "v1", None),
        ("oci-layout:///srv/a:b/tiny:1.0+cu12", "file:///srv/a:b/tiny", "1.0+cu12", None),
        (f"oci-layout:///srv/tiny@{SHA}", "file:///srv/tiny", None, DIGEST),
        (f"oci-layout:///srv/tiny:v1@{SHA}", "file:///srv/tiny", "v1", DIGEST),
        ("oci-layout:///srv/tiny/:v1", "file:///srv/tiny", "v1", None),
        ("oci-layout:///srv/tiny/", "file:///srv/tiny", None, None),
        ("oci-layout+file:///srv/tiny", "file:///srv/tiny", None, None),
        ("oci-layout+local:///srv/tiny", "file:///srv/tiny", None, None),
        ("oci-layout+s3://bucket/dir/tiny:v1", "s3://bucket/dir/tiny", "v1", None),
        ("oci-layout+s3://bucket", "s3://bucket/", None, None),
        ("oci-layout+s3://bucket/:v1", "s3://bucket/", "v1", None),
        ("oci-layout+http://host:8080", "http://host:8080/", None, None),
        ("oci-layout+http://host:8080/tiny", "http://host:8080/tiny", None, None),
        ("oci-layout+memory://tiny:v1", None, None, None),
    ],
)
def test_layout_references(text: str, url: str | None, tag: str | None, digest: Digest | None) -> None:
    """The tag follows the last colon after the last slash of the path; what follows the host alone is a port, so a bare word is refused."""
    if url is None:
        with pytest.raises(InvalidRequestError):
            parse_reference(text)
    else:
        assert parse_reference(text) == LayoutReference(url, tag, digest)


@pytest.mark.parametrize(
    ("text", "prefix", "expected"),
    [
        ("oci-layout:///srv/models/tiny:v1", "oci-layout:///srv/models/", True),
        ("oci-layout:///srv/models/tiny", "oci-layout:///srv/models", True),
        ("oci-layout:///srv/models", "oci-layout:///srv/models/", True),
        ("oci-layout:///srv/models-private/x", "oci-layout:///srv/models", False),
        ("oci-layout:///srv", "oci-layout:///srv/models", False),
        ("oci-layout:///etc/x", "oci-layout:///", True),
        ("oci-layout+file:///srv/models/x", "oci-layout:///srv/models", True),
        ("oci-layout+s3://bucket/a/b", "oci-layout+s3://bucket/a", True),
        ("oci-layout+s3://bucket/a/b", "oci-layout+s3://bucket", True),
        ("oci-layout+s3://bucket2/a/b", "oci-layout+s3://bucket", False),
        ("oci-layout+gs://bucket/a/b", "oci-layout+s3://bucket/a", False),
        ("oci-layout+s3://srv/models/x", "oci-layout:///srv/models", False),
    ],
)
def test_prefixes_allow_by_whole_components(text: str, prefix: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A prefix allows itself and what is below it on the same filesystem and host, and no sibling that starts alike."""
    reference = parse_reference(text)
    assert isinstance(reference, LayoutReference)
    assert reference.is_below(prefix) is expected


def test_a_prefix_that_is_no_layout_url_is_refused() -> None:
    """A misspelled prefix is an error, never a prefix that matches nothing or everything."""
    reference = parse_reference("oci-layout:///srv/x")
    assert isinstance(reference, LayoutReference)
    with pytest.raises(InvalidRequestError):
        reference.is_below("/srv")
