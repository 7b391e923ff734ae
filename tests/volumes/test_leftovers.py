"""What views leave on the disk: nothing once they are idle, removed or gone with a crash, and no damaged bytes once content is repaired."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, NoReturn

import pytest

from csi_model.config.model import Views
from csi_model.errors import MountError
from csi_model.oci.reference import parse_reference
from csi_model.volumes import catalog
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import Fault
from tests.volumes.endings import killed, left, reboot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom((1 << 20) + 5)
KINDS = ("raw", "car")
STRATEGIES = ("auto", "erofs-direct", "erofs-loop", "erofs-buffered", "materialise")


def _push(registry: FakeRegistry, kind: str) -> str:
    if kind == "raw":
        return push_artifact(registry, "llm/raw", {"m": WEIGHTS})
    return push_tars(registry, "llm/car", tar_of({"m": WEIGHTS}))


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _views(node: Node, *, strategy: str = "auto", idle: float = 3600) -> Node:
    node.config = node.config.model_copy(update={"views": Views(strategy=strategy, idle=idle)})  # type: ignore[arg-type]
    return node


def _layer(node: Node) -> Path:
    (path,) = [path for path in (node.folder / "state" / "content" / "sha256").iterdir() if path.stat().st_size >= len(WEIGHTS)]
    return path


def _damage(path: Path, size: int) -> None:
    """Let the disk have lost the bytes, in the very file that views link to or are mounted from."""
    path.chmod(0o644)
    path.write_bytes(bytes(size))
    path.chmod(0o444)
    os.utime(path, (0, 0))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_view_leaves_nothing(halted: Node, registry: FakeRegistry, kind: str, strategy: str) -> None:
    """Its files and its record go with its mount, so that no selection that was ever asked for stays on the disk; it comes back."""
    reference = _push(registry, kind)
    with _views(halted, strategy=strategy, idle=0.1).running():
        for _ in range(2):
            assert (halted.publish(reference, include="m") / "m").read_bytes() == WEIGHTS
            halted.unpublish()
            assert _eventually(lambda: not left(halted))


@pytest.mark.parametrize("step", ["view.written", "view.renamed", "view.mounted"])
@pytest.mark.parametrize("kind", KINDS)
def test_removal_after_a_kill_frees_all(halted: Node, registry: FakeRegistry, kind: str, step: str) -> None:
    """Wherever a driver dies while it builds a view, the next one finds it, and `rm` takes every byte of the model."""
    reference = _push(registry, kind)
    killed(halted, lambda: halted.publish(reference), step=step)
    with _views(halted).running() as engine:
        catalog.remove(engine.store, engine.views, parse_reference(reference))
        assert left(halted) == []
        assert not list(engine.store.content.digests())


@pytest.mark.parametrize("kind", KINDS)
def test_a_retry_after_a_kill_is_recorded(halted: Node, registry: FakeRegistry, kind: str) -> None:
    """A view that was mounted when the driver died is used, and its size is known."""
    reference = _push(registry, kind)
    killed(halted, lambda: halted.publish(reference), step="view.mounted")
    with halted.running() as engine:
        target = halted.publish(reference)
        assert engine.volumes.stats(volume_id="a", path=str(target)).bytes == len(WEIGHTS)
        halted.unpublish()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_database_leaves_nothing_for_ever(halted: Node, registry: FakeRegistry, kind: str) -> None:
    """Views that nobody shows go; one that a pod still reads stays, gets its record with the next volume, and goes when idle."""
    reference = _push(registry, kind)

    def work() -> None:
        halted.publish(reference, "a")
        halted.publish(reference, "b", include="m")
        halted.unpublish("b")

    killed(_views(halted), work)
    for path in (halted.folder / "state").glob("state.db*"):
        path.unlink()
    with _views(halted, idle=0.1).running() as engine:
        assert engine.views.mounted() == 1
        assert (halted.target("a") / "m").read_bytes() == WEIGHTS
        other = halted.publish(reference, "c")
        assert other.stat().st_dev == halted.target("a").stat().st_dev
        assert engine.volumes.stats(volume_id="c", path=str(other)).bytes == len(WEIGHTS)
        halted.unpublish("c")
        time.sleep(1.5)
        assert (halted.target("a") / "m").read_bytes() == WEIGHTS
        halted.unpublish("a")
        assert _eventually(lambda: not left(halted))


@pytest.mark.parametrize("strategy", ["auto", "materialise"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reboot_rebuilds_nothing(halted: Node, registry: FakeRegistry, kind: str, strategy: str) -> None:
    """With the registry away, the volumes of a node that comes back are mounted from the very files that were there."""
    reference = _push(registry, kind)
    killed(_views(halted, strategy=strategy), lambda: halted.publish(reference))
    reboot(halted)
    files = {path: path.stat().st_ino for path in (halted.folder / "state" / "views").iterdir()}
    registry.add_fault(Fault(where="/", status=503))
    with halted.running():
        assert (halted.publish(reference) / "m").read_bytes() == WEIGHTS
        assert {path: path.stat().st_ino for path in (halted.folder / "state" / "views").iterdir()} == files
        halted.unpublish()


def test_a_pod_that_never_came_back_keeps_no_view(halted: Node, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot the files of a volume whose pod is gone go with the hourly tidying."""
    reference = _push(registry, "raw")
    halted.target("pod").mkdir()
    killed(_views(halted), lambda: halted.publish(reference, "pod/mount"))
    reboot(halted)
    for path in (halted.target("pod/mount"), halted.target("pod")):
        path.rmdir()
    monkeypatch.setattr("csi_model.volumes.views._CLEAR_EVERY", 0.5)
    with halted.running():
        assert _eventually(lambda: not left(halted))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_repaired_content_reaches_a_view_that_was_mounted(halted: Node, registry: FakeRegistry, kind: str, strategy: str) -> None:
    """The view that a killed driver left of content that the next start finds too short is not used again."""
    reference = _push(registry, kind)

    def work() -> None:
        halted.publish(reference)
        halted.unpublish()

    killed(_views(halted, strategy=strategy), work)
    _damage(_layer(halted), len(WEIGHTS) // 2)
    with halted.running():
        assert (halted.publish(reference) / "m").read_bytes() == WEIGHTS
        halted.unpublish()


@pytest.mark.parametrize("strategy", ["auto", "materialise"])
def test_repaired_content_reaches_a_folder_of_links(halted: Node, registry: FakeRegistry, strategy: str) -> None:
    """A folder that outlived a reboot is made anew when its links are not the files of the store."""
    reference = _push(registry, "raw")
    killed(_views(halted, strategy=strategy), lambda: halted.publish(reference))
    reboot(halted)
    _damage(_layer(halted), len(WEIGHTS) // 2)
    with halted.running():
        target = halted.publish(reference)
        assert (target / "m").read_bytes() == WEIGHTS
        assert (target / "m").stat().st_ino == _layer(halted).stat().st_ino
        halted.unpublish()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_content_that_a_pull_repairs_reaches_idle_views(halted: Node, registry: FakeRegistry, strategy: str) -> None:
    """A pull that finds content of the right length wrong, and fetches it, is not answered with the view of the wrong bytes."""
    reference = _push(registry, "raw")
    with _views(halted, strategy=strategy).running() as engine:
        halted.publish(reference)
        halted.unpublish()
        layer = _layer(halted)
        _damage(layer, len(WEIGHTS))
        (content,) = [digest for digest in engine.store.content.digests() if digest.hex == layer.name]
        engine.store.state.forget_contents([content])
        assert (halted.publish(reference, pullPolicy="Always") / "m").read_bytes() == WEIGHTS
        halted.unpublish()


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_that_could_not_be_mounted_is_removed(
    node: Node, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its files are known before the kernel has its say, so `rm` finds them."""
    reference = _push(registry, kind)

    def refused(*_: object) -> NoReturn:
        msg = "refused"
        raise MountError(msg)

    monkeypatch.setattr("csi_model.mount.views.mount_view", refused)
    with pytest.raises(MountError, match="refused"):
        node.publish(reference)
    assert node.engine is not None
    assert len(list(node.engine.store.views.iterdir())) == 1
    catalog.remove(node.engine.store, node.engine.views, parse_reference(reference))
    assert left(node) == []


def test_files_that_no_record_tells_of_go_at_start(halted: Node) -> None:
    """An older driver's leftovers; names that are no view's are not touched."""
    views = halted.folder / "state" / "views"
    views.mkdir(parents=True)
    image, folder, other = views / f"{'1' * 32}.erofs", views / ("2" * 32), views / "other"
    image.touch()
    folder.mkdir()
    (folder / "m").touch()
    other.touch()
    with halted.running():
        assert list(views.iterdir()) == [other]


def test_one_leftover_that_cannot_be_removed(halted: Node, registry: FakeRegistry) -> None:
    """The driver starts with it and lets go of all others; `rm` of its model says what is the matter."""
    reference, other = _push(registry, "car"), _push(registry, "raw")
    killed(_views(halted), lambda: halted.publish(reference))
    reboot(halted)
    (image,) = (halted.folder / "state" / "views").iterdir()
    image.unlink()
    (image / "stuck").mkdir(parents=True)  # no unlink takes a directory, as none takes a damaged inode
    stray = halted.folder / "state" / "mounts" / "stray"
    stray.touch()
    with _views(halted, idle=0.1).running() as engine:
        halted.unpublish()
        engine.views._clear()
        halted.publish(other, "b")
        halted.unpublish("b")
        assert _eventually(lambda: engine.views.mounted() == 0)
        assert _eventually(lambda: set(left(halted)) == {f"views/{image.name}", "mounts/stray", image.stem})
        with pytest.raises(MountError, match=re.escape(image.name)):
            catalog.remove(engine.store, engine.views, parse_reference(reference))


@pytest.mark.parametrize(("before", "after"), [("materialise", "auto"), ("auto", "materialise")])
def test_a_view_leaves_its_other_form(halted: Node, registry: FakeRegistry, before: str, after: str) -> None:
    """A view that is mounted in another way than before the reboot keeps the files of this one only."""
    reference = _push(registry, "car")
    killed(_views(halted, strategy=before), lambda: halted.publish(reference))
    reboot(halted)
    (former,) = (halted.folder / "state" / "views").iterdir()
    with _views(halted, strategy=after).running() as engine:
        assert (halted.publish(reference) / "m").read_bytes() == WEIGHTS
        (present,) = engine.store.views.iterdir()
        assert present.stem == former.stem
        assert present.suffix != former.suffix
        halted.unpublish()


def test_the_other_form_stays_while_a_pod_reads_it(halted: Node, registry: FakeRegistry) -> None:
    """Copies that a pod's mount shows outlive the view's mount in another form, and go with the view."""
    reference = _push(registry, "car")
    killed(_views(halted, strategy="materialise"), lambda: halted.publish(reference))
    (place,) = (halted.folder / "state" / "mounts").iterdir()
    subprocess.run(["umount", place], check=True)
    with _views(halted, idle=0.1).running() as engine:
        assert (halted.publish(reference, "b") / "m").read_bytes() == WEIGHTS
        assert len(list(engine.store.views.iterdir())) == 2
        assert (halted.target("a") / "m").read_bytes() == WEIGHTS
        halted.unpublish("a")
        halted.unpublish("b")
        assert _eventually(lambda: not left(halted))


def test_what_a_pod_still_reads_is_no_leftover(halted: Node, registry: FakeRegistry) -> None:
    """With neither database nor the view's own mount, a target's mount is enough to keep the folder that it shows."""
    reference = _push(registry, "raw")
    killed(_views(halted), lambda: halted.publish(reference))
    (place,) = (halted.folder / "state" / "mounts").iterdir()
    subprocess.run(["umount", place], check=True)
    for path in (halted.folder / "state").glob("state.db*"):
        path.unlink()
    with halted.running():
        assert (halted.target("a") / "m").read_bytes() == WEIGHTS
        halted.unpublish()
