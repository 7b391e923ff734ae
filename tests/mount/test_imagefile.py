from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.erofs.image import Copy, Image
from csi_model.errors import CorruptContentError, NoSpaceError
from csi_model.mount.imagefile import write_image
from tests.mount.conftest import noise

if TYPE_CHECKING:
    from tests.mount.conftest import Store


def _image(store: Store, *, length: int = 100) -> Image:
    layer = store.add(noise(1000, 9))
    return Image(devices=(layer,), size=8192, metadata=((1024, b"super"), (4096, b"inodes")), copies=(Copy(layer, 900, length, 8000),))


def test_pieces_copies_and_zeros(store: Store) -> None:
    """The file holds the pieces and copies at their offsets, zeros everywhere else, and nobody may write it."""
    write_image(_image(store), store.views / "v.erofs", store.layers)
    expected = bytearray(8192)
    expected[1024:1029] = b"super"
    expected[4096:4102] = b"inodes"
    expected[8000:8100] = noise(1000, 9)[900:]
    assert (store.views / "v.erofs").read_bytes() == expected
    assert (store.views / "v.erofs").stat().st_mode & 0o777 == 0o444
    assert [path.name for path in store.views.iterdir()] == ["v.erofs"]


def test_an_image_is_replaced_in_one_step(store: Store) -> None:
    """Writing over an image gives the new one."""
    (store.views / "v.erofs").write_bytes(b"old")
    write_image(_image(store), store.views / "v.erofs", store.layers)
    assert (store.views / "v.erofs").stat().st_size == 8192


def test_the_order_of_sync_and_rename(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file is synced before it has its name, and its directory after."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append(
            "sync directory" if path == store.views else f"sync {path.stat().st_size} bytes, mode {path.stat().st_mode & 0o777:o}"
        )
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    write_image(_image(store), store.views / "v.erofs", store.layers)
    assert events == ["sync 8192 bytes, mode 444", "rename", "sync directory"]


def test_a_short_layer_leaves_nothing(store: Store) -> None:
    """A copy beyond the layer's end is corrupt content, and no file stays."""
    with pytest.raises(CorruptContentError):
        write_image(_image(store, length=101), store.views / "v.erofs", store.layers)
    assert not list(store.views.iterdir())


def test_a_full_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC is our NoSpaceError, names the image, and no file stays."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpaceError, match=r"v\.erofs"):
        write_image(_image(store), store.views / "v.erofs", store.layers)
    assert not list(store.views.iterdir())
