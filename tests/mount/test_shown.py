"""Which view a mount shows, told by a process that did not make it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.linux.mountinfo import Mount, parse_mounts
from csi_model.mount.views import shown_elsewhere, shown_view, shown_views
from tests.mount.conftest import VIEW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mount.conftest import Store

pytestmark = pytest.mark.root

VIEWS, PLACES = Path("/var/lib/csi-model/views"), Path("/var/lib/csi-model/mounts")


def _behind(device: str) -> Mount:
    return Mount.parse(f"30 20 7:0 / /target ro - erofs {device} ro".encode())


@pytest.fixture
def loop(store: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """A loop device over a file of the views' directory, made in a container that saw the state directory elsewhere and has gone."""
    (store.views / request.param).write_bytes(bytes(1 << 20))
    inside: Path = store.root / "inside"
    inside.mkdir()
    script = f"mount --bind {store.views.parent} {inside} && losetup --find --show --read-only {inside}/{store.views.name}/{request.param}"
    device = subprocess.run(
        ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.parametrize("loop", [f"{VIEW}.erofs"], indirect=True)
def test_a_view_of_a_container_that_has_gone_is_known(store: Store, loop: str) -> None:
    """The driver's next container answers for what the last one mounted over loop devices, also when the image is deleted."""
    assert shown_view(_behind(loop), store.views) == VIEW
    (store.views / f"{VIEW}.erofs").unlink()
    assert shown_view(_behind(loop), store.views) == VIEW


@pytest.mark.parametrize("loop", ["model.erofs"], indirect=True)
def test_a_strangers_image_is_not_taken_for_a_view(store: Store, loop: str) -> None:
    """Seen from elsewhere, a file that is not called like a view is none."""
    assert shown_view(_behind(loop), store.views) is None


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (f"0:44 / /target ro,nosuid,nodev - erofs /former/views/{VIEW}.erofs ro", True),
        ("0:44 / /target ro,nosuid,nodev - erofs /former/views/model.erofs ro", False),
        (f"0:44 / /target ro,nosuid,nodev - erofs /former/images/{VIEW}.erofs ro", False),
        (f"0:44 / /target ro,nosuid,nodev - erofs {VIEW}.erofs ro", False),
        (f"8:16 /former/views/{VIEW} /target ro,nosuid,nodev,relatime - xfs /dev/sdb rw", True),
        (f"0:39 /@/former/views/{VIEW}//deleted /target ro,nosuid,nodev - btrfs /dev/sdb rw,subvol=/@", True),
        (f"8:16 /former/views/{VIEW} /target ro,nosuid,relatime - xfs /dev/sdb rw", False),
        ("8:16 /former/views/model /target ro,nosuid,nodev,relatime - xfs /dev/sdb rw", False),
        (f"8:16 /former/images/{VIEW} /target ro,nosuid,nodev,relatime - xfs /dev/sdb rw", False),
        (f"8:16 /former/views/{VIEW}/sub /target ro,nosuid,nodev,relatime - xfs /dev/sdb rw", False),
    ],
)
def test_a_view_is_known_by_its_name_wherever_the_state_directory_was(store: Store, line: str, known: bool) -> None:  # noqa: FBT001
    """Moved, on another disk, or on btrfs, whose device numbers differ by who asks: views are told by name and flags, others are not ours."""
    assert shown_view(Mount.parse(f"30 20 {line}".encode()), store.views) == (VIEW if known else None)


def _seen(*lines: str, holder: int) -> frozenset[str]:
    return shown_elsewhere(parse_mounts("\n".join(lines).encode()), holder, VIEWS, PLACES)


ROOT = "20 1 8:1 / / rw - ext4 /dev/sda1 rw"


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (f"0:39 /@state/views/{VIEW} /pod ro,nosuid,nodev - btrfs /dev/sdb rw", True),
        (f"0:39 /@state/views/{VIEW} /var/lib/csi-model/mounts/{VIEW} ro,nosuid,nodev - btrfs /dev/sdb rw", False),
        (f"0:39 /@other/views/{VIEW} /pod ro,nosuid,nodev - btrfs /dev/sdb rw", False),
        (f"8:1 /@state/views/{VIEW} /pod ro,nosuid,nodev - ext4 /dev/sda1 rw", False),
        (f"0:44 / /pod ro,nosuid,nodev - erofs /var/lib/csi-model/views/{VIEW}.erofs ro", True),
        (f"0:44 / /pod ro,nosuid,nodev - erofs /var/lib/other/views/{VIEW}.erofs ro", False),
    ],
)
def test_what_keeps_a_views_files(line: str, counts: bool) -> None:  # noqa: FBT001
    """Only mounts of this directory's views elsewhere than at their place: not those of another driver, which has views of the same names."""
    disk = "21 20 0:39 /@state /var/lib/csi-model rw - btrfs /dev/sdb rw,subvol=/@state"
    assert _seen(ROOT, disk, f"30 20 {line}", holder=21) == ({VIEW} if counts else set())


def test_the_topmost_mount_holds_the_state_directory() -> None:
    """Where a disk is mounted over another mount at the same path, in whatever order the table names them, its views are those that count."""
    bind = "21 20 8:1 /var/lib/csi-model /var/lib/csi-model rw - ext4 /dev/sda1 rw"
    disk = "22 21 7:0 / /var/lib/csi-model rw - ext4 /dev/loop0 rw"
    pod = f"30 20 7:0 /views/{VIEW} /pod ro,nosuid,nodev - ext4 /dev/loop0 rw"
    assert _seen(ROOT, bind, disk, pod, holder=22) == {VIEW}
    assert _seen(ROOT, disk, bind, pod, holder=22) == {VIEW}
    assert _seen(ROOT, bind, disk, pod, holder=21) == frozenset()


@pytest.mark.parametrize(
    ("place", "counts"), [("/tree/var/lib/csi-model", True), ("/var/lib/csi-model", True), ("/tree/var/lib/other", False)]
)
def test_in_a_chroot_the_end_of_the_path_tells(place: str, counts: bool) -> None:  # noqa: FBT001
    """There the mount that holds everything is in no table: the way to the chroot stands before the path of the views."""
    assert _seen(f"30 20 7:0 {place}/views/{VIEW} /pod ro,nosuid,nodev - ext4 /dev/loop0 rw", holder=20) == ({VIEW} if counts else set())


def test_a_disk_over_a_bind_mount(store: Store) -> None:
    """With real mounts: a folder on a filesystem that covers another mount of the same path is seen to be shown."""
    state, pod = store.root / "state", store.kubelet / "pod"
    for path in (state, pod):
        path.mkdir()
    try:
        subprocess.run(["mount", "--bind", state, state], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", state], check=True)
        (state / "views" / VIEW).mkdir(parents=True)
        subprocess.run(["mount", "--bind", "-o", "ro,nosuid,nodev", state / "views" / VIEW, pod], check=True)
        assert shown_views(state / "views", state / "mounts") == {VIEW}
    finally:
        for path in (pod, state, state):
            subprocess.run(["umount", path], check=False)
