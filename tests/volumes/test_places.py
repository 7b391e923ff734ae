"""State directories in unusual places: moved, copied, on another disk, on btrfs, or mounted over another mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Views
from csi_model.linux.mountinfo import mounts_at, read_mounts
from csi_model.linux.mounts import unmount
from csi_model.volumes.engine import open_engine
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.volumes.endings import killed, reboot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom((1 << 20) + 5)


@pytest.fixture
def references(registry: FakeRegistry) -> dict[str, str]:
    """A model that is shown as links, and one that is an EROFS image where that can be."""
    return {
        "raw": push_artifact(registry, "llm/raw", {"m": WEIGHTS}),
        "car": push_tars(registry, "llm/car", tar_of({"m": WEIGHTS})),
    }


@contextmanager
def _mounted(path: Path, *arguments: object) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", *map(str, arguments), path], check=True)
    try:
        yield path
    finally:
        for mount in reversed(read_mounts()):
            if Path(mount.target).is_relative_to(path):
                unmount(mount.target)


def _publish(node: Node, references: dict[str, str]) -> None:
    for name, reference in references.items():
        assert (node.publish(reference, name) / "m").read_bytes() == WEIGHTS


def _unpublish(node: Node, references: dict[str, str]) -> None:
    for name in references:
        node.unpublish(name)
        assert not node.target(name).exists()


def _lose_database(node: Node) -> None:
    for path in (node.folder / "state").glob("state.db*"):
        path.unlink()


def test_a_state_directory_that_was_renamed(halted: Node, references: dict[str, str]) -> None:
    """Its volumes are still published as before to kubelet, and are taken away."""
    killed(halted, lambda: _publish(halted, references))
    former = (halted.folder / "state").rename(halted.folder / "former")
    with open_engine(former, halted.config, targets=halted.folder / "targets", tended=True) as engine:
        halted.engine = engine
        _publish(halted, references)
        assert all(len(mounts_at(halted.target(name))) == 1 for name in references)
        _unpublish(halted, references)


@pytest.mark.parametrize("strategy", ["auto", "materialise"])
def test_pods_of_a_former_state_directory_can_end(halted: Node, references: dict[str, str], strategy: str) -> None:
    """A driver that was given an empty directory on another disk takes away what it mounted out of the former one."""
    halted.config = halted.config.model_copy(update={"views": Views(strategy=strategy)})  # type: ignore[arg-type]
    killed(halted, lambda: _publish(halted, references))
    (halted.folder / "state").rename(halted.folder / "former")
    with _mounted(halted.folder / "state", "-t", "tmpfs", "none"), halted.running():
        _unpublish(halted, references)


def test_a_copy_made_while_views_were_mounted(halted: Node, references: dict[str, str]) -> None:
    """The files that `cp -a` found in mounts/ are no obstacle to the driver's start, nor to a view in their place, nor to its end."""
    killed(halted, lambda: _publish(halted, references))
    state, copy = halted.folder / "state", halted.folder / "copy"
    subprocess.run(["cp", "-a", state, copy], check=True)
    reboot(halted)
    shutil.rmtree(state)
    copy.rename(state)
    assert list(state.glob("mounts/*/m"))
    with halted.running() as engine:
        _publish(halted, references)
        _unpublish(halted, references)
        engine.views.release_all()
        assert engine.views.mounted() == 0
        assert not list(engine.store.views.iterdir())


def test_what_shows_a_disk_over_another_mount_keeps_its_files(halted: Node, references: dict[str, str]) -> None:
    """With the database lost, a pod reads on whose state directory is a disk that was mounted over a bind mount."""
    state = halted.folder / "state"
    state.mkdir()
    with _mounted(state, "--bind", state), _mounted(state, "-t", "tmpfs", "none"):
        killed(halted, lambda: _publish(halted, references))
        _lose_database(halted)
        with halted.running():
            for name in references:
                assert (halted.target(name) / "m").read_bytes() == WEIGHTS
            _unpublish(halted, references)


def test_a_node_that_comes_back_with_a_full_disk(halted: Node, references: dict[str, str]) -> None:
    """What was published before the reboot is published again, for which nothing has to be written, not even a directory."""
    disk, state = halted.folder / "disk", halted.folder / "state"
    with disk.open("wb") as file:
        file.truncate(96 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
    with _mounted(state, "-o", "loop", disk):
        killed(halted, lambda: _publish(halted, references))
        for path in (*state.glob("mounts/*"), *map(halted.target, references)):
            subprocess.run(["umount", path], check=True)
        with halted.running() as engine:
            for size in (1 << 20, 4096, 512):
                with suppress(OSError), (state / "filled").open("ab", buffering=0) as file:
                    while True:
                        file.write(bytes(size))
            with pytest.raises(OSError, match="No space"):
                (engine.store.mounts / "more").mkdir()
            _publish(halted, references)
            _unpublish(halted, references)
            engine.views.release_all()
            assert not list(engine.store.mounts.iterdir())


@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="there is no mkfs.btrfs")
@pytest.mark.parametrize("strategy", ["auto", "materialise"])
def test_btrfs(halted: Node, references: dict[str, str], strategy: str) -> None:
    """On btrfs, whose files have another device than its mounts, folders are known again, survive a lost database, and are taken away."""
    halted.config = halted.config.model_copy(update={"views": Views(strategy=strategy)})  # type: ignore[arg-type]
    disk = halted.folder / "disk"
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True)
    with _mounted(halted.folder / "state", "-o", "loop", disk):
        killed(halted, lambda: _publish(halted, references))
        _lose_database(halted)
        with halted.running():
            _publish(halted, references)
            _unpublish(halted, references)
