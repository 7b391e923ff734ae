from __future__ import annotations

import os
from pathlib import Path

import pytest

from csi_model.linux.disk import free_bytes, fsync_directory, space


def test_space_agrees_with_itself(tmp_path: Path) -> None:
    """Free is part of total, for bytes and for inodes, and the short form says the same."""
    seen = space(tmp_path)
    assert 0 < seen.free <= seen.total
    assert 0 < seen.inodes_free <= seen.inodes_total
    assert abs(free_bytes(tmp_path) - seen.free) < seen.total // 10


def test_directories_are_synced_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory itself is what fsync is called on, and its descriptor does not leak."""
    synced: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    before = len(list(Path("/proc/self/fd").iterdir()))
    fsync_directory(tmp_path)
    assert synced == [str(tmp_path)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Syncing the names in a plain file is an error."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        fsync_directory(tmp_path / "file")
