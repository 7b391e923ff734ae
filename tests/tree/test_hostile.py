"""Hostile tars, from bytes to the tree: each is contained or refused. What a tree holds is all that a mount can show."""

from __future__ import annotations

import itertools
import sys
import tarfile

import pytest

from csi_model.errors import UnsupportedError
from csi_model.tree import paths
from csi_model.tree.layers import TarLayer
from csi_model.tree.merge import merge
from csi_model.tree.nodes import Directory, File, Symlink
from tests.tree.archives import LAYER, a_file, a_link, flat, image, info, scanned, streamed, tar_of


def _tree(*members: tarfile.TarInfo) -> Directory:
    data = tar_of(*members)
    entries = scanned(data)
    assert streamed(data, 1000) == entries
    return merge([TarLayer(LAYER, entries, whiteouts=True)])


def _link(name: str, target: str) -> tarfile.TarInfo:
    return info(name, tarfile.SYMTYPE, linkname=target)


def _hard(name: str, target: str) -> tarfile.TarInfo:
    return info(name, tarfile.LNKTYPE, linkname=target)


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "//etc/./x", "a/../../../etc/x", "/../etc/x"])
def test_climbing_and_absolute_names_land_inside(name: str) -> None:
    """`..` ends at the image's root and a leading slash means it: the file is etc/x of the view, as in containerd."""
    assert flat(_tree(info(name, size=3))) == {"etc": "d755", "etc/x": "f3"}


def test_writing_through_an_absolute_link_lands_inside() -> None:
    """`a -> /etc` and then `a/passwd` makes etc/passwd of the view, beside the link."""
    assert flat(_tree(_link("a", "/etc"), info("a/passwd", size=1))) == {"a": "-> /etc", "etc": "d755", "etc/passwd": "f1"}


def test_an_absolute_link_below_the_root_starts_at_the_root() -> None:
    """`d/a -> /etc` means etc of the view and not d/etc."""
    assert flat(_tree(_link("d/a", "/etc"), info("d/a/x", size=1))) == {"d": "d755", "d/a": "-> /etc", "etc": "d755", "etc/x": "f1"}


def test_writing_through_a_climbing_link_lands_inside() -> None:
    """A link that climbs above the root ends at the root."""
    assert flat(_tree(_link("d/a", "../../../../etc"), info("d/a/passwd", size=1)))["etc/passwd"] == "f1"


def test_writing_over_a_link_replaces_it() -> None:
    """A file whose name is that of a link replaces the link; what it pointed at stays as it was."""
    assert flat(_tree(info("f", size=1), _link("l", "f"), info("l", size=2))) == {"f": "f1", "l": "f2"}


def test_a_chain_of_links_longer_than_any_path_is_refused() -> None:
    """CVE-2025-4517's chain of links whose expansion passes PATH_MAX is refused for its length, like any loop."""
    links = [_link(f"l{i}", f"{'d' * 200}/../l{i + 1}") for i in range(60)]
    with pytest.raises(UnsupportedError, match="too many symbolic links"):
        _tree(*links, info("l0/x"))


def test_loops_are_refused_where_they_are_walked() -> None:
    """A link to itself may be shown, but nothing may be placed through it."""
    assert flat(_tree(_link("a", "a"))) == {"a": "-> a"}
    with pytest.raises(UnsupportedError, match="too many symbolic links"):
        _tree(_link("a", "b"), _link("b", "a"), info("a/x"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", [".", "./", "/", "a/..", "", "/."])
def test_the_root_can_only_be_a_directory(kind: bytes, name: str) -> None:
    """An entry that stands for the root and is a link (CVE-2021-29136), a file or a device is refused."""
    with pytest.raises(UnsupportedError, match="root"):
        _tree(info(name, kind, linkname="/etc"))


def test_a_hard_link_out_of_the_image_is_refused() -> None:
    """A hard link to ../../etc/shadow means etc/shadow of the image, which does not exist."""
    with pytest.raises(UnsupportedError, match="hard link"):
        _tree(_hard("x", "../../etc/shadow"))


def test_a_hard_link_to_a_link_and_a_write_through_it_touch_nothing() -> None:
    """A hard link to a link, replaced by a file with other modes, leaves the link and its target alone."""
    tree = _tree(_link("l", "/etc/shadow"), _hard("h", "l"), info("h", size=1, mode=0o4777))
    assert flat(tree) == {"l": "-> /etc/shadow", "h": "f1"}


def test_a_hard_link_through_a_link_stays_inside() -> None:
    """A hard link whose path goes through `a -> /etc` is looked for in the image only."""
    with pytest.raises(UnsupportedError, match="hard link"):
        _tree(_link("a", "/etc"), _hard("x", "a/passwd"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_fifos_are_dropped(kind: bytes) -> None:
    """Device nodes and FIFOs do not reach the tree, which has no inode for them."""
    assert flat(_tree(info("dev/x", kind, devmajor=1, devminor=1), info("f", size=1))) == {"dev": "d755", "f": "f1"}


def test_set_id_and_sticky_bits_are_dropped() -> None:
    """A mode of 07755 becomes 0755, for files and directories."""
    tree = _tree(info("su", mode=0o7755), info("tmp", tarfile.DIRTYPE, mode=0o1777))
    modes = {name: node.mode for name, node in tree.children.items() if not isinstance(node, Symlink)}
    assert modes == {b"su": 0o755, b"tmp": 0o777}


@pytest.mark.parametrize("name", ["security.capability", "trusted.overlay.redirect", "user.overlay.opaque", "security.selinux"])
def test_extended_attributes_are_dropped(name: str) -> None:
    """Attributes in PAX records leave the entry as it is without them: no node has any."""
    node = _tree(info("f", size=1, pax_headers={f"SCHILY.xattr.{name}": "y"})).children[b"f"]
    assert isinstance(node, File)
    assert node.size == 1


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..", ".wh./x"])
def test_whiteouts_of_the_directory_or_its_parent_are_refused(name: str) -> None:
    """A whiteout whose name is empty, `.` or `..` would delete what it stands in or above; it is refused."""
    with pytest.raises(UnsupportedError, match="whiteout"):
        _tree(info("a/b"), info(name))


def test_a_whiteout_through_a_link_stays_inside() -> None:
    """`a -> ../../etc` and then `a/.wh.passwd` hides etc/passwd of lower layers of the image."""
    assert flat(merge(image([a_file("etc/passwd"), a_link("a", "../../etc")], [a_file("a/.wh.passwd")]))) == {
        "etc": "d755",
        "a": "-> ../../etc",
    }


@pytest.mark.parametrize("pattern", ["1" * 40 + "/" + "2" * 300, "x" * 256])
def test_names_that_no_filesystem_stores_are_refused(pattern: str) -> None:
    """A component beyond 255 bytes is refused by name."""
    with pytest.raises(UnsupportedError, match="255"):
        _tree(info(pattern))


def test_links_that_multiply_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that each walk long chains of long links run into one limit for the whole image."""
    monkeypatch.setattr(paths, "_MAX_LINK_STEPS", 100_000)
    links = [a_link(f"l{i}", "./" * 500 + "d/../" * 300 + f"l{i + 1}") for i in range(30)]
    with pytest.raises(UnsupportedError, match="exhaust"):
        merge(image([*links, *(a_file(f"l0/{i}") for i in range(100))]))


def test_repeated_opaque_marks_cost_nothing() -> None:
    """Ten thousand marks in a directory of ten thousand files cost a few calls each, and not one for each file."""
    entries = image([a_file(f"d/f{i}") if i % 2 else a_file("d/.wh..wh..opq") for i in range(20_000)])
    calls = itertools.count()
    sys.setprofile(lambda *_: next(calls))
    try:
        merge(entries)
    finally:
        sys.setprofile(None)
    assert next(calls) < 20_000 * 200
