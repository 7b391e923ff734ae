from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.linux.selinux import is_enabled

if TYPE_CHECKING:
    from pathlib import Path


def test_selinux_is_told_by_the_list_of_filesystems(tmp_path: Path) -> None:
    """A line that ends in selinuxfs says yes; another filesystem whose name has it inside, or no list at all, says no."""
    listed = tmp_path / "filesystems"
    listed.write_text("nodev\tsysfs\nnodev\tselinuxfs\n\text4\n")
    assert is_enabled(listed)
    listed.write_text("nodev\tsysfs\n\tnot-selinuxfs\n\n")
    assert not is_enabled(listed)
    assert not is_enabled(tmp_path / "absent")
