"""What whiteouts, opaque marks and AUFS's bookkeeping do to lower layers and to their own."""

from __future__ import annotations

import pytest

from csi_model.errors import UnsupportedError
from csi_model.tree.merge import merge
from csi_model.tree.nodes import Directory
from tests.tree.archives import a_directory, a_file, a_hard_link, a_link, flat, image


def test_whiteouts_hide_lower_layers_only() -> None:
    """A whiteout removes the lower file and its siblings stay; one in its own layer stays."""
    tree = flat(merge(image([a_file("a", 1), a_file("b", 2)], [a_file("a", 3), a_file(".wh.a"), a_file(".wh.b")])))
    assert tree == {"a": "f3"}


def test_opaque_marks_spare_their_own_layer_before_and_after() -> None:
    """An opaque mark hides all lower siblings but no entry of its layer, wherever it stands."""
    lower = [a_directory("d", mode=0o700), a_file("d/old", 1), a_file("d/e/old", 1)]
    upper = [a_file("d/before", 2), a_file("d/e/kept", 2), a_file("d/.wh..wh..opq"), a_file("d/after", 3)]
    assert flat(merge(image(lower, upper))) == {"d": "d700", "d/before": "f2", "d/e": "d755", "d/e/kept": "f2", "d/after": "f3"}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh...", ".wh.x/y"])
def test_whiteouts_of_no_name_are_refused(name: str) -> None:
    """`.wh.`, `.wh..` and `.wh...`, and paths that lead through a whiteout, are refused by name."""
    with pytest.raises(UnsupportedError, match="whiteout"):
        merge(image([a_file(name)]))


def test_a_hidden_directory_leaves_no_attributes_to_what_replaces_it() -> None:
    """A lower directory that is hidden, but still holds what this layer placed in it, is as new: before or after the whiteout."""
    lower = [a_directory("d", mode=0o700), a_file("d/old", 1)]
    for upper in ([a_file("d/new", 2), a_file(".wh.d")], [a_file(".wh.d"), a_file("d/new", 2)]):
        assert flat(merge(image(lower, upper))) == {"d": "d755", "d/new": "f2"}


def test_whiteouts_of_what_is_not_there_do_nothing() -> None:
    """A whiteout whose directory does not exist, or is a file, leaves no trace."""
    assert flat(merge(image([a_file("f", 1)], [a_file("x/.wh.y"), a_file("f/.wh.y"), a_file("x/.wh..wh..opq"), a_file(".wh.z")]))) == {
        "f": "f1"
    }


def test_aufs_bookkeeping_is_no_part_of_the_image() -> None:
    """Old Docker layers' .wh..wh.plnk, .wh..wh.aufs and .wh..wh.orph are left out."""
    assert flat(merge(image([a_directory(".wh..wh.plnk"), a_file(".wh..wh.plnk/1.2", 1), a_file(".wh..wh.aufs"), a_file("x", 2)]))) == {
        "x": "f2"
    }


def test_hard_links_to_aufs_bookkeeping_share_what_it_keeps() -> None:
    """A file below .wh..wh.plnk is seen under the names that link to it, in its layer or a higher one, as one inode, and under no other."""
    kept = [
        a_directory(".wh..wh.plnk"),
        a_file(".wh..wh.plnk/1.2", 5),
        a_file(".wh..wh.plnk/3.4", 6),
        a_hard_link("usr/a", "/.wh..wh.plnk/1.2"),
    ]
    root = merge(image(kept, [a_hard_link("b", ".wh..wh.plnk/1.2"), a_file(".wh..wh.plnk/1.2", 7), a_hard_link("c", ".wh..wh.plnk/1.2")]))
    assert flat(root) == {"usr": "d755", "usr/a": "f5", "b": "f5", "c": "f7"}
    directory = root.children[b"usr"]
    assert isinstance(directory, Directory)
    assert root.children[b"b"] is directory.children[b"a"]


@pytest.mark.parametrize(
    "target", [".wh..wh.plnk/5.6", ".wh..wh.plnk/l", ".wh..wh.plnk/d/1.2", ".wh..wh.orph/1.2", "d/.wh..wh.plnk/1.2", ".wh..wh.plnk"]
)
def test_hard_links_to_other_aufs_bookkeeping_are_refused(target: str) -> None:
    """What AUFS keeps is a target only as a regular file in .wh..wh.plnk at the root, and only once it is there."""
    kept = [a_link(".wh..wh.plnk/l", "/etc"), *(a_file(f"{parent}/1.2") for parent in (".wh..wh.plnk/d", ".wh..wh.orph", "d/.wh..wh.plnk"))]
    with pytest.raises(UnsupportedError, match="'h' is a hard link to"):
        merge(image([*kept, a_hard_link("h", target), a_file(".wh..wh.plnk/5.6")]))


def test_a_whiteout_removes_a_link_and_not_its_target() -> None:
    """The last component of a whiteout is never followed; the ones before it are."""
    lower = [a_file("real/f", 1), a_file("real/g", 1), a_link("one", "real"), a_link("two", "real")]
    assert flat(merge(image(lower, [a_file(".wh.one"), a_file("two/.wh.g")]))) == {"real": "d755", "real/f": "f1", "two": "-> real"}
