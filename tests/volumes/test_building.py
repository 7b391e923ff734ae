"""How views are built: a deadline ends a wait and no building, the disk's reserve is kept, and a stop is heard."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Views
from csi_model.errors import BusyError, DiskMissingError, NoSpaceError, StillPullingError
from csi_model.linux.mountinfo import mounts_at
from csi_model.mount import copying
from csi_model.volumes.request import VolumeRequest
from tests.fakes.models import push_artifact, push_tars, tar_of

if TYPE_CHECKING:
    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom(4 << 20)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk on which copies take a tenth of a second for 128 KiB, and what was copied on it."""
    copied: list[int] = []
    copy_some = copying._copy_some

    def slowly(source: int, destination: int, length: int, offset: int, position: int) -> int:
        time.sleep(0.1)
        copied.append(copy_some(source, destination, min(length, 128 << 10), offset, position))
        return copied[-1]

    monkeypatch.setattr(copying, "_copy_some", slowly)
    return copied


def _configured(node: Node, *, strategy: str, reserve: int = 0, linger: float = 30) -> Node:
    pull = node.config.pull.model_copy(update={"free_space_reserve": reserve, "linger": linger})
    node.config = node.config.model_copy(update={"views": Views(strategy=strategy), "pull": pull})  # type: ignore[arg-type]
    return node


def test_a_deadline_ends_the_wait_and_not_the_building(halted: Node, registry: FakeRegistry, slow: list[int]) -> None:
    """Whoever asks for a view that is being copied leaves in time and is told how far it is; a later retry finds it, copied once."""
    reference = push_tars(registry, "llm/car", tar_of({"m": WEIGHTS}))
    with _configured(halted, strategy="materialise").running():
        slow.clear()  # of the probe's copies
        for name in ("a", "b"):
            began = time.monotonic()
            with pytest.raises(StillPullingError, match="copied so far"):
                halted.publish(reference, name, wait=0.5)
            assert time.monotonic() - began < 1.5
        assert (halted.publish(reference, "b") / "m").read_bytes() == WEIGHTS
        assert sum(slow) == len(WEIGHTS)
        halted.unpublish("b")


def test_an_unpublish_ends_the_wait_for_a_view(halted: Node, registry: FakeRegistry, slow: list[int]) -> None:
    """A pod that is deleted while its model is copied is gone at once; nobody wants the copy then, and it stops."""
    reference = push_tars(registry, "llm/car", tar_of({"m": WEIGHTS}))
    with _configured(halted, strategy="materialise", linger=0.1).running() as engine:
        ended: list[Exception] = []

        def publish() -> None:
            try:
                halted.publish(reference)
            except BusyError as error:
                ended.append(error)

        pod = threading.Thread(target=publish)
        pod.start()
        while len(slow) < 2:
            time.sleep(0.01)
        began = time.monotonic()
        halted.unpublish()
        pod.join()
        assert time.monotonic() - began < 1
        assert len(ended) == 1
        time.sleep(1)
        assert sum(slow) < len(WEIGHTS)
        assert not list(engine.store.views.iterdir())


def test_a_stop_is_heard_in_the_middle_of_a_copy(halted: Node, registry: FakeRegistry, slow: list[int]) -> None:
    """At SIGTERM a copy ends within a step of it, and leaves nothing."""
    reference = push_tars(registry, "llm/car", tar_of({"m": WEIGHTS}))
    with _configured(halted, strategy="materialise").running() as engine:
        with pytest.raises(StillPullingError):
            halted.publish(reference, wait=0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert slow
    assert not list(engine.store.views.iterdir())


@pytest.mark.parametrize("strategy", ["materialise", "erofs-direct"])
def test_copies_leave_the_reserve_alone(halted: Node, registry: FakeRegistry, strategy: str) -> None:
    """A view that would be copied into what is kept free is refused by its size; one of a few KiB is not worth refusing."""
    # On the lowest rung a tar is copied; on others 12,000 files are more than 1 MiB of metadata.
    heavy = push_tars(registry, "llm/car", tar_of({"m": WEIGHTS, **{f"{number}": b"x" for number in range(12_000)}}))
    light = push_artifact(registry, "llm/raw", {"m": WEIGHTS})
    with _configured(halted, strategy=strategy).running() as engine:
        for reference in (heavy, light):
            engine.models.fetch(VolumeRequest.parse({"reference": reference}), ()).wait(time.monotonic() + 20)
    with _configured(halted, strategy=strategy, reserve=1 << 60).running():
        with pytest.raises(NoSpaceError, match="beside the reserve"):
            halted.publish(heavy)
        assert (halted.publish(light) / "m").read_bytes() == WEIGHTS
        halted.unpublish()


def test_a_folder_of_views_that_is_gone_is_the_disks_fault(node: Node, registry: FakeRegistry) -> None:
    """Where views/ was taken away, a publish says so and blames neither the pod nor the driver; with it back, the pod gets its model."""
    reference, views = push_tars(registry, "llm/car", tar_of({"m": WEIGHTS})), node.folder / "state" / "views"
    views.rmdir()
    with pytest.raises(DiskMissingError, match="views"):
        node.publish(reference)
    views.mkdir()
    assert (node.publish(reference) / "m").read_bytes() == WEIGHTS


def test_a_symlink_among_the_largest_files_stops_no_switch(node: Node, registry: FakeRegistry) -> None:
    """A view that begins buffered goes direct, though what is largest in it includes a link that leads nowhere here."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("m", "n"):
            entry = tarfile.TarInfo(name)
            entry.size = len(WEIGHTS)
            archive.addfile(entry, io.BytesIO(WEIGHTS))
        for name in ("current", "other"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/nowhere/at/all"
            archive.addfile(link)
    target = node.publish(push_tars(registry, "llm/car", buffer.getvalue()))
    assert "directio" not in mounts_at(target)[-1].super_options
    for name in ("m", "n"):
        assert (target / name).read_bytes() == WEIGHTS
    deadline = time.monotonic() + 10
    while "directio" not in mounts_at(target)[-1].super_options and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "directio" in mounts_at(target)[-1].super_options
