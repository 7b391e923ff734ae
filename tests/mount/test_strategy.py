from __future__ import annotations

import pytest

from csi_model.errors import UnsupportedError
from csi_model.linux.kernel import KernelVersion
from csi_model.mount.strategy import (
    LADDER,
    Ladder,
    RungResult,
    Strategy,
    WriteMode,
    choose_view,
    choose_writes,
    directio_is_safe,
    is_warm,
    links_only,
    should_switch,
)
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Hole, Symlink

DIRECT, LOOP, BUFFERED, PLAIN, LINKS = (
    Strategy.EROFS_DIRECT,
    Strategy.EROFS_LOOP,
    Strategy.EROFS_BUFFERED,
    Strategy.MATERIALISE,
    Strategy.LINKS,
)
GIB = 1 << 30
LAYER = Digest.of(b"layer")


def _ladder(*works: Strategy, forced: Strategy | None = None) -> Ladder:
    rungs = tuple(RungResult(rung, rung in works, f"reason of {rung.value}") for rung in LADDER)
    return Ladder(rungs, RungResult(LINKS, LINKS in works, "reason"), forced)


ALL = (DIRECT, LOOP, BUFFERED, PLAIN, LINKS)


@pytest.mark.parametrize(
    ("works", "forced", "raw", "warm", "expected"),
    [
        # Linux 6.18 with everything.
        (ALL, None, True, True, LINKS),
        (ALL, None, True, False, LINKS),
        (ALL, None, False, True, BUFFERED),
        (ALL, None, False, False, DIRECT),
        # 6.12 without the fix for directio, 6.1.113: loops have direct I/O always, and cannot be switched from buffered.
        ((LOOP, BUFFERED, PLAIN, LINKS), None, False, True, LOOP),
        ((LOOP, BUFFERED, PLAIN, LINKS), None, False, False, LOOP),
        ((LOOP, PLAIN, LINKS), None, True, False, LINKS),
        # No loop devices in the container.
        ((BUFFERED, PLAIN, LINKS), None, False, True, BUFFERED),
        ((BUFFERED, PLAIN, LINKS), None, False, False, BUFFERED),
        # 5.10.
        ((PLAIN, LINKS), None, False, True, PLAIN),
        ((PLAIN, LINKS), None, True, True, LINKS),
        # A filesystem without hard links.
        ((DIRECT, LOOP, BUFFERED, PLAIN), None, True, True, BUFFERED),
        ((DIRECT, LOOP, BUFFERED, PLAIN), None, True, False, DIRECT),
        # Forced: taken for raw layers and warm pages too.
        (ALL, DIRECT, True, True, DIRECT),
        (ALL, LOOP, True, True, LOOP),
        (ALL, BUFFERED, True, False, BUFFERED),
        (ALL, PLAIN, False, True, PLAIN),
        (ALL, PLAIN, True, True, PLAIN),
    ],
)
def test_how_a_view_is_mounted(works: tuple[Strategy, ...], forced: Strategy | None, raw: bool, warm: bool, expected: Strategy) -> None:  # noqa: FBT001
    """Links for raw layers, buffered for warm pages where it can be switched, else the best rung; a forced rung always."""
    assert choose_view(_ladder(*works, forced=forced), all_whole_raw=raw, pages_warm=warm) is expected


def test_a_forced_rung_that_does_not_work_says_why() -> None:
    """A forced rung never falls back in silence."""
    with pytest.raises(UnsupportedError, match=r"forced strategy does not work.*erofs-direct: reason of erofs-direct"):
        choose_view(_ladder(LOOP, PLAIN, forced=DIRECT), all_whole_raw=False, pages_warm=False)


def test_no_rung_at_all_says_why_for_each() -> None:
    """When nothing works, also for raw layers, every rung's reason is told."""
    with pytest.raises(UnsupportedError, match=r"erofs-direct: .*; erofs-loop: .*; erofs-buffered: .*; materialise: .*doctor"):
        choose_view(_ladder(LINKS), all_whole_raw=True, pages_warm=False)


@pytest.mark.parametrize(
    ("size", "available", "room", "raw", "direct", "expected"),
    [
        (0, 0, None, True, True, WriteMode.DIRECT),  # not even the reserve is free
        (0, GIB, None, True, True, WriteMode.BUFFERED),
        (8 * GIB, 16 * GIB, None, True, True, WriteMode.BUFFERED),
        (14 * GIB, 16 * GIB, None, True, True, WriteMode.BUFFERED),
        (15 * GIB, 16 * GIB, None, True, True, WriteMode.DIRECT),  # a tenth stays free
        (8 * GIB, 16 * GIB, None, False, True, WriteMode.DIRECT),  # the first read through EROFS makes a second copy
        (7 * GIB, 16 * GIB, None, False, True, WriteMode.BUFFERED),
        (GIB, 16 * GIB, GIB, True, True, WriteMode.DIRECT),  # the cgroup is the tighter one
        (GIB, 16 * GIB, 2 * GIB, True, True, WriteMode.BUFFERED),
        (GIB, GIB, 64 * GIB, True, True, WriteMode.DIRECT),  # a generous cgroup frees no memory
        (140 * GIB, 16 * GIB, None, True, False, WriteMode.BUFFERED),  # no direct I/O there
    ],
)
def test_how_a_pull_is_written(size: int, available: int, room: int | None, raw: bool, direct: bool, expected: WriteMode) -> None:  # noqa: FBT001, PLR0917
    """Buffered when the model fits in what is free, as often as its reader will hold it; past the page cache otherwise."""
    mode = choose_writes(size, available=available, cgroup_room=room, all_whole_raw=raw, direct_works=direct)
    assert mode is expected


@pytest.mark.parametrize(
    ("resident", "total", "available", "expected"),
    [(100, 100, 100, True), (90, 100, 100, True), (89, 100, 100, False), (100, 100, 99, False), (0, 0, 100, False)],
)
def test_when_layers_are_warm(resident: int, total: int, available: int, expected: bool) -> None:  # noqa: FBT001
    """Nine tenths in memory, and room for the second copy that a buffered mount makes."""
    assert is_warm(resident=resident, total=total, available=available) is expected


@pytest.mark.parametrize(
    ("mounted_for", "resident", "expected"), [(0, 0, False), (59.9, 89, False), (60, 0, True), (1, 90, True), (1, 100, True)]
)
def test_when_a_buffered_view_goes_direct(mounted_for: float, resident: int, expected: bool) -> None:  # noqa: FBT001
    """When the view itself is in memory, or after a minute."""
    assert should_switch(mounted_for=mounted_for, resident=resident, total=100) is expected


@pytest.mark.parametrize(
    ("release", "safe"),
    [
        ("5.10.223", False),
        ("6.12.43", False),
        ("6.12.71", False),
        ("6.12.72", True),
        ("6.12.73+deb13-amd64", True),
        ("6.13.99", False),
        ("6.17.20", False),
        ("6.18.14", False),
        ("6.18.15", True),
        ("6.19.4", False),
        ("6.19.5", True),
        ("7.0", True),
        ("7.3.4", True),
    ],
)
def test_which_kernels_have_a_safe_directio(release: str, safe: bool) -> None:  # noqa: FBT001
    """Exactly the releases that carry the fix."""
    assert directio_is_safe(KernelVersion.parse(release)) is safe


def _file(*segments: Extent | Hole, mode: int = 0o444, uid: int = 0, mtime: int = 0) -> File:
    return File(mode, uid, 0, mtime, sum(segment.length for segment in segments), segments)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (_file(Extent(LAYER, 0, 100)), True),
        (_file(), True),
        (_file(Extent(LAYER, 0, 99)), False),
        (_file(Extent(LAYER, 1, 99)), False),
        (_file(Extent(LAYER, 0, 100), Hole(1)), False),
        (_file(Hole(100)), False),
        (_file(Extent(LAYER, 0, 100), mode=0o555), False),
        (_file(Extent(LAYER, 0, 100), uid=1), False),
        (_file(Extent(LAYER, 0, 100), mtime=1), False),
    ],
)
def test_what_a_hard_link_can_stand_for(file: File, expected: bool) -> None:  # noqa: FBT001
    """Only a whole layer with a content file's own attributes, at any depth; empty files, links and directories do not matter."""
    tree = Directory(children={b"d": Directory(children={b"f": file}), b"s": Symlink(b"d", 5, 5, 5), b"e": _file(mode=0o600)})
    assert links_only(tree, {LAYER: 100}) is expected
