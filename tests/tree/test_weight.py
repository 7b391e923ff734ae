"""Memory that layers' entries may take: names, links and maps, which compress to nothing."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import UnsupportedError
from csi_model.oci.digest import Digest
from csi_model.tree import archive, merge
from csi_model.tree.entries import Kind, Segment, TarEntry
from csi_model.tree.layers import TarLayer
from csi_model.tree.tar import scan
from csi_model.tree.view import Selection, build
from tests.tree.archives import END, block, extended

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watched(TarLayer):
    """A layer that can be watched."""


def entry(name: bytes, *, link: bytes = b"", sparse: tuple[Segment, ...] | None = None) -> TarEntry:
    return TarEntry(Kind.SYMLINK if link else Kind.FILE, name, 0o644, 0, 0, 0, link=link, sparse=sparse)


def test_names_links_and_maps_have_weight() -> None:
    """An entry weighs more by its name, its link, and each segment of its map."""
    plain = entry(b"a").weight
    assert entry(b"a" * 101).weight == plain + 100
    assert entry(b"a", link=b"b" * 100).weight == plain + 100
    assert entry(b"a", sparse=(Segment(0, 0),) * 10).weight >= plain + 640


def test_a_layer_of_long_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few entries may be too many when each has a long name or link."""
    monkeypatch.setattr(archive, "MAX_WEIGHT", 20_000)
    short = b"".join(block(name=b"%d" % n) for n in range(10)) + END
    assert len(scan(lambda at, length: short[at : at + length], len(short))) == 10
    for kind in b"L", b"K":
        data = b"".join(extended(kind, b"n" * 4000) + block(name=b"%d" % n, type=b"2") for n in range(10)) + END
        with pytest.raises(UnsupportedError, match="names, links and sparse maps of the layer"):
            scan(lambda at, length, data=data: data[at : at + length], len(data))  # type: ignore[misc]


def test_layers_are_weighed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers each of which is within the limit are refused when all of them are not, even where they replace each other's names."""
    monkeypatch.setattr(merge, "MAX_WEIGHT", 20_000)
    layers = [TarLayer(Digest.of(b"%d" % n), (entry(b"a", link=b"n" * 3000),), whiteouts=True) for n in range(7)]
    build(layers[:5], Selection())
    with pytest.raises(UnsupportedError, match="names, links and sparse maps of the image"):
        build(layers, Selection())


def test_one_layer_at_a_time_is_in_memory() -> None:
    """A layer's entries are gone when the next layer is asked for."""
    alive = list[weakref.ref[TarLayer]]()

    def layers() -> Iterator[TarLayer]:
        for number in range(3):
            gc.collect()
            assert [ref for ref in alive if ref() is not None] == []
            layer = Watched(Digest.of(b"%d" % number), (entry(b"%d" % number),), whiteouts=True)
            alive.append(weakref.ref(layer))
            yield layer
            del layer

    build(layers(), Selection())
    assert len(alive) == 3
