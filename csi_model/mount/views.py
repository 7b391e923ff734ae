"""One mount per view, under the state directory: made, recognised after a restart, switched to direct I/O, taken away.

    mounts/<id>/    where the view ``<id>`` is mounted, read-only, nosuid, nodev

Targets are clones of this mount (``targets``), so they live on when it goes. Mounts need no daemon: a restart finds them as they were.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.errors import ConflictError
from csi_model.linux import mounts, pages
from csi_model.linux.loops import backing_file
from csi_model.linux.mountinfo import Mount, mounts_at, read_mounts
from csi_model.linux.paths import mount_place
from csi_model.mount.failures import mounting
from csi_model.mount.strategy import Strategy
from csi_model.mount.superblock import PROTECTION, mount_erofs
from csi_model.mount.targets import unmount_patiently
from csi_model.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SAMPLE = 64
_IMAGE = re.compile(r"[0-9a-f]{32}\.erofs")
_DELETED = "//deleted"


@dataclass(frozen=True, slots=True)
class ViewFiles:
    """What a view is mounted from: an EROFS image and its layer files in slot order, or a directory of plain files."""

    id: str
    image: Path | None = None
    devices: tuple[Path, ...] = ()
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Residency:
    """How many of ``total`` bytes are in memory."""

    resident: int
    total: int


def mount_view(files: ViewFiles, strategy: Strategy, mountpoint: Path) -> None:
    """Mount the view at ``mountpoint``, which is made when missing; nothing stays behind on failure but that empty directory.

    LINKS and MATERIALISE show ``files.directory``, the others mount ``files.image``.

    Raises:
        ConflictError: something is mounted there already.
        MountError: the kernel refused, or a file is missing.
    """
    with mounting(f"mount the view {files.id} ({strategy.value})"):
        mountpoint.mkdir(mode=0o755, exist_ok=True)
        with mounts.closing(os.open(mountpoint, _PLACE)) as place:
            if mount_place(place).is_root:
                msg = f"something is mounted at {mountpoint} already; unmount it first"
                raise ConflictError(msg)
            if strategy in {Strategy.LINKS, Strategy.MATERIALISE}:
                assert files.directory is not None, "a view of plain files has a directory"
                _show_directory(files.directory, mountpoint, place)
            else:
                assert files.image is not None, "an EROFS view has an image"
                with mounts.closing(mount_erofs(files.image, files.devices, strategy)) as mount:
                    mounts.attach_mount(mount, place, path=mountpoint)
    step("view.mounted")


def unmount_view(mountpoint: Path) -> None:
    """Take the view's mount away, and its directory; one that is not there is fine. Targets, being clones, stay.

    Raises:
        MountError: still busy after a moment, or the kernel refused.
    """
    with mounting(f"unmount the view at {mountpoint}"):
        while is_mounted(mountpoint):
            unmount_patiently(mountpoint)
        try:
            mountpoint.rmdir()
        except FileNotFoundError:
            return


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted exactly there; one system call."""
    try:
        with mounts.closing(os.open(mountpoint, _PLACE)) as place:
            return mount_place(place).is_root
    except FileNotFoundError:
        return False


def mounted_strategy(mountpoint: Path) -> Strategy | None:
    """How the view that is mounted there is seen, told from mountinfo; None when nothing is mounted.

    A folder of links cannot be told from materialised files: both are MATERIALISE.
    """
    stack = mounts_at(mountpoint)
    if not stack:
        return None
    mount = stack[-1]
    if mount.filesystem != "erofs":
        return Strategy.MATERIALISE
    if mount.source.startswith("/dev/loop"):
        return Strategy.EROFS_LOOP
    return Strategy.EROFS_DIRECT if "directio" in mount.super_options else Strategy.EROFS_BUFFERED


def shown_view(mount: Mount, views: Path) -> str | None:
    """Which view (its id) of the directory ``views`` a mount shows, wherever it is attached; None when it is not one of ours.

    An EROFS mount names its image, directly or through its loop device; a bound directory names its place in its filesystem, of
    which only the last two components are certain from here. So it is with the image behind a loop device that another container made: the
    kernel shows its path from where the state directory was mounted there.
    """
    if mount.filesystem == "erofs":
        if mount.source.startswith("/dev/loop"):
            return _image_behind(mount.source, views)
        image = Path(mount.source)
        return image.name.removesuffix(".erofs") if _same_path(image.parent, views) else None
    root = Path(mount.root.removesuffix(_DELETED))
    return root.name if root.parent.name == views.name and views.name and _same_device(mount, views) else None


def shown_views(views: Path, places: Path) -> frozenset[str]:
    """The views (their ids) of the directory ``views`` that mounts show elsewhere than at their own place in ``places``.

    The kernel's word, for what no record tells of. The place may be seen at several paths; and another driver on this node may have
    views of the same names, so folders are told apart by where they lie in their filesystem.

    Raises:
        MountError: the mount table cannot be read.
    """
    with mounting("read the mount table"):
        table, real = read_mounts(), Path(os.path.realpath(views))
        below = max((mount for mount in table if real.is_relative_to(mount.target)), key=lambda mount: len(mount.target))
        folder = Path(below.root) / real.relative_to(below.target)
        found = []
        for mount in table:
            name = shown_view(mount, views)
            if name is None or Path(mount.target).parts[-2:] == (places.name, name):
                continue
            if mount.filesystem == "erofs" or (mount.device == below.device and Path(mount.root.removesuffix(_DELETED)).parent == folder):
                found.append(name)
    return frozenset(found)


def switch_to_direct(mountpoint: Path, devices: Sequence[Path]) -> None:
    """Have a live EROFS mount read its layers with direct I/O from now on, and let go of the layers' pages.

    Readers notice nothing: what they have read stays cached in the view itself, once.

    Raises:
        MountError: the kernel refused; the view is as it was.
    """
    with mounting(f"switch the view at {mountpoint} to direct I/O"):
        with mounts.closing(mounts.fspick(mountpoint)) as context:
            mounts.set_flag(context, "directio")
            mounts.reconfigure_superblock(context)
        for device in devices:
            drop_pages(device)


def drop_pages(path: Path) -> None:
    """Let go of a file's clean pages that nobody has mapped; a file that is gone has none."""
    try:
        with mounts.closing(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            pages.drop(file)
    except FileNotFoundError:
        return


def residency(paths: Iterable[Path]) -> Residency:
    """How much of these files is in memory: layer files in the store, or files seen through a view.

    Of many files a sample of 64, evenly spaced, is looked at and the rest inferred. Files that are gone count as nothing.
    """
    sizes = [(path, size) for path in paths if (size := _size(path))]
    total = sum(size for _, size in sizes)
    sample = sizes[:: max(1, len(sizes) // _SAMPLE)]
    looked_at = sum(size for _, size in sample)
    resident = sum(min(size, _resident(path)) for path, size in sample)
    return Residency(resident * total // looked_at if looked_at else 0, total)


def _show_directory(directory: Path, mountpoint: Path, place: int) -> None:
    with mounts.closing(os.open(directory, _PLACE)) as source, mounts.closing(mounts.clone_tree(source)) as clone:
        try:
            mounts.protect(clone, PROTECTION)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        else:
            mounts.attach_mount(clone, place, path=mountpoint)
            return
    # Before Linux 5.12 flags can only be set where a mount is attached. That is here, where no pod looks: targets clone it later.
    mounts.bind(directory, mountpoint)
    try:
        mounts.remount_bind(mountpoint, PROTECTION)
    except OSError:
        mounts.unmount(mountpoint)
        raise


def _image_behind(device: str, views: Path) -> str | None:
    image = backing_file(Path(device).name)
    if image is None or not (_same_path(image.parent, views) or (image.parent.name == views.name and _IMAGE.fullmatch(image.name))):
        return None
    return image.name.removesuffix(".erofs")


def _same_path(one: Path, other: Path) -> bool:
    # The kernel names a loop device's file by its real path, whatever symlinks lead to the state directory.
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _same_device(mount: Mount, path: Path) -> bool:
    device = path.stat().st_dev
    return mount.device == (os.major(device), os.minor(device))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _resident(path: Path) -> int:
    try:
        with mounts.closing(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            return pages.resident_bytes(file)
    except FileNotFoundError:
        return 0
