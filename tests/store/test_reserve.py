"""What is kept for the day on which the disk is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.linux.disk import Space
from csi_model.store import reserve as reserve_module
from csi_model.store.reserve import Reserve
from csi_model.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _blocks(root: Path) -> int:
    return (root / "reserve").stat().st_blocks * 512


def test_a_store_keeps_blocks_and_gives_them_up_in_steps(root: Path) -> None:
    """18 MiB, real blocks; three steps, then nothing is left to give; the next opening takes them again."""
    with Store.open(root, writable=True) as store:
        assert _blocks(root) >= 18 << 20
        assert store.reserve.lend()
        assert 12 << 20 <= _blocks(root) < 13 << 20
        assert [store.reserve.lend() for _ in range(4)] == [True, True, False, False]
        assert _blocks(root) == 0
    with Store.open(root, writable=True):
        assert _blocks(root) >= 18 << 20


def test_what_is_not_short_is_not_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free inode it is the spare ones that are lent, a step at a time; blocks only when there are none of those either."""
    with Store.open(root, writable=True) as store:
        assert len(list((root / "spare").iterdir())) == 24
        monkeypatch.setattr(reserve_module, "space", lambda _: Space(1 << 40, 1 << 30, 1000, 7))
        assert store.reserve.lend()
        assert len(list((root / "spare").iterdir())) == 16
        assert [store.reserve.lend() for _ in range(3)] == [True, True, False]
        assert not list((root / "spare").iterdir())
        assert _blocks(root) >= 18 << 20
        monkeypatch.setattr(reserve_module, "free_bytes", lambda _: 0)
        assert store.reserve.lend()
        assert _blocks(root) < 18 << 20


def test_a_filesystem_that_counts_no_inodes_keeps_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where inodes are made as they are needed, there is nothing to keep, and blocks are what is lent."""
    monkeypatch.setattr(reserve_module, "space", lambda _: Space(1 << 40, 1 << 30, 0, 0))
    with Store.open(root, writable=True) as store:
        assert not (root / "spare").exists()
        assert store.reserve.lend()
        assert _blocks(root) < 18 << 20


def test_a_disk_with_little_room_keeps_what_it_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reserve is not taken from a disk that is nearly full, and there is then nothing to lend."""
    monkeypatch.setattr(reserve_module, "free_bytes", lambda _: 50 << 20)
    with Store.open(root, writable=True) as store:
        assert not (root / "reserve").exists()
        assert not store.reserve.lend()


def test_a_reserve_that_cannot_be_had_ends_nothing(tmp_path: Path) -> None:
    """Something else in its place is left alone."""
    (tmp_path / "reserve").mkdir()
    (tmp_path / "spare").touch()
    Reserve(tmp_path).refill()
    assert (tmp_path / "reserve").is_dir()
    assert (tmp_path / "spare").is_file()
