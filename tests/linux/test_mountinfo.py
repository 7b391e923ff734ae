from __future__ import annotations

from pathlib import Path

import pytest

from csi_model.linux.mountinfo import Mount, mounts_at, parse_mounts, read_mounts


def test_line_with_octal_escapes_and_optional_fields() -> None:
    """Spaces, tabs, newlines and backslashes come back from octal, and every optional field before the dash is kept."""
    line = rb"36 35 98:0 /a\040b /mnt\011x\012y\134z rw,noatime shared:1 master:2 - ext3 /dev/my\040disk rw,errors=continue"
    mount = Mount.parse(line)
    assert mount == Mount(
        mount_id=36,
        parent_id=35,
        device=(98, 0),
        root="/a b",
        target="/mnt\tx\ny\\z",
        options=frozenset({"rw", "noatime"}),
        propagation=("shared:1", "master:2"),
        filesystem="ext3",
        source="/dev/my disk",
        super_options=frozenset({"rw", "errors=continue"}),
    )


def test_line_without_optional_fields() -> None:
    """A private mount has no optional field, and the dash follows the options at once."""
    mount = Mount.parse(b"22 27 0:21 / /proc rw,relatime - proc proc rw\n")
    assert mount.propagation == ()
    assert (mount.filesystem, mount.target) == ("proc", "/proc")


def test_target_named_like_the_separator() -> None:
    """A target called " - " does not end the fields early, for its spaces are escaped."""
    mount = Mount.parse(rb"36 35 0:5 / /a/\040-\040 rw - tmpfs tmpfs rw")
    assert mount.target == "/a/ - "


def test_names_that_are_no_utf8_survive() -> None:
    """Bytes that are no UTF-8 come through as Python's surrogate escapes, so that paths made of them still work."""
    mount = Mount.parse(b"36 35 0:5 / /a/\xff rw - tmpfs tmpfs rw")
    assert mount.target.encode(errors="surrogateescape") == b"/a/\xff"


@pytest.mark.parametrize("line", [b"", b"36 35 98:0 / /mnt rw shared:1", b"36 35 98:0 / - ext4 x rw", b"a b c:d / /mnt rw - x y z"])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    """A line that mountinfo would never hold is an error, never a guess."""
    with pytest.raises(ValueError):
        Mount.parse(line)


def test_the_running_kernels_list_parses() -> None:
    """Every line of this machine's mountinfo parses, and /proc is among them (in a chroot the root is not)."""
    assert "/proc" in {mount.target for mount in read_mounts()}
    assert parse_mounts(Path("/proc/self/mountinfo").read_bytes()) == read_mounts()


def test_mounts_at_finds_exactly_the_target() -> None:
    """Only mounts at the very path are found, not those below it or of another that begins like it."""
    proc = mounts_at("/proc")
    assert proc
    assert {mount.target for mount in proc} == {"/proc"}
    assert mounts_at("/pro") == ()
