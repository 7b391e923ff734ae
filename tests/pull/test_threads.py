"""No more threads: what pulls do where the process is at its limit, here a count of threads that may still start."""

from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.pull import fetch
from csi_model.pull.pool import PIECE
from csi_model.pull.puller import LayerWant, Puller
from tests.pull.conftest import MemorySource, noise, pull

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Says how many threads may still start; None for any number."""
    start, left = threading.Thread.start, list[int | None]([None])

    def limited(thread: threading.Thread) -> None:
        if left[0] is not None:
            if not left[0]:
                msg = "can't start new thread"
                raise RuntimeError(msg)
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return lambda count: left.__setitem__(0, count)


def test_a_pull_that_gets_no_thread_fails_at_once_and_leaves_nothing(
    source: MemorySource, pulling: Callable[..., Puller], allow: Callable[[int | None], None]
) -> None:
    """It is told to come again, and the next pull of the same layer begins anew."""
    puller, want = pulling(), LayerWant(source.add(b"weights"))
    allow(0)
    with pytest.raises(BusyError, match="no more threads"):
        puller.pull(source, [want], write_mode=WriteMode.BUFFERED)
    allow(None)
    assert pull(puller, source, want)[0].size == 7


def test_layers_wait_for_the_threads_that_there_are(
    source: MemorySource, pulling: Callable[..., Puller], allow: Callable[[int | None], None]
) -> None:
    """A pull that gets one thread pulls all of its layers with it, one after another, of every kind and size."""
    big = noise(5 * PIECE)
    wants = [LayerWant(source.add(big)), LayerWant(source.add(gzip.compress(big, 1)), Compression.GZIP), LayerWant(source.add(b"weights"))]
    allow(1)
    assert [layer.size for layer in pull(pulling(), source, *wants)] == [len(big), len(big), 7]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_layer_goes_wide_as_far_as_threads_allow(
    source: MemorySource,
    pulling: Callable[..., Puller],
    allow: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    """Where no second connection can have a thread, the first goes on."""
    monkeypatch.setattr(fetch, "_SLOW_PIECE", 0.0)
    monkeypatch.setattr(fetch, "_WAITING", 0.0)
    monkeypatch.setattr(fetch, "_BUSY", 2.0)
    data = noise(12 * PIECE)
    want = LayerWant(source.add(data))
    allow(threads)
    assert pull(pulling(connections_per_blob=3), source, want)[0].size == len(data)
