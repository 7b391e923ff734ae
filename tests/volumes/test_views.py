"""How views are mounted, switched and kept, over real mounts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Views
from csi_model.errors import BusyError
from csi_model.linux import pages
from csi_model.linux.mountinfo import mounts_at
from csi_model.volumes.views import View
from tests.fakes.models import push_artifact, push_tars, tar_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom(8 << 20)
FORCED = ("erofs-direct", "erofs-loop", "erofs-buffered", "materialise")


def _options(target: Path) -> frozenset[str]:
    return mounts_at(target)[-1].super_options


def _strategies(node: Node) -> list[str]:
    assert node.engine is not None
    return [record.strategy for record in node.engine.store.state.views()]


def _forced(node: Node, strategy: str) -> Node:
    node.config = node.config.model_copy(update={"views": Views(strategy=strategy)})  # type: ignore[arg-type]
    return node


@pytest.mark.parametrize("strategy", FORCED)
def test_every_strategy_shows_the_same_bytes(halted: Node, registry: FakeRegistry, strategy: str) -> None:
    """A raw model with an odd length and an image read back the same whichever rung is forced, and leave nothing mounted."""
    with _forced(halted, strategy).running():
        raw = halted.publish(push_artifact(registry, "llm/raw", {"model.bin": WEIGHTS[:-3], "empty": b""}), "raw")
        image = halted.publish(push_tars(registry, "llm/car", tar_of({"models/model.bin": WEIGHTS})), "image", path="models")
        assert (raw / "model.bin").read_bytes() == WEIGHTS[:-3]
        assert (raw / "empty").read_bytes() == b""
        assert (image / "model.bin").read_bytes() == WEIGHTS
        assert _strategies(halted) == [strategy] * 2
        halted.unpublish("raw")
        halted.unpublish("image")
    assert not list((halted.folder / "state" / "mounts").iterdir())


def test_raw_models_are_links_to_the_layers(node: Node, registry: FakeRegistry) -> None:
    """A view of whole raw layers shows the very inodes of the store, so what the pull left in memory serves the reader."""
    target = node.publish(push_artifact(registry, "llm/raw", {"model.bin": WEIGHTS}))
    assert node.engine is not None
    (content,) = [path for path in (node.folder / "state" / "content" / "sha256").iterdir() if path.stat().st_size == len(WEIGHTS)]
    assert (target / "model.bin").stat().st_ino == content.stat().st_ino
    assert _strategies(node) == ["links"]


def test_a_warm_image_begins_buffered_and_goes_direct_when_read(node: Node, registry: FakeRegistry) -> None:
    """Just pulled, a view reads through warm pages; once its reader is through it reads directly and the layers' pages are let go."""
    target = node.publish(push_tars(registry, "llm/car", tar_of({"model.bin": WEIGHTS})))
    assert "directio" not in _options(target)
    assert (target / "model.bin").read_bytes() == WEIGHTS
    deadline = time.monotonic() + 10
    while "directio" not in _options(target) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "directio" in _options(target)
    (layer,) = [path for path in (node.folder / "state" / "content" / "sha256").iterdir() if path.stat().st_size > len(WEIGHTS)]
    with layer.open("rb") as file:
        assert pages.resident_bytes(file.fileno()) < len(WEIGHTS) // 10
    assert (target / "model.bin").read_bytes() == WEIGHTS


def test_a_process_that_will_not_tend_mounts_directly(halted: Node, registry: FakeRegistry) -> None:
    """With nobody to switch it later, a view is mounted direct from the start, warm or not."""
    from csi_model.volumes.engine import open_engine

    reference = push_tars(registry, "llm/car", tar_of({"model.bin": WEIGHTS}))
    with open_engine(halted.folder / "state", halted.config, targets=halted.folder / "targets", tended=False) as engine:
        halted.engine = engine
        assert "directio" in _options(halted.publish(reference))
        halted.unpublish()
        engine.views.release_all()


def test_a_view_that_went_away_meanwhile_is_no_registrys_failure(node: Node) -> None:
    """Whoever found it mounted a moment ago is asked to come again, and no pod is told of a registry."""
    from csi_model.oci.digest import Digest
    from csi_model.tree.view import Selection

    assert node.engine is not None
    with pytest.raises(BusyError, match="try again"), node.engine.views.hold(View(Digest.of(b"m"), Selection()), None):
        pass


def test_view_ids_tell_selections_apart() -> None:
    """The same selection has the same id, another path or glob another one."""
    from csi_model.oci.digest import Digest
    from csi_model.tree.view import Selection

    manifest = Digest.of(b"m")
    selections = [Selection(), Selection.parse(path="a"), Selection.parse(include=("a",)), Selection.parse(exclude=("a",))]
    assert len({View(manifest, selection).id for selection in selections}) == len(selections)
    assert View(manifest, Selection()).id == View(manifest, Selection()).id
