"""What is mounted at a target already when it is published: the volume's own view, somebody's mount, or what no record tells of."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Views
from csi_model.errors import ConflictError, NotFoundError, UnauthenticatedError
from csi_model.linux import mounts
from csi_model.linux.mountinfo import mounts_at, read_mounts
from csi_model.volumes import volumes
from csi_model.volumes.engine import open_engine
from csi_model.volumes.request import VolumeRequest
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault
from tests.volumes.conftest import PASSWORD, USER, Node, secret

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.root

FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000}
SIZE = sum(map(len, FILES.values()))
STRATEGIES = ("links", "materialise", "erofs-direct", "erofs-loop", "erofs-buffered")


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def _using(node: Node, strategy: str) -> Node:
    if strategy != "links":
        node.config = node.config.model_copy(update={"views": Views(strategy=strategy, idle=0.2)})  # type: ignore[arg-type]
    return node


def _lose_state(node: Node) -> None:
    """Nothing of the database can be read at the next start."""
    (node.folder / "state" / "state.db").write_bytes(b"garbage" * 5000)


def _reboot(node: Node) -> None:
    for mount in reversed([mount for mount in read_mounts() if mount.target.startswith(str(node.folder))]):
        mounts.unmount(mount.target)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_live_volume_is_known_again(halted: Node, registry: FakeRegistry, strategy: str) -> None:
    """Whichever way its view is mounted: at once, after a restart, and when the view's own files and mount have gone."""
    reference = push_artifact(registry, "llm/raw", FILES)
    with _using(halted, strategy).running():
        target = halted.publish(reference)
        mounted = mounts_at(target)
        registry.add_fault(Fault(where="/", status=503))
        halted.publish(reference)
    with halted.running():
        halted.publish(reference)
        for path in (halted.folder / "state" / "views").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        halted.publish(reference)
        assert mounts_at(target) == mounted or strategy in {"links", "materialise"}, "the kernel says of a folder that it is deleted"
        halted.unpublish()
    assert not target.exists()


def test_a_foreign_mount_over_a_volume_is_named(node: Node, registry: FakeRegistry) -> None:
    """Somebody's mount on top of a published view is what the pod would get: it is refused, named and left alone."""
    reference = push_artifact(registry, "llm/raw", FILES)
    target = node.publish(reference)
    mounts.bind("/dev", target)
    with pytest.raises(ConflictError, match=rf"{target} .*devtmpfs|{target} .*tmpfs"):
        node.publish(reference)
    assert len(mounts_at(target)) == 2
    mounts.unmount(target)
    node.publish(reference)


def test_a_foreign_mount_in_a_volumes_place_is_named(node: Node, registry: FakeRegistry) -> None:
    """A record and some mount are not enough: the mount has to be the record's."""
    reference = push_artifact(registry, "llm/raw", FILES)
    target = node.publish(reference)
    mounts.unmount(target)
    mounts.bind("/dev", target)
    with pytest.raises(ConflictError, match="untouched"):
        node.publish(reference)
    mounts.unmount(target)


def test_another_view_in_a_volumes_place_is_refused(node: Node, registry: FakeRegistry) -> None:
    """A view of ours, but of another model, is not what the volume was published with."""
    reference = push_artifact(registry, "llm/raw", FILES)
    target, other = node.publish(reference, "a"), node.publish(push_artifact(registry, "llm/other", {"x": b"y"}), "b")
    mounts.bind(other, target)
    with pytest.raises(ConflictError, match="is not what csi-model mounted"):
        node.publish(reference)


def test_a_mount_that_failed_after_a_reboot_takes_no_right_away(halted: Node, private: FakeRegistry) -> None:
    """The record of a volume that cannot be mounted now stays: with the registry down, the next try succeeds as the first would have."""
    reference = push_tars(private, "team/secret", tar_of(FILES))
    with halted.running():
        target = halted.publish(reference, secrets=secret(private.host))
    _reboot(halted)
    private.add_fault(Fault(where="/", status=503))
    with halted.running() as engine:
        (target / "in the way").touch()
        before = engine.store.state.publication(str(target))
        with pytest.raises(ConflictError):
            halted.publish(reference, secrets=secret(private.host))
        assert engine.store.state.publication(str(target)) == before
        (target / "in the way").unlink()
        assert halted.publish(reference, secrets=secret(private.host)).joinpath("config.json").read_bytes() == b"{}"


def _turn_private(node: Node, registry: FakeRegistry) -> str:
    """Volume a is published and gone with a reboot; then its tag moves to a private manifest, which another volume is published with."""
    reference = push_tars(registry, "llm/car", tar_of({"public": b"1"}))
    with node.running():
        node.publish(reference)
    _reboot(node)
    registry.auth = BasicAuth({USER: PASSWORD})
    push_tars(registry, "llm/car", tar_of({"private": b"2"}))
    with node.running():
        node.publish(reference, "owner", secrets=secret(registry.host), pullPolicy="Always")
    return reference


def _change_records(node: Node, statement: str) -> None:
    with closing(sqlite3.connect(node.folder / "state" / "state.db")) as database, database:
        database.execute(statement)


def test_a_record_without_its_pin_brings_back_what_it_names(halted: Node, registry: FakeRegistry) -> None:
    """A damaged database may lose a pin: the volume is shown its own manifest, with no question, and never what the tag names by now."""
    reference = _turn_private(halted, registry)
    _change_records(halted, "DELETE FROM pin WHERE volume_id = 'a'")
    with halted.running() as engine:
        assert [file.name for file in halted.publish(reference).iterdir()] == ["public"]
        record = engine.store.state.publication(str(halted.target("a")))
        assert record is not None
        assert engine.store.state.pinned("a", reference) == record.manifest


def test_a_record_gives_no_right_to_what_a_pin_names(halted: Node, registry: FakeRegistry) -> None:
    """Where record and pin contradict each other, the registry is asked about the pin's manifest, as for any other volume."""
    reference = _turn_private(halted, registry)
    _change_records(halted, "UPDATE pin SET manifest = (SELECT manifest FROM pin WHERE volume_id = 'owner')")
    with halted.running():
        with pytest.raises(UnauthenticatedError):
            halted.publish(reference)
        assert not any(halted.target("a").iterdir())


def test_a_first_mount_that_failed_leaves_no_record(node: Node, registry: FakeRegistry) -> None:
    """What was never there is not recorded as if it were."""
    node.target("a").mkdir()
    (node.target("a") / "in the way").touch()
    with pytest.raises(ConflictError):
        node.publish(push_artifact(registry, "llm/raw", FILES))
    assert node.engine is not None
    assert not node.engine.store.state.publications()


def test_stats_follow_the_operators_link(halted: Node, registry: FakeRegistry) -> None:
    """The path may lead through a symlink to the kubelet's directory and end with a slash, as in every other call."""
    (halted.folder / "kubelet").symlink_to("targets")
    path = str(halted.folder / "kubelet" / "a")
    with open_engine(halted.folder / "state", halted.config, targets=halted.folder / "kubelet", tended=True) as engine:
        request = VolumeRequest.parse({"reference": push_artifact(registry, "llm/raw", FILES)})
        engine.volumes.publish(volume_id="a", target=path, request=request, secrets={}, deadline=None)
        for shown in (path, f"{path}/"):
            assert engine.volumes.stats(volume_id="a", path=shown).bytes == SIZE
        with pytest.raises(NotFoundError):
            engine.volumes.stats(volume_id="a", path="/elsewhere")
        engine.volumes.unpublish(volume_id="a", target=path)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kept", ["the view's mount", "the target's alone"])
def test_a_live_volume_is_known_without_its_record(halted: Node, private: FakeRegistry, strategy: str, kept: str) -> None:
    """When the database is lost, kubelet's next publish of a live volume needs neither registry nor secret; stats and unpublish work."""
    reference = push_artifact(private, "team/secret", {"sub/config.json": b"{}", "sub/model.bin": FILES["model.bin"]})
    with _using(halted, strategy).running():
        target = halted.publish(reference, secrets=secret(private.host), path="sub")
    mounted = mounts_at(target)
    (place,) = (halted.folder / "state" / "mounts").iterdir()
    if kept != "the view's mount":
        mounts.unmount(place)
    _lose_state(halted)
    private.add_fault(Fault(where="/", status=503))
    with halted.running() as engine:
        halted.publish(reference, path="sub")
        assert mounts_at(target) == mounted
        usage = engine.volumes.stats(volume_id="a", path=str(target))
        assert (usage.bytes, usage.inodes) == (SIZE, 3)
        halted.publish(reference, path="sub")
        with pytest.raises(ConflictError, match="already shows"):
            halted.publish(reference)
        halted.unpublish()
    assert not target.exists()
    assert not [mount for mount in read_mounts() if mount.target.startswith(str(halted.folder))]


def test_another_selection_is_not_taken_for_a_lost_volume(halted: Node, registry: FakeRegistry) -> None:
    """What is mounted without a record has to be what is asked for, and all mounts at the target ours."""
    reference = push_artifact(registry, "llm/raw", FILES)
    with halted.running():
        target = halted.publish(reference)
    _lose_state(halted)
    with halted.running():
        with pytest.raises(ConflictError, match="no record of"):
            halted.publish(reference, include="config.json")
        mounts.bind("/dev", target)
        mounts.bind(halted.folder / "state" / "mounts" / next((halted.folder / "state" / "mounts").iterdir()).name, target)
        with pytest.raises(ConflictError, match="no record of"):
            halted.publish(reference)
        mounts.unmount(target)
        mounts.unmount(target)
        halted.publish(reference)


def test_tending_outlives_a_bug(node: Node, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tending meets once, idle views are still unmounted afterwards."""
    assert node.engine is not None
    views = node.engine.views
    tend, failures = views.tend, iter([KeyError("a bug"), OSError("another")])

    def failing() -> None:
        for failure in failures:
            raise failure
        tend()

    monkeypatch.setattr(volumes, "_TEND_EVERY", 0.05)
    monkeypatch.setattr(views, "tend", failing)
    node.publish(push_artifact(registry, "llm/raw", FILES))
    node.unpublish()
    assert _eventually(lambda: not views.mounted())
