from __future__ import annotations

import gzip
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError, ConflictError, NotFoundError, StillPullingError, UnauthenticatedError
from csi_model.linux.mountinfo import mounts_at, read_mounts
from csi_model.oci.reference import parse_reference
from csi_model.volumes import catalog
from tests.fakes.models import OCI_TAR, push_artifact, push_manifest, push_tars, tar_of
from tests.fakes.registry import Fault
from tests.formats.manifests import CNCF, model_config
from tests.volumes.conftest import Node, secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.root

FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000}
LONG = 5.0


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONG
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def _node_mounts(node: Node) -> list[str]:
    return [mount.target for mount in read_mounts() if mount.target.startswith(str(node.folder))]


def test_a_raw_model_is_seen_read_only(node: Node, registry: FakeRegistry) -> None:
    """A published artifact shows its files, and its mount refuses writes."""
    target = node.publish(push_artifact(registry, "llm/raw", FILES))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    assert {"ro", "nosuid", "nodev"} <= mounts_at(target)[-1].options
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()


def test_an_image_is_merged_and_its_subtree_shown(node: Node, registry: FakeRegistry) -> None:
    """Whiteouts delete from lower layers, and ``path`` shows one directory of the merged tree."""
    lower = tar_of({"models/a": b"old", "models/gone": b"x", "etc/passwd": b"root"})
    target = node.publish(push_tars(registry, "llm/car", lower, tar_of({"models/a": b"new", "models/.wh.gone": b""})), path="/models")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"a": b"new"}


def test_two_volumes_share_one_download_and_one_view(node: Node, registry: FakeRegistry) -> None:
    """The second volume of a model costs no request and shows the same filesystem."""
    reference = push_tars(registry, "llm/car", tar_of(FILES))
    first = node.publish(reference, "a")
    seen = len(registry.seen)
    second = node.publish(reference, "b")
    assert len(registry.seen) == seen
    assert first.stat().st_dev == second.stat().st_dev


def test_a_layer_that_no_glob_wants_is_not_pulled(node: Node, registry: FakeRegistry) -> None:
    """With ``include`` the other files' blobs are never asked for."""
    target = node.publish(push_artifact(registry, "llm/raw", {"a.json": b"1", "b.bin": b"22"}), include="*.json")
    assert [path.name for path in target.iterdir()] == ["a.json"]
    assert len(registry.requests("/blobs/")) == 1


def test_a_raw_layer_behind_a_link_is_pulled(node: Node, registry: FakeRegistry) -> None:
    """Where a tar's link leads ``path`` to raw layers, those that are seen through it are pulled, and no other."""
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("current")
        link.type, link.linkname = tarfile.SYMTYPE, "v2"
        archive.addfile(link)
    layers = [
        (registry.add_blob(buffer.getvalue(), f"{CNCF}code.v1.tar"), {}),
        (registry.add_blob(b"one", f"{CNCF}weight.v1.raw"), {"org.cncf.model.filepath": "v1/model.bin"}),
        (registry.add_blob(b"two", f"{CNCF}weight.v1.raw"), {"org.cncf.model.filepath": "v2/model.bin"}),
    ]
    blobs = [layer for layer, _ in layers]
    config = registry.add_blob(model_config(*(blob.digest for blob in blobs)), f"{CNCF}config.v1+json")
    document = {
        "artifactType": f"{CNCF}manifest.v1+json",
        "config": {"mediaType": config.media_type, "digest": str(config.digest), "size": config.size},
        "layers": [
            {"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size, "annotations": annotations}
            for blob, annotations in layers
        ],
    }
    reference = push_manifest(registry, "llm/mixed", document)
    assert node.publish(reference, path="current").joinpath("model.bin").read_bytes() == b"two"
    assert not registry.requests(str(blobs[1].digest))
    assert node.publish(reference, "b", path="current").joinpath("model.bin").read_bytes() == b"two"
    assert node.publish(reference, "c", path="v1").joinpath("model.bin").read_bytes() == b"one"


def test_a_live_volume_is_published_again_without_the_registry(node: Node, registry: FakeRegistry) -> None:
    """Kubelet's restart publishes live volumes anew: they stay as they are and nobody is asked."""
    reference = push_artifact(registry, "llm/raw", FILES)
    target = node.publish(reference, pullPolicy="Always")
    mounted = mounts_at(target)
    registry.add_fault(Fault(where="/", status=503))
    node.publish(reference, pullPolicy="Always")
    assert mounts_at(target) == mounted


def test_a_target_in_use_is_refused_to_others(node: Node, registry: FakeRegistry) -> None:
    """The same target with another reference, path or volume is a conflict; what is there stays."""
    target = node.publish(push_artifact(registry, "llm/raw", FILES))
    other = push_artifact(registry, "llm/other", {"x": b"y"})
    for reference, volume in ((other, "a"), (f"{registry.host}/llm/raw:v1", "z")):
        with pytest.raises(ConflictError):
            node.publish(reference, volume=volume)
    assert (target / "config.json").read_bytes() == b"{}"


def test_unpublish_leaves_nothing_at_the_target(node: Node, registry: FakeRegistry) -> None:
    """Mount and directory go; doing it again, or for a volume that never was, is no error."""
    target = node.publish(push_artifact(registry, "llm/raw", FILES))
    node.unpublish()
    node.unpublish()
    node.unpublish("never")
    assert not target.exists()
    assert not mounts_at(target)


def test_a_view_is_unmounted_when_it_was_idle_for_long_enough(node: Node, registry: FakeRegistry) -> None:
    """The view outlives its last volume by its idle time and no longer."""
    node.publish(push_tars(registry, "llm/car", tar_of(FILES)))
    node.unpublish()
    assert _node_mounts(node)
    assert _eventually(lambda: not _node_mounts(node))
    assert node.publish(f"{registry.host}/llm/car:v1").joinpath("model.bin").read_bytes() == FILES["model.bin"]


def test_a_pull_outlives_the_deadline_and_a_retry_joins_it(node: Node, registry: FakeRegistry) -> None:
    """A publish whose time is up says how far the pull is; the retry gets the model of the same pull."""
    reference = push_artifact(registry, "llm/slow", {"model.bin": os.urandom(600_000)})
    registry.add_fault(Fault(drip=(100_000, 0.1), times=1))
    with pytest.raises(StillPullingError, match="of 600 kB"):
        node.publish(reference, wait=0.2)
    assert not node.target("a").exists()
    assert node.publish(reference).joinpath("model.bin").stat().st_size == 600_000
    assert len(registry.requests("/blobs/")) == 1


def test_unpublish_ends_a_waiting_publish(node: Node, registry: FakeRegistry) -> None:
    """A volume that is unpublished while it waits gets no mount later, though its pull may end well."""
    reference = push_artifact(registry, "llm/slow", {"model.bin": os.urandom(300_000)})
    registry.add_fault(Fault(drip=(50_000, 0.1), times=1))
    failures: list[BaseException] = []

    def publish() -> None:
        try:
            node.publish(reference)
        except BusyError as error:
            failures.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    assert _eventually(lambda: bool(registry.requests("/blobs/")))
    node.unpublish()
    thread.join(LONG)
    assert len(failures) == 1
    assert not node.target("a").exists()


def test_a_volume_keeps_the_digest_of_its_first_publish(node: Node, registry: FakeRegistry) -> None:
    """When the tag moves, a volume that is published again at another target shows what it showed before."""
    reference = push_artifact(registry, "llm/raw", {"v": b"1"})
    node.publish(reference, "a", volume="vol", pullPolicy="Always")
    push_artifact(registry, "llm/raw", {"v": b"2"})
    assert node.publish(reference, "b", volume="vol", pullPolicy="Always").joinpath("v").read_bytes() == b"1"
    assert node.publish(reference, "c", volume="new", pullPolicy="Always").joinpath("v").read_bytes() == b"2"
    assert node.publish(reference, "d", volume="newer").joinpath("v").read_bytes() == b"2"


def test_pull_policy_never_asks_nobody(node: Node, registry: FakeRegistry) -> None:
    """Never fails for what is not here, serves what is, and sends no request."""
    reference = push_artifact(registry, "llm/raw", FILES)
    with pytest.raises(NotFoundError, match="pullPolicy"):
        node.publish(reference, pullPolicy="Never")
    assert not registry.seen
    node.publish(reference, "b")
    seen = len(registry.seen)
    node.publish(reference, "c", pullPolicy="Never")
    assert len(registry.seen) == seen


def test_a_private_model_needs_the_registrys_word_for_each_volume(node: Node, private: FakeRegistry) -> None:
    """A model that was pulled with credentials is handed to a new volume only when the registry accepts that volume's credentials."""
    reference = push_tars(private, "team/secret", tar_of(FILES))
    node.publish(reference, "a", secrets=secret(private.host))
    for name, secrets in (("b", {}), ("c", secret(private.host, password="wrong"))):
        with pytest.raises(UnauthenticatedError):
            node.publish(reference, name, secrets=secrets)
        assert not node.target(name).exists()
    blobs = len(private.requests("/blobs/"))
    node.publish(reference, "d", secrets=secret(private.host))
    assert len(private.requests("/blobs/")) == blobs


def test_naming_anothers_blob_gives_no_right_to_it(node: Node, registry: FakeRegistry, private: FakeRegistry) -> None:
    """A manifest of one's own that names a private layer which is cached here is refused, as its registry does not serve the layer."""
    layer = tar_of(FILES)
    node.publish(push_tars(private, "team/secret", layer), "a", secrets=secret(private.host))
    stolen = push_tars(registry, "thief/copy", layer)
    registry.add_fault(Fault(where=next(request.path for request in private.requests("/blobs/sha256")).rpartition("/")[2], status=404))
    registry.add_fault(Fault(where=f"/blobs/{_layer_digest(layer)}", status=404))
    with pytest.raises(NotFoundError):
        node.publish(stolen, "b")
    assert not node.target("b").exists()


def test_naming_anothers_decoded_layer_gives_no_right_to_it(node: Node, registry: FakeRegistry, private: FakeRegistry) -> None:
    """The digest of a private layer's tar stands in its image's config; a manifest that names it as a plain layer gets nothing."""
    layer = tar_of(FILES)
    packed = gzip.compress(layer)
    reference = push_tars(private, "team/secret", packed, media_type=f"{OCI_TAR}+gzip", diff_ids=(layer,))
    node.publish(reference, "a", secrets=secret(private.host))
    stolen = push_tars(registry, "thief/copy", layer)
    registry.add_fault(Fault(where=f"/blobs/{_layer_digest(layer)}", status=404))
    with pytest.raises(NotFoundError):
        node.publish(stolen, "b")
    registry.faults.clear()
    assert node.publish(stolen, "c").joinpath("model.bin").read_bytes() == FILES["model.bin"]
    seen = len(registry.requests("/blobs/"))
    node.publish(stolen, "d")
    assert len(registry.requests("/blobs/")) == seen, "a repository that delivered it once need not again"


def _layer_digest(layer: bytes) -> str:
    from csi_model.oci.digest import Digest

    return str(Digest.of(layer))


def test_a_restart_adopts_what_is_mounted(halted: Node, registry: FakeRegistry) -> None:
    """Published mounts outlive the process; the next one answers for them, unpublishes them and leaves nothing."""
    reference = push_tars(registry, "llm/car", tar_of(FILES))
    with halted.running():
        target = halted.publish(reference)
    assert target.joinpath("model.bin").read_bytes() == FILES["model.bin"]
    registry.add_fault(Fault(where="/", status=503))
    with halted.running() as engine:
        halted.publish(reference)
        assert engine.volumes.stats(volume_id="a", path=str(target)).bytes == sum(map(len, FILES.values()))
        halted.unpublish()
    assert not _node_mounts(halted)


def test_a_reboot_brings_volumes_back_without_the_registry(halted: Node, private: FakeRegistry) -> None:
    """All mounts gone, disks kept: a volume that was published comes back from the cache, its registry being down."""
    reference = push_tars(private, "team/secret", tar_of(FILES))
    with halted.running():
        target = halted.publish(reference, secrets=secret(private.host))
    for mount in reversed([mount for mount in read_mounts() if mount.target.startswith(str(halted.folder))]):
        from csi_model.linux.mounts import unmount

        unmount(mount.target)
    private.add_fault(Fault(where="/", status=503))
    with halted.running():
        halted.publish(reference, secrets=secret(private.host))
        assert target.joinpath("config.json").read_bytes() == b"{}"
        halted.unpublish()


def test_stats_are_the_views_own(node: Node, registry: FakeRegistry) -> None:
    """Bytes and inodes are those of the view, and a volume has none where it is not published."""
    target = node.publish(push_artifact(registry, "llm/raw", FILES))
    assert node.engine is not None
    usage = node.engine.volumes.stats(volume_id="a", path=str(target))
    assert (usage.bytes, usage.inodes) == (sum(map(len, FILES.values())), 3)
    for volume_id, path in (("b", str(target)), ("a", "some/path")):
        with pytest.raises(NotFoundError):
            node.engine.volumes.stats(volume_id=volume_id, path=path)


def test_removal_frees_what_nothing_else_needs(node: Node, registry: FakeRegistry) -> None:
    """A published model is not removed; an unpublished one goes with its own layers, and shared layers stay."""
    shared = {"shared": b"s" * 5000}
    one, two = push_artifact(registry, "llm/one", {**shared, "a": b"1"}), push_artifact(registry, "llm/two", {**shared, "b": b"2"})
    node.publish(one, "a")
    node.publish(two, "b")
    engine = node.engine
    assert engine is not None
    entries = {entry.reference: entry for entry in catalog.images(engine.store)}
    assert entries[one].shared >= 5000
    assert entries[one].targets == (str(node.target("a")),)
    with pytest.raises(BusyError, match=str(node.target("a"))):
        catalog.remove(engine.store, engine.views, parse_reference(one))
    node.unpublish("a")
    assert catalog.remove(engine.store, engine.views, parse_reference(one)) < 5000
    assert [entry.reference for entry in catalog.images(engine.store)] == [two]
    assert node.target("b").joinpath("shared").read_bytes() == shared["shared"]
    node.publish(one, "c")


def test_a_refused_model_leaves_nothing(node: Node, registry: FakeRegistry) -> None:
    """When a layer does not match its digest, or a path does not exist, no target, no mount and no ingest is left."""
    data = os.urandom(50_000)
    reference = push_artifact(registry, "llm/bad", {"model.bin": data})
    registry.add_fault(Fault(body=b"\0" * len(data)))
    from csi_model.errors import CorruptContentError

    with pytest.raises(CorruptContentError, match="sha256"):
        node.publish(reference)
    good = push_artifact(registry, "llm/good", FILES)
    registry.faults.clear()
    with pytest.raises(NotFoundError, match="models"):
        node.publish(good, path="/models")
    assert not node.target("a").exists()
    assert not _node_mounts(node)
    assert not [path for path in (node.folder / "state" / "ingest").rglob("*") if path.is_file()]


def test_a_manifest_that_is_not_a_model_is_refused_by_name(node: Node, registry: FakeRegistry) -> None:
    """A Helm chart is refused as such."""
    from csi_model.errors import UnsupportedError

    config = registry.add_blob(b"{}", "application/vnd.cncf.helm.config.v1+json")
    layer = registry.add_blob(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    described = [{"mediaType": d.media_type, "digest": str(d.digest), "size": d.size} for d in (config, layer)]
    reference = push_manifest(registry, "charts/x", {"config": described[0], "layers": described[1:]})
    with pytest.raises(UnsupportedError, match="Helm"):
        node.publish(reference)
