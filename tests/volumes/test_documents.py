"""Documents on their way to a mount: which manifest of an index is taken, which is refused, and what damage to a stored one means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import NotFoundError, UnsupportedError
from csi_model.oci.manifest import Manifest, parse_document
from csi_model.oci.platform import Platform
from tests.fakes.models import push_index, push_manifest, push_tars, tar_of

if TYPE_CHECKING:
    from tests.fakes.models import Entry
    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

HOST = str(Platform.host())
OTHER = "linux/s390x" if HOST != "linux/s390x" else "linux/amd64"


def _image(registry: FakeRegistry, platform: str, name: str) -> Entry:
    """An image of one file that is called ``name``, as an index lists it."""
    push_tars(registry, "llm/indexed", tar_of({name: name.encode()}), tag=name)
    return _entry(registry, name, platform)


def _entry(registry: FakeRegistry, tag: str, platform: str, **more: object) -> Entry:
    media_type, body = registry.manifests["llm/indexed", tag]
    descriptor = registry.add_manifest("llm/indexed", body, media_type=media_type)
    os, architecture, *variant = platform.split("/")
    said = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
    return {"mediaType": media_type, "digest": str(descriptor.digest), "size": descriptor.size, "platform": said, **more}


def _attestation(registry: FakeRegistry) -> Entry:
    """What BuildKit writes beside each image."""
    made = _image(registry, "unknown/unknown", "attestation")
    return {**made, "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": "sha256:0"}}


def _soci(registry: FakeRegistry) -> Entry:
    """What SOCI adds to an index: an artifact that claims the image's platform."""
    made = _image(registry, HOST, "soci")
    return {**made, "artifactType": "application/vnd.amazon.soci.index.v2+json"}


def test_an_index_in_an_index_leads_to_this_nodes_image(node: Node, registry: FakeRegistry) -> None:
    """Attestations, artifacts that claim the platform and other platforms are passed over, at each level; what is left is published."""
    inner = [_attestation(registry), _soci(registry), _image(registry, OTHER, "other"), _image(registry, HOST, "ours")]
    push_index(registry, "llm/indexed", inner, tag="inner")
    outer = [_soci(registry), _attestation(registry), _image(registry, OTHER, "another"), _entry(registry, "inner", HOST)]
    target = node.publish(push_index(registry, "llm/indexed", outer))
    assert [path.name for path in target.iterdir()] == ["ours"]


def test_a_published_index_needs_no_registry_again(node: Node, registry: FakeRegistry) -> None:
    """What an index led to is remembered: the next pod is served without a request."""
    reference = push_index(registry, "llm/indexed", [_attestation(registry), _image(registry, HOST, "ours")])
    node.publish(reference)
    asked = len(registry.seen)
    assert [path.name for path in node.publish(reference, "b").iterdir()] == ["ours"]
    assert len(registry.seen) == asked


def _nested(registry: FakeRegistry, depth: int) -> str:
    """A reference to an image below so many indexes."""
    entry = _image(registry, HOST, "ours")
    for level in range(depth):
        push_index(registry, "llm/indexed", [entry], tag=f"level{level}")
        entry = _entry(registry, f"level{level}", HOST)
    return f"{registry.host}/llm/indexed:level{depth - 1}"


def test_indexes_nest_four_deep_and_no_deeper(node: Node, registry: FakeRegistry) -> None:
    """Below four indexes an image is found; a fifth is refused, with what to do instead."""
    assert [path.name for path in node.publish(_nested(registry, 4)).iterdir()] == ["ours"]
    with pytest.raises(UnsupportedError, match="nests indexes more than 4 deep; name a manifest's digest instead"):
        node.publish(_nested(registry, 5), "b")


def test_an_index_without_this_nodes_platform_says_what_it_offers(node: Node, registry: FakeRegistry) -> None:
    """The platforms that there are come with the refusal, without the attestation's."""
    reference = push_index(registry, "llm/indexed", [_attestation(registry), _image(registry, OTHER, "other")])
    with pytest.raises(NotFoundError, match=f"has nothing for {HOST}; it offers {OTHER}$"):
        node.publish(reference)


def test_an_index_of_models_is_refused_by_name(node: Node, registry: FakeRegistry) -> None:
    """A ModelKit index lists models and not platforms, so that none of its entries is taken for this node's."""
    reference = push_index(
        registry, "llm/indexed", [_image(registry, HOST, "ours")], artifactType="application/vnd.kitops.modelkit.index.v1+json"
    )
    with pytest.raises(UnsupportedError, match="KitOps ModelKit"):
        node.publish(reference)


def test_a_manifest_that_calls_itself_something_else_is_refused_at_first(node: Node, registry: FakeRegistry) -> None:
    """An index may call it a manifest: its own word is what a restart would go by, and so it counts from the beginning."""
    made = _image(registry, HOST, "ours")
    document = json.loads(registry.manifests["llm/indexed", "ours"][1]) | {"mediaType": "application/x-foreign"}
    push_manifest(registry, "llm/indexed", document, tag="foreign")
    entry = {**_entry(registry, "foreign", HOST), "mediaType": made["mediaType"]}
    with pytest.raises(UnsupportedError, match="application/x-foreign"):
        node.publish(push_index(registry, "llm/indexed", [entry]))


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_damaged_document_is_fetched_again(halted: Node, registry: FakeRegistry, which: str) -> None:
    """A stored document of other bytes counts as one that is not here: it is refused where nothing may be fetched, else made good."""
    reference = push_tars(registry, "llm/car", tar_of({"mine": b"1"}))
    with halted.running() as engine:
        halted.publish(reference)
        halted.unpublish()
        (model,) = engine.store.state.models()
        body = registry.manifests["llm/car", "v1"][1]
        manifest = parse_document(body, media_type=None, trusted=True)
        assert isinstance(manifest, Manifest)
        path = engine.store.content.path(model.manifest if which == "manifest" else manifest.config.digest)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes(len(good)))
    with halted.running():
        with pytest.raises(NotFoundError, match="pullPolicy is Never"):
            halted.publish(reference, pullPolicy="Never")
        assert [file.name for file in halted.publish(reference, "b").iterdir()] == ["mine"]
    assert path.read_bytes() == good
