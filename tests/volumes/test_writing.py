"""How pulls that run side by side are written."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import pytest

from csi_model.linux import memory
from csi_model.mount.strategy import WriteMode
from csi_model.pull.progress import Progress
from csi_model.volumes.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Sequence

GIB = 1 << 30
FREE = 10 * GIB


class _Pull:
    """A pull that somebody watches."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def progress(self) -> Progress:
        return Progress(self.total, self.done, None, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Puller:
    """Notes how it was told to write."""

    def __init__(self) -> None:
        self.modes: list[WriteMode] = []

    def pull(self, _source: object, _wants: Sequence[object], *, write_mode: WriteMode) -> _Pull:
        self.modes.append(write_mode)
        return _Pull()


@pytest.fixture
def puller() -> _Puller:
    return _Puller()


@pytest.fixture(params=["machine", "cgroup"])
def writing(request: pytest.FixtureRequest, puller: _Puller, monkeypatch: pytest.MonkeyPatch) -> Writing:
    """Ten GiB are free, by the machine's or by the cgroup's word."""
    limited = request.param == "cgroup"
    monkeypatch.setattr(memory, "available_bytes", lambda: FREE * 2 if limited else FREE)
    monkeypatch.setattr(memory, "cgroup_room", lambda: FREE if limited else None)
    return Writing(puller)  # type: ignore[arg-type]


def _begin(stack: ExitStack, writing: Writing, gibibytes: int) -> _Pull:
    pull: _Pull = stack.enter_context(writing.pull(None, (), missing=gibibytes * GIB, all_whole_raw=True))  # type: ignore[arg-type,assignment]
    pull.total = gibibytes * GIB
    return pull


def test_two_pulls_do_not_count_on_the_same_memory(writing: Writing, puller: _Puller) -> None:
    """What fits alone does not beside what another pull has still to write, and does again as that gets further, and when it ends."""
    with ExitStack() as stack:
        first = _begin(stack, writing, 6)
        with ExitStack() as others:
            _begin(others, writing, 6)
        first.done = 4 * GIB
        with ExitStack() as others:
            _begin(others, writing, 6)
    with ExitStack() as stack:
        _begin(stack, writing, 9)
    assert puller.modes == [WriteMode.BUFFERED, WriteMode.DIRECT, WriteMode.BUFFERED, WriteMode.BUFFERED]


def test_what_is_written_past_the_cache_fills_nothing(writing: Writing, puller: _Puller) -> None:
    """A model that is too large for the memory takes none of it away from a small one."""
    with ExitStack() as stack:
        _begin(stack, writing, 100)
        _begin(stack, writing, 6)
    assert puller.modes == [WriteMode.DIRECT, WriteMode.BUFFERED]
