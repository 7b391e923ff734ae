"""build_image, judged by the kernel: images are mounted for real and every file is read back."""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from csi_model.erofs.image import build_image
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Hole, Symlink
from tests.erofs.conftest import mount_erofs
from tests.erofs.trees import Case, assemble, cases, content, noise, raw_file, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from csi_model.tree.nodes import Node

pytestmark = pytest.mark.root

_SIZES = (0, 1, 511, 512, 513, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (16 << 20) + 12_345)
_SECOND = 10**9


def _mount(case: Case, directory: Path, options: tuple[str, ...]) -> AbstractContextManager[Path]:
    image = build_image(case.root, case.lengths)
    (directory / "image").write_bytes(assemble(image, case.layers))
    for digest, data in case.layers.items():
        (directory / digest.hex).write_bytes(data)
    return mount_erofs(directory / "image", [directory / digest.hex for digest in image.devices], directory / "view", options)


def _mapped(path: bytes) -> bytes:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:  # noqa: PTH123 - paths are bytes
        return bytes(mapping)


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - paths are bytes
        return file.read()


def _shown(view: Path) -> Iterator[bytes]:
    for directory, names, files in os.walk(os.fsencode(view)):
        for name in names + files:
            yield directory[len(os.fsencode(view)) :] + b"/" + name


def _check_node(path: bytes, node: Node, layers: Mapping[Digest, bytes]) -> None:
    status = os.lstat(path)
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (node.uid, node.gid, node.mtime_ns)
    if isinstance(node, File):
        wanted = content(node, layers)
        assert (status.st_mode, status.st_size) == (stat.S_IFREG | node.mode, node.size)
        assert _read(path) == wanted
        assert not wanted or _mapped(path) == wanted
    elif isinstance(node, Symlink):
        assert stat.S_ISLNK(status.st_mode)
        assert os.readlink(path) == node.target  # noqa: PTH115  (Path.readlink turns "./" into ".")
    else:
        assert status.st_mode == stat.S_IFDIR | node.mode


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cases())
def test_every_tree_is_what_the_kernel_shows(options: tuple[str, ...], tmp_path: Path, case: Case) -> None:
    """Names, bytes by read and by mmap, modes, owners, times and targets of any tree are what the mount shows, and nothing else."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as directory, _mount(case, Path(directory), options) as view:
        wanted = dict(walk(case.root))
        assert set(_shown(view)) == wanted.keys()
        for path, node in {**wanted, b"": case.root}.items():
            _check_node(os.fsencode(view) + path, node, case.layers)


def test_raw_layers_of_awkward_sizes_read_back(options: tuple[str, ...], tmp_path: Path) -> None:
    """A raw layer of any length, padded or not, reads back byte-equal by read, by mmap and up to its very last byte."""
    bodies = [noise(size, size) for size in _SIZES]
    layers = {Digest.of(body): body for body in bodies}
    root = Directory(children={b"%d" % len(body): raw_file(digest, len(body)) for digest, body in layers.items()})
    with _mount(Case(root, layers), tmp_path, options) as view:
        for body in bodies:
            path = os.fsencode(view / str(len(body)))
            assert _read(path) == body
            assert not body or _mapped(path) == body


def test_files_in_a_tar_read_back(options: tuple[str, ...], tmp_path: Path) -> None:
    """Files at 512-byte offsets of one layer, with what follows them in the tar right behind, show their own bytes and no more."""
    offsets = [512 * (3 + 11 * number) for number in range(100)]
    body = noise(offsets[-1] + 512 * 11)
    digest = Digest.of(body)
    root = Directory()
    for number, offset in enumerate(offsets):
        root.children[b"%d" % number] = File(0o644, 0, 0, 0, 5000 + number, (Extent(digest, offset, 5000 + number),))
    with _mount(Case(root, {digest: body}), tmp_path, options) as view:
        for number, offset in enumerate(offsets):
            path = os.fsencode(view / str(number))
            assert _read(path) == _mapped(path) == body[offset : offset + 5000 + number]


def test_sparse_files_read_back(options: tuple[str, ...], tmp_path: Path) -> None:
    """Null chunks read as zeros, copied chunks as data beside zeros, by read and by mmap."""
    body = noise(1 << 20)
    digest = Digest.of(body)
    segments: dict[bytes, tuple[Extent | Hole, ...]] = {
        b"aligned": (Hole(8192), Extent(digest, 0, 4096), Hole(1 << 20), Extent(digest, 4096, 1000)),
        b"odd": (Extent(digest, 7, 10_000), Hole(100_001), Extent(digest, 513, 1), Hole(1)),
        b"blocks": (Extent(digest, 512, 512), Hole(512), Extent(digest, 1024, 1536), Hole(5 * 512), Extent(digest, 4096, 70_000)),
        b"nothing": (Hole(1 << 30),),
    }
    root = Directory()
    for name, parts in segments.items():
        root.children[name] = File(0o644, 0, 0, 0, sum(part.length for part in parts), parts)
    with _mount(Case(root, {digest: body}), tmp_path, options) as view:
        for name in (b"aligned", b"odd", b"blocks"):
            path = os.fsencode(view) + b"/" + name
            node = root.children[name]
            assert isinstance(node, File)
            assert _read(path) == _mapped(path) == content(node, {digest: body})
        with (view / "nothing").open("rb") as file:
            assert file.seek(0, os.SEEK_END) == 1 << 30
            file.seek((1 << 30) - 4096)
            assert file.read() == bytes(4096)


def test_hard_links_share_one_inode(tmp_path: Path) -> None:
    """One file under three names, in two directories, is one inode with three links."""
    body = noise(3000)
    digest = Digest.of(body)
    file = File(0o640, 7, 8, 123 * _SECOND + 456, 3000, (Extent(digest, 0, 3000),))
    root = Directory(children={b"a": file, b"d": Directory(children={b"b": file, b"c": file})})
    with _mount(Case(root, {digest: body}), tmp_path, ()) as view:
        found = [os.lstat(view / name) for name in ("a", "d/b", "d/c")]
        assert {status.st_ino for status in found} == {found[0].st_ino}
        assert {status.st_nlink for status in found} == {3}
        assert (view / "d").stat().st_nlink == 2
        assert view.stat().st_nlink == 3


def test_large_directories_are_listed_and_searched(tmp_path: Path) -> None:
    """Ten thousand names, long and short, are all listed once and all found; others are not."""
    names = [b"%05d" % number + b"-" * (number % 250) for number in range(10_000)]
    root = Directory(children={name: File(0o644, 0, 0, 0, 0, ()) for name in names})
    with _mount(Case(root, {}), tmp_path, ()) as view:
        assert sorted(os.fsencode(path.name) for path in view.iterdir()) == sorted(names)
        assert all(os.path.lexists(os.fsencode(view) + b"/" + name) for name in names)
        assert not any((view / name).exists() for name in ("99999", "00000-", "x", "!"))


def test_huge_sparse_layers_are_reached_to_their_end(options: tuple[str, ...], tmp_path: Path) -> None:
    """The last bytes of a raw layer of 1.5 TiB and 1 byte, and of a file of 300 GiB far inside it, are the right ones."""
    size, start, length = (3 << 39) + 1, (1 << 40) + 1536, 300 << 30
    digest = Digest.of(b"huge")
    root = Directory(children={b"all": raw_file(digest, size), b"part": File(0o644, 0, 0, 0, length, (Extent(digest, start, length),))})
    image = build_image(root, {digest: size})
    layer = tmp_path / "layer"
    with layer.open("wb") as file:
        file.truncate(size)
        for place in (0, start, start + length - 16, size - 16):
            file.seek(place)
            file.write(b"at %-13d" % place)
    with (tmp_path / "image").open("wb") as file:
        file.truncate(image.size)
        for offset, data in image.metadata:
            file.seek(offset)
            file.write(data)
        with layer.open("rb") as source:
            for copy in image.copies:
                source.seek(copy.offset)
                file.seek(copy.image_offset)
                file.write(source.read(copy.length))
    with mount_erofs(tmp_path / "image", [layer], tmp_path / "view", options) as view:
        for name, base, total in (("all", 0, size), ("part", start, length)):
            with (view / name).open("rb") as file:
                assert file.seek(0, os.SEEK_END) == total
                for place in (0, start, start + length - 16, size - 16):
                    if base <= place <= base + total - 16:
                        file.seek(place - base)
                        assert file.read(16) == b"at %-13d" % place


def test_statfs_and_write_protection(tmp_path: Path) -> None:
    """The sizes that statfs gives are in 512-byte blocks, those of image and layers together, none of them free; writing is refused."""
    body = noise(8192)
    digest = Digest.of(body)
    with _mount(Case(Directory(children={b"f": raw_file(digest, 8192)}), {digest: body}), tmp_path, ()) as view:
        status = os.statvfs(view)
        assert (status.f_bsize, status.f_blocks, status.f_bfree) == (512, (4096 + 8192) // 512, 0)
        with pytest.raises(OSError, match="Read-only"):
            (view / "new").touch()


def test_hundreds_of_layers_mount(options: tuple[str, ...], tmp_path: Path) -> None:
    """A view of 300 layers gives every file its own layer's bytes, which proves the order of the device slots."""
    bodies = [noise(512 + number, number) for number in range(300)]
    layers = {Digest.of(body): body for body in bodies}
    root = Directory(children={digest.hex.encode(): raw_file(digest, len(body)) for digest, body in layers.items()})
    big = {Digest.of(body): body for body in (noise(4096 + 512 * number, 1000 + number) for number in range(300))}
    for digest, body in big.items():
        root.children[digest.hex.encode()] = raw_file(digest, len(body))
    with _mount(Case(root, {**layers, **big}), tmp_path, options) as view:
        for digest, body in {**layers, **big}.items():
            assert (view / digest.hex).read_bytes() == body
