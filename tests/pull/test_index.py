"""Indexes that come with a pull: small ones, for those of a model's layers are in memory at a time."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from csi_model.pull import puller as pulls
from csi_model.pull.puller import LayerWant, Puller
from tests.pull.conftest import MemorySource, pull

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def a_tar(entries: int, name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(entries):
            archive.addfile(tarfile.TarInfo(f"{name}/{number}"))
    return out.getvalue()


def test_indexes_of_a_pull_share_their_memory(
    source: MemorySource, pulling: Callable[..., Puller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that takes more than its layer's share of what a pull may keep is left out; alone, the same layer keeps its own."""
    monkeypatch.setattr(pulls, "_KEPT", 60_000)
    shared = pulling()
    small, middle, large = (LayerWant(source.add(a_tar(count, "a")), index=True) for count in (10, 150, 1000))
    results = pull(shared, source, small, middle, large)
    assert [None if layer.entries is None else len(layer.entries) for layer in results] == [10, None, None]
    alone = LayerWant(source.add(a_tar(150, "b")), index=True)
    (layer,) = pull(shared, source, alone)
    assert layer.entries is not None
    assert len(layer.entries) == 150
