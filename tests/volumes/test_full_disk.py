"""A node whose disk is full: the driver starts, takes away what is published, and says of new models that there is no room."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Pull
from csi_model.errors import NoSpaceError
from csi_model.linux.disk import free_bytes, space
from csi_model.oci.reference import parse_reference
from csi_model.volumes import catalog
from tests.fakes.models import push_artifact, push_tars, tar_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom(1 << 20)


@pytest.fixture
def small(halted: Node, tmp_path: Path) -> Iterator[Node]:
    """A node with a disk of 200 MiB and 200 inodes or so, of which a pull leaves 8 MiB free."""
    disk, place = tmp_path / "disk", tmp_path / "small"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "200", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        (place / "targets").mkdir()
        (place / "files").mkdir()
        pull = Pull(linger=0.2, stall_timeout=5, retries=2, free_space_reserve=8 << 20)
        yield replace(halted, folder=place, config=halted.config.model_copy(update={"pull": pull}))
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


def _fill(place: Path) -> None:
    """To the last block, by somebody who takes what he gets."""
    for size in (1 << 20, 4096, 512):
        with suppress(OSError), (place / "filled").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))


def _files(folder: Path) -> int:
    return len(list(folder.iterdir()))


def _fill_with_files(place: Path) -> None:
    """To the last inode, with room for bytes left."""
    with suppress(OSError):
        for number in count(_files(place / "files")):
            (place / "files" / str(number)).touch()
    assert (space(place).inodes_free, space(place).free > 50 << 20) == (0, True)


def _run_and_end(node: Node, *references: str, kill: bool) -> None:
    """A driver in a process of its own that publishes and ends."""
    child = os.fork()
    if not child:
        with suppress(BaseException), node.running():
            for number, reference in enumerate(references):
                node.publish(reference, f"{number}")
            if kill:
                os._exit(0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_driver_starts_on_a_full_disk(small: Node, registry: FakeRegistry, *, kill: bool) -> None:
    """Stopped or killed before, it serves what is here, refuses what is not, unpublishes, and removes models to make room."""
    raw, car = push_artifact(registry, "llm/raw", {"m": WEIGHTS}), push_tars(registry, "llm/car", tar_of({"m": WEIGHTS}))
    other = push_artifact(registry, "llm/other", {"m": os.urandom(1 << 20)})
    _run_and_end(small, raw, car, kill=kill)
    _fill(small.folder)
    assert free_bytes(small.folder) == 0
    with small.running() as engine:
        _fill(small.folder)
        for reference, name in ((raw, "0"), (car, "1")):
            assert (small.publish(reference, name) / "m").read_bytes() == WEIGHTS
        with pytest.raises(NoSpaceError, match="free space"):
            small.publish(other, "2")
        for name in ("0", "1"):
            small.unpublish(name)
            assert not small.target(name).exists()
        assert catalog.remove(engine.store, engine.views, parse_reference(raw)) > len(WEIGHTS)
    (small.folder / "filled").unlink()
    with small.running():
        assert (small.publish(other, "2") / "m").exists()
        small.unpublish("2")
        assert (small.folder / "state" / "reserve").stat().st_size == 18 << 20


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_driver_starts_without_a_free_inode(small: Node, registry: FakeRegistry, *, kill: bool) -> None:
    """Stopped or killed before, it takes away what is published, and gives up spare inodes for it and no block; both are taken again."""
    raw, car = push_artifact(registry, "llm/raw", {"m": WEIGHTS}), push_tars(registry, "llm/car", tar_of({"m": WEIGHTS}))
    _run_and_end(small, raw, car, kill=kill)
    reserve, spare = small.folder / "state" / "reserve", small.folder / "state" / "spare"
    kept = _files(spare)
    for _ in range(2):  # each start may meet somebody who takes what the one before gave up
        _fill_with_files(small.folder)
        with small.running():
            _fill_with_files(small.folder)
            small.publish(raw, "0")
    with small.running() as engine:
        for name in ("0", "1"):
            small.unpublish(name)
        assert catalog.remove(engine.store, engine.views, parse_reference(raw)) > len(WEIGHTS)
    assert (reserve.stat().st_size, _files(spare) < kept) == (18 << 20, True)
    shutil.rmtree(small.folder / "files")
    with small.running():
        assert _files(spare) == kept


@pytest.mark.parametrize("left", range(1, 8))
def test_a_driver_starts_with_too_few_inodes(small: Node, registry: FakeRegistry, left: int) -> None:
    """Wherever in its start it meets the end of them: at the store's own files, those of SQLite, or the probe's."""
    reference = push_artifact(registry, "llm/raw", {"m": WEIGHTS})
    _run_and_end(small, reference, kill=False)
    _fill_with_files(small.folder)
    for number in range(left):
        (small.folder / "files" / str(number)).unlink()
    with small.running():
        small.unpublish("0")
    assert (small.folder / "state" / "reserve").stat().st_size == 18 << 20


def test_a_disk_that_fills_up_under_a_driver_stops_no_unpublish(small: Node, registry: FakeRegistry) -> None:
    """However many volumes there are to take away: the log of the records has its blocks."""
    reference = push_artifact(registry, "llm/raw", {"m": WEIGHTS})
    with small.running():
        names = [str(number) for number in range(60)]
        for name in names:
            small.publish(reference, name)
    with small.running():
        _fill(small.folder)
        for name in names:
            small.unpublish(name)
        assert not any((small.folder / "targets").iterdir())
