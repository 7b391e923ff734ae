from __future__ import annotations

import os
from pathlib import Path

import pytest

from csi_model.linux.disk import allocate_ahead, free_bytes, fsync_directory, space


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


def test_blocks_past_the_end_change_no_length(tmp_path: Path) -> None:
    """A file has blocks past its end, where the filesystem can, until it is cut to the length that it has."""
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 100)
        file.flush()
        assert allocate_ahead(file.fileno(), 4096, 1 << 20)
        assert os.fstat(file.fileno()).st_size == 100
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20
        file.truncate(100)
        assert os.fstat(file.fileno()).st_blocks * 512 < 1 << 20


def test_what_no_file_can_have_is_not_allocated(tmp_path: Path) -> None:
    """A filesystem that cannot is no error, for writing does without; a bad descriptor is one."""
    with (tmp_path / "file").open("wb") as file:
        assert not allocate_ahead(file.fileno(), 1 << 60, 4096)
    with pytest.raises(OSError, match="fallocate"):
        allocate_ahead(-1, 0, 4096)
