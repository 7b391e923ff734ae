"""Layers merged by the rules of images and artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi_model.errors import UnsupportedError
from csi_model.oci.digest import Digest
from csi_model.tree import merge as merging
from csi_model.tree.entries import Kind, Segment, TarEntry
from csi_model.tree.layers import FileLayer, TarLayer
from csi_model.tree.merge import merge
from csi_model.tree.nodes import Directory, Extent, File, Hole
from tests.tree.archives import LAYER, a_device, a_directory, a_file, a_hard_link, a_link, flat, image

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

# A plain model of the rules, on paths: a layer's whiteouts first, against lower layers, and then its entries in order.
_Path = tuple[str, ...]


class _Model:
    def __init__(self) -> None:
        self.tree: dict[_Path, str] = {}

    def remove(self, path: _Path, *, itself: bool) -> None:
        for found in [p for p in self.tree if p[: len(path)] == path and (itself or p != path)]:
            del self.tree[found]

    def hide(self, path: _Path) -> None:
        if path[-1] == ".wh..wh..opq":
            self.remove(path[:-1], itself=False)
        elif path[-1].startswith(".wh."):
            self.remove((*path[:-1], path[-1][4:]), itself=True)

    def add(self, path: _Path, what: str) -> bool:
        for depth in range(1, len(path)):
            if self.tree.setdefault(path[:depth], "d755")[0] != "d":
                return False
        if what[0] == "f":
            self.remove(path, itself=True)
        self.tree[path] = what
        return True


def _model(layers: Iterable[Sequence[TarEntry]]) -> dict[str, str] | None:
    """What merging gives, or None for a refusal."""
    model = _Model()
    for entries in layers:
        named = [(tuple(entry.name.decode().split("/")), entry) for entry in entries]
        for path, _ in named:
            model.hide(path)
        for path, entry in named:
            what = f"f{entry.size}" if entry.kind is Kind.FILE else f"d{entry.mode:o}"
            if not path[-1].startswith(".wh.") and not model.add(path, what):
                return None
    return {"/".join(path): what for path, what in model.tree.items()}


_SOME_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
_ENTRIES = st.one_of(
    st.builds(a_file, _SOME_PATHS, st.integers(0, 99)),
    st.builds(lambda path, mode: a_directory(path, mode=mode), _SOME_PATHS, st.sampled_from([0o700, 0o711, 0o755])),
    _SOME_PATHS.map(lambda path: a_file("/".join([*path.split("/")[:-1], ".wh." + path.split("/")[-1]]))),
    _SOME_PATHS.map(lambda path: a_file(path + "/.wh..wh..opq")),
)
_LAYERS = st.lists(st.lists(_ENTRIES, max_size=6), max_size=4)


def _whiteouts_first(entries: list[TarEntry]) -> list[TarEntry]:
    return sorted(entries, key=lambda entry: b".wh." not in entry.name)


def _merged(layers: Iterable[Sequence[TarEntry]]) -> dict[str, str] | None:
    try:
        return flat(merge(image(*layers)))
    except UnsupportedError:
        return None


@settings(max_examples=400, deadline=None)
@given(_LAYERS)
def test_merging_follows_the_model(layers: list[list[TarEntry]]) -> None:
    """Files, directories, whiteouts and opaque directories in any number of layers give what a plain model of the rules gives."""
    ordered = [_whiteouts_first(entries) for entries in layers]
    assert _merged(ordered) == _model(ordered)


@settings(max_examples=400, deadline=None)
@given(_LAYERS, st.randoms(use_true_random=False))
def test_where_whiteouts_stand_in_a_layer_does_not_matter(layers: list[list[TarEntry]], rng: random.Random) -> None:
    """A whiteout hides lower layers and never its own, whether it comes before or after its layer's other entries."""
    expected = _merged(_whiteouts_first(entries) for entries in layers)
    mixed = []
    for entries in layers:
        marks = [entry for entry in entries if b".wh." in entry.name]
        rest = [entry for entry in entries if b".wh." not in entry.name]
        for mark in marks:
            rest.insert(rng.randint(0, len(rest)), mark)
        mixed.append(rest)
    found = _merged(mixed)
    # A layer that puts a directory where a lower file stands must hide the file first; else it is refused.
    assert found == expected or found is None


def test_a_directory_over_a_directory_takes_attributes_and_keeps_children() -> None:
    """A higher directory's mode and time replace the lower one's; children stay; the same within a layer."""
    root = merge(image([a_directory("d"), a_file("d/f", 1)], [a_directory("d", mode=0o711, mtime_ns=5)]))
    directory = root.children[b"d"]
    assert isinstance(directory, Directory)
    assert (directory.mode, directory.mtime_ns, list(directory.children)) == (0o711, 5, [b"f"])


def test_the_entry_of_the_root_describes_the_root() -> None:
    """An entry `./` sets the root's mode and time."""
    root = merge(image([a_directory("./", mode=0o1711, mtime_ns=9)]))
    assert (root.mode, root.mtime_ns, root.children) == (0o711, 9, {})


def test_of_equal_names_in_a_layer_the_last_wins() -> None:
    """Duplicate entries, which the specification forbids and writers produce, end with the last, whatever their kinds."""
    assert flat(merge(image([a_file("a", 1), a_file("a", 2)]))) == {"a": "f2"}
    assert flat(merge(image([a_directory("a"), a_file("a/b"), a_file("a", 2)]))) == {"a": "f2"}
    assert flat(merge(image([a_file("a", 1), a_directory("a"), a_file("a/b", 3)]))) == {"a": "d755", "a/b": "f3"}
    assert flat(merge(image([a_link("a", "x"), a_directory("a")]))) == {"a": "d755"}


def test_missing_parents_are_made() -> None:
    """Directories that no entry names are root's and 0755."""
    root = merge(image([a_file("a/b/c", 1)]))
    parent = root.children[b"a"]
    assert isinstance(parent, Directory)
    assert (parent.mode, parent.uid, parent.gid, parent.mtime_ns) == (0o755, 0, 0, 0)
    assert flat(root) == {"a": "d755", "a/b": "d755", "a/b/c": "f1"}


def test_a_file_is_no_parent() -> None:
    """An entry below a file is refused, naming both."""
    with pytest.raises(UnsupportedError, match=r"'a/b/c'.*file 'a'"):
        merge(image([a_file("a")], [a_file("a/b/c")]))


def test_parents_are_followed_through_links_as_containerd_does() -> None:
    """An entry whose parent is a link lands in the link's target, as on a merged-/usr image, also when the target is yet to be made."""
    layers = image(
        [a_directory("usr/lib"), a_link("lib", "usr/lib"), a_link("abs", "/usr/../opt")], [a_file("lib/x", 1), a_file("abs/y", 2)]
    )
    assert flat(merge(layers)) == {
        "usr": "d755",
        "usr/lib": "d755",
        "usr/lib/x": "f1",
        "lib": "-> usr/lib",
        "abs": "-> /usr/../opt",
        "opt": "d755",
        "opt/y": "f2",
    }


def test_hard_links_share_one_inode() -> None:
    """A hard link is the very node of its target, in this layer or a lower one, and ignores its own attributes."""
    root = merge(image([a_file("a", 1)], [a_hard_link("b", "./a"), a_hard_link("d/c", "/b"), a_hard_link("a", "a")]))
    directory = root.children[b"d"]
    assert isinstance(directory, Directory)
    assert root.children[b"a"] is root.children[b"b"] is directory.children[b"c"]
    assert root.children[b"a"].mode == 0o644  # type: ignore[union-attr]


def test_a_replaced_target_leaves_its_other_names() -> None:
    """Replacing or hiding a file does not touch the inode under its other names."""
    layers = image([a_file("a", 1), a_hard_link("b", "a")], [a_file("a", 2)], [a_file(".wh.a")])
    assert flat(merge(layers[:2])) == {"a": "f2", "b": "f1"}
    assert flat(merge(layers)) == {"b": "f1"}


def test_hard_links_to_links_share_the_link() -> None:
    """A hard link to a symbolic link is that link again; what it points at is not touched."""
    root = merge(image([a_link("l", "/etc/shadow"), a_hard_link("h", "l")]))
    assert root.children[b"h"] is root.children[b"l"]


def test_a_hard_links_parents_are_followed_inside_the_tree() -> None:
    """The target's directories may be links, which lead inside the tree; the target itself is not followed."""
    root = merge(image([a_file("real/f", 1), a_link("way", "/real"), a_hard_link("h", "way/f")]))
    assert flat(root)["h"] == "f1"


@pytest.mark.parametrize("target", ["nowhere", "later", "d", "/", "..", "a/b", "loop/x", "loop/a", "hidden"])
def test_hard_links_to_nothing_or_to_directories_are_refused(target: str) -> None:
    """A target that is absent, still to come, hidden, below a file, behind a loop or a directory is refused."""
    layers = image(
        [a_file("hidden")],
        [a_file(".wh.hidden"), a_directory("d"), a_file("a"), a_link("loop", "loop"), a_hard_link("h", target), a_file("later")],
    )
    with pytest.raises(UnsupportedError, match="'h' is a hard link to"):
        merge(layers)


def test_devices_are_dropped_with_what_they_cover_and_their_hard_links() -> None:
    """A device is left out, hides the lower file of its name, and takes hard links to it along, until a file takes the name."""
    lower = [a_file("dev/null", 1)]
    upper = [a_device("dev/null"), a_hard_link("dev/zero", "dev/null"), a_device("fifo")]
    assert flat(merge(image(lower, upper))) == {"dev": "d755"}
    more = [a_file("fifo", 2), a_hard_link("h", "fifo")]
    assert flat(merge(image(lower, upper, more))) == {"dev": "d755", "fifo": "f2", "h": "f2"}
    with pytest.raises(UnsupportedError, match="'i' is a hard link"):
        merge(image(lower, upper, more, [a_file(".wh.fifo"), a_hard_link("i", "fifo")]))


def test_files_keep_owner_time_and_permission_bits() -> None:
    """Modes lose set-id and sticky bits and nothing else; owners and times stay."""
    entry = TarEntry(Kind.FILE, b"f", 0o7751, 1000, 2**32 - 1, 123456789, 5, 512)
    node = merge(image([entry])).children[b"f"]
    assert isinstance(node, File)
    assert (node.mode, node.uid, node.gid, node.mtime_ns) == (0o751, 1000, 2**32 - 1, 123456789)
    assert node.segments == (Extent(Digest.of(b"0"), 512, 5),)


def test_sparse_files_get_holes() -> None:
    """A sparse entry's stored parts become extents of its layer, the rest holes."""
    entry = TarEntry(Kind.FILE, b"f", 0o644, 0, 0, 0, 30, 512, sparse=(Segment(10), Segment(15, 1024), Segment(5)))
    node = merge(image([entry])).children[b"f"]
    assert isinstance(node, File)
    assert node.segments == (Hole(10), Extent(Digest.of(b"0"), 1024, 15), Hole(5))


def test_artifact_tars_keep_whiteout_names() -> None:
    """In a layer that is no image's, `.wh.` names are ordinary names."""
    layer = TarLayer(LAYER, (a_file(".wh.x", 1), a_file(".wh.", 2)), whiteouts=False)
    assert flat(merge([layer])) == {".wh.x": "f1", ".wh.": "f2"}
    plinks = TarLayer(LAYER, (a_file(".wh..wh.plnk/1.2", 3), a_hard_link("h", ".wh..wh.plnk/1.2")), whiteouts=False)
    assert flat(merge([plinks])) == {".wh..wh.plnk": "d755", ".wh..wh.plnk/1.2": "f3", "h": "f3"}


def test_prefix_and_strip_move_an_artifact_tar() -> None:
    """The stripped directory's own entry describes the prefix; directories above it land nowhere; hard links move along."""
    entries = (
        a_directory("./"),
        a_directory("model", mode=0o700),
        a_file("model/f", 1),
        a_hard_link("model/d/h", "model/f"),
        a_link("model/l", "/abs"),
    )
    layer = TarLayer(LAYER, entries, whiteouts=False, prefix="to/here", strip="model/")
    assert flat(merge([layer])) == {
        "to": "d755",
        "to/here": "d700",
        "to/here/f": "f1",
        "to/here/d": "d755",
        "to/here/d/h": "f1",
        "to/here/l": "-> /abs",
    }


@pytest.mark.parametrize(
    "entry",
    [a_file("other/f"), a_file("f"), a_hard_link("model/h", "f"), a_file("model/../f"), a_link("model", "x"), a_file("")],
)
def test_entries_outside_the_stripped_directory_are_refused(entry: TarEntry) -> None:
    """A name or link outside the directory that is stripped, or a file in that directory's own place, is refused."""
    with pytest.raises(UnsupportedError):
        merge([TarLayer(LAYER, (a_file("model/f"), entry), whiteouts=False, strip="model")])


def test_climbing_names_stay_below_the_prefix() -> None:
    """`..` in an artifact's names ends at the artifact's root, not at the image's."""
    assert flat(merge([TarLayer(LAYER, (a_file("../../f", 1),), whiteouts=False, prefix="p")])) == {"p": "d755", "p/f": "f1"}


def _raw(path: str, content: bytes = b"x", **fields: int) -> FileLayer:
    return FileLayer(Digest.of(content), len(content), path, **fields)


def test_raw_layers_are_files() -> None:
    """A raw layer is one file of one extent, root's, with the mode given and time zero; an empty one has no extent."""
    root = merge([_raw("d/f", b"abc"), _raw("run", b"", mode=0o4555)])
    assert flat(root) == {"d": "d755", "d/f": "f3", "run": "f0"}
    directory = root.children[b"d"]
    assert isinstance(directory, Directory)
    node = directory.children[b"f"]
    assert isinstance(node, File)
    assert (node.mode, node.uid, node.gid, node.mtime_ns) == (0o444, 0, 0, 0)
    assert node.segments == (Extent(Digest.of(b"abc"), 0, 3),)
    run = root.children[b"run"]
    assert isinstance(run, File)
    assert (run.mode, run.segments) == (0o555, ())


def test_two_raw_layers_of_one_name_must_be_equal() -> None:
    """The same bytes twice are one file; different bytes for one name are refused, naming both layers."""
    assert flat(merge([_raw("f", b"a"), _raw("./f", b"a")])) == {"f": "f1"}
    with pytest.raises(UnsupportedError, match=f"{Digest.of(b'a').short} and {Digest.of(b'b').short}.*'f'"):
        merge([_raw("f", b"a"), _raw("f", b"b")])


def test_raw_layers_and_directories_exclude_each_other() -> None:
    """A raw layer in a directory's place, or below a file, is refused."""
    with pytest.raises(UnsupportedError, match="directory"):
        merge([_raw("d/f"), _raw("d")])
    with pytest.raises(UnsupportedError, match="file 'd'"):
        merge([_raw("d"), _raw("d/f")])


def test_raw_layers_cover_a_tars_file() -> None:
    """A raw layer above a tar that holds its name replaces the tar's file, and the other way round."""
    tar = TarLayer(LAYER, (a_file("f", 7),), whiteouts=False)
    assert flat(merge([tar, _raw("f", b"abc")])) == {"f": "f3"}
    assert flat(merge([_raw("f", b"abc"), tar])) == {"f": "f7"}


@pytest.mark.parametrize("path", ["", "/", ".", "\ud800", "a\0b", "n" * 256])
def test_raw_layers_need_a_name(path: str) -> None:
    """A raw layer without a file name, or with one that no filesystem stores, is refused."""
    with pytest.raises(UnsupportedError):
        merge([_raw(path)])


@pytest.mark.parametrize("entry", [a_link("l", ""), a_link("l", "x" * 4096)])
def test_links_without_a_usable_target_are_refused(entry: TarEntry) -> None:
    """An empty link, or one longer than any path, is refused."""
    with pytest.raises(UnsupportedError, match="symbolic link 'l'"):
        merge(image([entry]))


@pytest.mark.parametrize("name", ["n" * 256, "/".join("d" * 129), "/".join(["n" * 200] * 21)])
def test_names_depth_and_paths_are_limited(name: str) -> None:
    """A name of 256 bytes, a depth of 129 and a path of more than 4096 bytes are refused; just below is fine."""
    with pytest.raises(UnsupportedError):
        merge(image([a_file(name)]))
    for fine in ("n" * 255, "/".join("d" * 128), "/".join(["n" * 200] * 20)):
        assert fine in flat(merge(image([a_file(fine)])))


def test_depth_is_that_of_the_place_and_not_of_the_name() -> None:
    """A short name that leads through a link to a deep directory is as deep as that directory."""
    deep = "/".join("d" * 127)
    with pytest.raises(UnsupportedError, match="deeper"):
        merge(image([a_directory(deep), a_link("l", deep), a_file("l/a/b")]))


def test_nodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than the limit, implied directories and replaced ones included, are refused."""
    monkeypatch.setattr(merging, "MAX_NODES", 10)
    with pytest.raises(UnsupportedError, match="more than 10"):
        merge(image([a_file(f"f{i}") for i in range(10)]))
    with pytest.raises(UnsupportedError, match="more than 10"):
        merge(image([a_file("a/b/c/d/e/f/g/h/i/j")]))
    assert len(flat(merge(image([a_file(f"f{i}") for i in range(9)])))) == 9
    with pytest.raises(UnsupportedError, match="more than 10"):
        merge(image([a_file(f".wh..wh.plnk/{i}") for i in range(10)]))
