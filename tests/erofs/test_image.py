"""build_image, judged by a reader that shares no code with it."""

from __future__ import annotations

import stat
import struct

import pytest
from hypothesis import HealthCheck, given, settings

from csi_model.erofs.image import Image, build_image
from csi_model.erofs.layout import MAX_TARGET
from csi_model.errors import UnsupportedError
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Symlink
from tests.erofs.reader import Inode, Reader
from tests.erofs.trees import Case, assemble, cases, content, noise, raw_file, walk


def _open(case: Case, block_bits: int = 9) -> tuple[Image, Reader]:
    image = build_image(case.root, case.lengths, block_bits=block_bits)
    return image, Reader(assemble(image, case.layers), [case.layers[digest] for digest in image.devices])


def _links(case: Case) -> dict[int, int]:
    counts: dict[int, int] = {id(case.root): 2 + sum(isinstance(child, Directory) for child in case.root.children.values())}
    for _, node in walk(case.root):
        if isinstance(node, Directory):
            counts[id(node)] = 2 + sum(isinstance(child, Directory) for child in node.children.values())
        else:
            counts[id(node)] = counts.get(id(node), 0) + 1
    return counts


def _check(case: Case, block_bits: int) -> None:
    image, reader = _open(case, block_bits)
    found = dict(reader.walk())
    wanted = dict(walk(case.root))
    assert found.keys() == wanted.keys()
    links = _links(case)
    nids: dict[int, int] = {}
    for path, node in {**wanted, b"": case.root}.items():
        inode: Inode = found[path] if path else reader.root
        assert nids.setdefault(id(node), inode.nid) == inode.nid
        assert (inode.uid, inode.gid, inode.mtime_ns) == (node.uid, node.gid, node.mtime_ns)
        assert inode.nlink == links[id(node)]
        if isinstance(node, File):
            assert inode.mode == stat.S_IFREG | node.mode
            assert reader.read(inode) == content(node, case.layers)
        elif isinstance(node, Symlink):
            assert inode.mode == stat.S_IFLNK | 0o777
            assert reader.read(inode) == node.target
        else:
            assert inode.mode == stat.S_IFDIR | node.mode
    assert len(set(nids.values())) == len(nids) == reader.inodes
    assert image.size % 4096 == 0
    assert reader.blocks << block_bits == image.size


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases())
def test_every_tree_reads_back_as_it_was(case: Case) -> None:
    """Names, bytes, modes, owners, times, links and targets of any tree come back from the image, with blocks of 512 and of 4096 bytes."""
    _check(case, 9)
    _check(case, 12)


def test_the_same_tree_gives_the_same_bytes() -> None:
    """An image depends on nothing but its tree and layers, and its uuid on all that it says."""
    body = noise(5000)
    digest = Digest.of(body)

    def build(mtime: int, length: int = 5000) -> Image:
        root = Directory(children={b"a": raw_file(digest, 5000), b"b": Symlink(b"a", 0, 0, mtime)})
        return build_image(root, {digest: length})

    assert build(0) == build(0)
    uuids = {assemble(image, {digest: body})[1072:1088] for image in (build(0), build(1), build(0, 5001))}
    assert len(uuids) == 3
    assert all((uuid[6] >> 4, uuid[8] >> 6) == (8, 2) for uuid in uuids)


def test_devices_are_only_the_layers_that_chunks_point_into() -> None:
    """A layer that is only copied from, or that no file uses, takes no device slot; slots are in order of first use and tagged."""
    bodies = [noise(length, length) for length in (4096, 100, 8192, 512)]
    digests = [Digest.of(body) for body in bodies]
    root = Directory(
        children={b"1": raw_file(digests[2], 8192), b"2": raw_file(digests[1], 100), b"3": raw_file(digests[0], 4096)},
    )
    image, reader = _open(Case(root, dict(zip(digests, bodies, strict=True))))
    assert image.devices == (digests[2], digests[0])
    assert reader.tags == [digests[2].hex.encode(), digests[0].hex.encode()]
    assert reader.device_blocks == [16, 8]
    assert [(copy.layer, copy.length) for copy in image.copies] == [(digests[1], 100)]


def test_a_tree_without_data_needs_no_device() -> None:
    """An image of nothing but an empty file has no device table, and the smallest size there is."""
    image, reader = _open(Case(Directory(children={b"empty": raw_file(Digest.of(b""), 0)}), {}))
    assert (image.devices, image.size, image.copies) == ((), 4096, ())
    assert [(path, reader.read(inode)) for path, inode in reader.walk()] == [(b"/empty", b"")]


def test_no_privilege_bits_reach_an_image() -> None:
    """Setuid, setgid and sticky bits are dropped even if a node has them."""
    root = Directory(mode=0o3755, children={b"su": File(0o6755, 0, 0, 0, 0, ())})
    _, reader = _open(Case(root, {}))
    assert reader.root.mode == stat.S_IFDIR | 0o755
    assert [inode.mode for _, inode in reader.walk()] == [stat.S_IFREG | 0o755]


def test_no_inode_has_the_number_zero() -> None:
    """The root's number is not 0, which readdir's users take for a deleted entry."""
    _, reader = _open(Case(Directory(), {}))
    assert reader.root_nid > 0


def test_a_large_directory_is_found_by_bisection() -> None:
    """Every one of 1,500 names of all lengths is found, and names beside them are not."""
    root = Directory(children={b"%05d" % number + b"n" * (number % 251): File(0o644, 0, 0, 0, 0, ()) for number in range(1500)})
    _, reader = _open(Case(root, {}))
    found = dict(reader.walk())
    assert found.keys() == dict(walk(root)).keys()
    assert all(reader.lookup(reader.root, name) is None for name in (b"", b"00000 ", b"01499n", b"~", b"!"))


def test_metadata_comes_in_pieces_of_bounded_size() -> None:
    """A large image is handed out in pieces of about a megabyte, in order, and reads back whole."""
    body = noise(512)
    digest = Digest.of(body)
    root = Directory(children={b"%07d" % number: raw_file(digest, 512) for number in range(20_000)})
    image, reader = _open(Case(root, {digest: body}))
    assert len(image.metadata) >= 3
    assert max(len(data) for _, data in image.metadata) < 2 << 20
    assert sum(1 for _ in reader.entries(reader.root)) == 20_002


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 256])
def test_names_that_no_directory_can_hold_are_refused(name: bytes) -> None:
    """A bad name is refused, and the message says in which directory it is."""
    root = Directory(children={b"d": Directory(children={name: raw_file(Digest.of(b""), 0)})})
    with pytest.raises(UnsupportedError, match=r"^/d: "):
        build_image(root, {})


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * (MAX_TARGET + 1)])
def test_targets_that_no_symlink_can_hold_are_refused(target: bytes) -> None:
    """A bad symlink target is refused, and the message names the link."""
    with pytest.raises(UnsupportedError, match=r"^/d/link: "):
        build_image(Directory(children={b"d": Directory(children={b"link": Symlink(target, 0, 0, 0)})}), {})


def test_a_directory_in_two_places_is_refused() -> None:
    """A directory reached twice would be a cycle or a hard link, and is refused by its second path."""
    twice = Directory()
    with pytest.raises(UnsupportedError, match=r"^/b: a directory cannot be in two places"):
        build_image(Directory(children={b"a": twice, b"b": twice}), {})


@pytest.mark.parametrize("field", ["uid", "gid", "mtime_ns"])
def test_numbers_that_do_not_fit_are_refused(field: str) -> None:
    """An owner beyond 32 bits or a time beyond 64 is refused, and the message names the path."""
    values = {"uid": 0, "gid": 0, "mtime_ns": 0, field: 2**94}
    file = File(0o644, size=0, segments=(), **values)
    with pytest.raises(UnsupportedError, match=r"^/d/f: "):
        build_image(Directory(children={b"d": Directory(children={b"f": file})}), {})


def test_the_superblock_checksum_is_crc32c() -> None:
    """The stored checksum is the CRC-32C of the superblock's block, computed here bit by bit."""
    digest = Digest.of(b"x" * 512)
    for bits in (9, 12):
        root = Directory(children={b"f": File(0o644, 0, 0, 0, 512, (Extent(digest, 0, 512),))})
        data = assemble(build_image(root, {digest: 512}, block_bits=bits), {digest: b"x" * 512})
        block = bytearray(data[1024 : 1536 if bits == 9 else 4096])
        stored = struct.unpack_from("<I", block, 4)[0]
        block[4:8] = bytes(4)
        register = 0xFFFFFFFF
        for byte in block:
            register ^= byte
            for _ in range(8):
                register = (register >> 1) ^ (0x82F63B78 * (register & 1))
        assert stored == register
