"""Views: subtrees, globs, rewritten links and totals."""

from __future__ import annotations

import pytest

from csi_model.errors import InvalidRequestError, NotFoundError
from csi_model.oci.digest import Digest
from csi_model.tree.entries import Kind, TarEntry
from csi_model.tree.layers import FileLayer, TarLayer
from csi_model.tree.nodes import Directory, Symlink
from csi_model.tree.view import Selection, Totals, build, totals, used
from tests.tree.archives import LAYER, a_directory, a_file, a_hard_link, a_link, flat, image

_ENTRIES = [
    a_file("README.md", 1),
    a_directory("models", mode=0o711),
    a_file("models/a.bin", 2),
    a_file("models/a.json", 3),
    a_file("models/sub/b.bin", 4),
    a_directory("models/empty"),
    a_link("latest", "models"),
]


def _view(path: str = "", include: list[str] | None = None, exclude: list[str] | None = None) -> dict[str, str]:
    return flat(build(image(_ENTRIES), Selection.parse(path=path, include=include or [], exclude=exclude or [])))


def test_the_whole_image_is_shown_by_default() -> None:
    """No path and no globs show everything."""
    assert len(_view()) == 8


@pytest.mark.parametrize("path", ["models", "/models/", "./models", "latest"])
def test_a_path_shows_its_subtree(path: str) -> None:
    """A subtree is shown as the root, slashes aside, also by way of a link; the root takes the directory's attributes."""
    root = build(image(_ENTRIES), Selection.parse(path=path))
    assert root.mode == 0o711
    assert flat(root) == {"a.bin": "f2", "a.json": "f3", "sub": "d755", "sub/b.bin": "f4", "empty": "d755"}


def test_a_missing_path_says_what_there_is() -> None:
    """A path that does not exist is answered with the nearest directory and some of what it holds."""
    with pytest.raises(NotFoundError, match=r"'models/x/y' does not exist .*'models' holds 'a.bin', 'a.json', 'empty', 'sub'$"):
        _view("models/x/y")
    with pytest.raises(NotFoundError, match=r"root holds 'README.md', 'latest', 'models'$"):
        _view("model")
    with pytest.raises(NotFoundError, match="'models/empty' holds nothing"):
        _view("models/empty/x")
    many = image([a_file(f"f{i:02}") for i in range(20)])
    with pytest.raises(NotFoundError, match="'f07', …"):
        build(many, Selection("x"))


@pytest.mark.parametrize("path", ["README.md", "models/a.bin", "README.md/x", "loop", "loop/x"])
def test_a_path_to_a_file_is_refused(path: str) -> None:
    """Only directories can be shown: a file, a path through one and a loop of links are refused as invalid."""
    with pytest.raises(InvalidRequestError, match="not a directory"):
        build(image([*_ENTRIES, a_link("loop", "loop")]), Selection(path))


@pytest.mark.parametrize("path", ["..", "a/../b", "a\0b", "x" * 4097])
def test_paths_that_climb_are_refused(path: str) -> None:
    """A path with `..` or NUL, or an overlong one, is refused before anything is pulled."""
    with pytest.raises(InvalidRequestError, match="path"):
        Selection.parse(path=path)


def test_equal_selections_are_equal() -> None:
    """Slashes, order and repetition do not make another view."""
    one = Selection.parse(path="/a//b/", include=["y", "x", "y"], exclude=["z"])
    assert one == Selection("a/b", ("x", "y"), ("z",)) == Selection.parse(path="a/b", include=["x", "y"], exclude=["z"])


def test_patterns_are_limited_and_validated() -> None:
    """More than 64 patterns, or a malformed one, are refused when they are given."""
    with pytest.raises(InvalidRequestError, match="65 patterns"):
        Selection.parse(include=[str(i) for i in range(65)])
    with pytest.raises(InvalidRequestError, match="not closed"):
        Selection.parse(exclude=["[a"])


def test_include_keeps_matches_and_their_parents() -> None:
    """What no pattern matches is gone, and so are directories left empty."""
    assert _view(include=["*.bin"]) == {"models": "d711", "models/a.bin": "f2", "models/sub": "d755", "models/sub/b.bin": "f4"}


def test_a_matched_directory_stands_for_what_is_below_it() -> None:
    """A pattern that matches a directory includes, or excludes, all that is below it, also when it is empty."""
    assert _view(include=["sub"]) == {"models": "d711", "models/sub": "d755", "models/sub/b.bin": "f4"}
    assert _view(include=["models/empty"]) == {"models": "d711", "models/empty": "d755"}
    assert _view(exclude=["models"]) == {"README.md": "f1", "latest": "-> models"}


def test_exclude_wins_and_removes_what_it_empties() -> None:
    """A path both included and excluded is gone; a directory emptied so goes, one that was empty before stays."""
    assert _view(include=["models"], exclude=["a.*"]) == {
        "models": "d711",
        "models/sub": "d755",
        "models/sub/b.bin": "f4",
        "models/empty": "d755",
    }
    assert _view(exclude=["*.bin", "latest", "README.md"]) == {"models": "d711", "models/a.json": "f3", "models/empty": "d755"}


def test_a_directory_included_by_name_stays_though_exclude_empties_it() -> None:
    """A directory that an include matches is shown even when nothing in it is left."""
    assert _view(include=["sub"], exclude=["*.bin"]) == {"models": "d711", "models/sub": "d755"}


def test_globs_are_over_placed_paths_also_in_a_subtree() -> None:
    """Patterns with a slash are relative to the image's root, whatever the path, and by way of a link to the real place."""
    for path in ("models", "latest"):
        assert _view(path, include=["models/*.bin"]) == {"a.bin": "f2"}
        assert set(_view(path, include=["models"])) == {"a.bin", "a.json", "sub", "sub/b.bin", "empty"}
        with pytest.raises(NotFoundError, match="leave nothing"):
            _view(path, include=["/a.bin"])


def test_globs_that_leave_nothing_are_said_so() -> None:
    """An empty view by a mistyped pattern is an error, an empty image is not."""
    with pytest.raises(NotFoundError, match="leave nothing of the image's root"):
        _view(include=["*.safetensor"])
    with pytest.raises(NotFoundError, match="leave nothing of the directory 'models'"):
        _view("models", exclude=["models"])
    assert flat(build([], Selection())) == {}


def _links(*links: tuple[str, str], path: str = "models") -> dict[str, str]:
    entries = [*_ENTRIES, a_link("way", "/models/sub"), *(a_link("models/" + name, target) for name, target in links)]
    return {name: what for name, what in flat(build(image(entries), Selection(path))).items() if what.startswith("->")}


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("l", "/models/a.bin", "a.bin"),
        ("sub/l", "/models/a.bin", "../a.bin"),
        ("sub/l", "/latest/sub/b.bin", "../sub/b.bin"),
        ("l", "/models", "."),
        ("sub/l", "//models/./", ".."),
        ("l", "/models/missing/x", "missing/x"),
        ("l", "/../models/a.bin", "a.bin"),
        ("sub/l", "/models/sub/../a.bin", "../sub/../a.bin"),
        ("l", "/way/b.bin", "sub/b.bin"),
        ("l", "../models/a.bin", "a.bin"),
        ("sub/l", "../../latest/a.bin", "../a.bin"),
        ("l", "/etc/passwd", "/etc/passwd"),
        ("l", "/README.md", "/README.md"),
        ("l", "/models/../README.md", "/models/../README.md"),
        ("l", "/models2/x", "/models2/x"),
        ("l", "a.bin", "a.bin"),
        ("sub/l", "../a.bin", "../a.bin"),
        ("l", "../README.md", "../README.md"),
        ("l", "../../../models/sub", "sub"),
    ],
)
def test_links_back_into_the_subtree_become_relative(name: str, target: str, expected: str) -> None:
    """A link that leads into the shown subtree from outside becomes relative, also by way of other links; all others stay."""
    assert _links((name, target)) == {name: f"-> {expected}"}


def test_links_stay_as_they_are_without_a_path() -> None:
    """In a view of the whole image absolute links are not touched."""
    assert _links(("l", "/models/a.bin"), path="")["models/l"] == "-> /models/a.bin"


def test_a_new_target_that_would_be_too_long_stays_absolute() -> None:
    """A link whose relative form passes 4095 bytes keeps its old one rather than becoming invalid."""
    deep = "/".join("d" * 100)
    target = "/models/" + "/".join(["x" * 200] * 19) + "/" + "y" * 200
    assert _links((f"{deep}/l", target)) == {f"{deep}/l": f"-> {target}"}


def test_shared_links_stay_shared_where_they_can() -> None:
    """A link under two names in one directory is one inode still; elsewhere it needs another target and is its own."""
    entries = [*_ENTRIES, a_link("models/l", "/models/a.bin"), a_hard_link("models/m", "models/l"), a_hard_link("models/sub/n", "models/l")]
    root = build(image(entries), Selection("models"))
    sub = root.children[b"sub"]
    assert isinstance(sub, Directory)
    link, other = root.children[b"l"], sub.children[b"n"]
    assert isinstance(link, Symlink)
    assert isinstance(other, Symlink)
    assert root.children[b"m"] is link
    assert (link.target, other.target) == (b"a.bin", b"../a.bin")


def test_hard_links_outlive_their_excluded_names() -> None:
    """A file whose first name is excluded is still there under its other name."""
    entries = [a_file("blobs/x", 9), a_hard_link("model.bin", "blobs/x")]
    root = build(image(entries), Selection.parse(exclude=["blobs"]))
    assert flat(root) == {"model.bin": "f9"}


def test_totals_count_every_inode_once() -> None:
    """Bytes are apparent sizes, hard links count once, and the root is an inode."""
    entries = [a_file("a", 100), a_hard_link("d/b", "a"), a_link("l", "a"), TarEntry(Kind.FILE, b"e", 0o644, 0, 0, 0)]
    assert totals(build(image(entries), Selection())) == Totals(bytes=100, inodes=5)
    assert totals(Directory()) == Totals(bytes=0, inodes=1)


def test_used_names_the_layers_a_view_needs() -> None:
    """Only layers that still own bytes of the view are named: replaced, excluded and empty files need none."""
    layers: list[TarLayer | FileLayer] = [
        TarLayer(LAYER, (a_file("gone", 1),), whiteouts=True),
        TarLayer(Digest.of(b"2"), (a_file("gone", 2), a_file("empty")), whiteouts=True),
        FileLayer(Digest.of(b"3"), 3, "out.txt"),
    ]
    assert used(build(layers, Selection.parse(exclude=["*.txt"]))) == {Digest.of(b"2")}


def test_names_that_are_not_utf_8_survive() -> None:
    """A name of arbitrary bytes is matched as such and comes out unchanged."""
    entry = TarEntry(Kind.FILE, b"\xff\xfe.bin", 0o644, 0, 0, 0, 1, 512)
    assert list(build(image([entry]), Selection(include=("??.bin",))).children) == [b"\xff\xfe.bin"]
