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

import structlog

from csi_model.errors import ConflictError
from csi_model.linux import mounts, pages
from csi_model.linux.loops import backing_file
from csi_model.linux.mountinfo import mounts_at, read_mounts
from csi_model.linux.paths import mount_place
from csi_model.mount.failures import mounting, writing
from csi_model.mount.strategy import Strategy
from csi_model.mount.superblock import PROTECTION, mount_erofs
from csi_model.mount.targets import unmount_patiently
from csi_model.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from csi_model.linux.mountinfo import Mount

log = structlog.get_logger(__name__)

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SAMPLE = 64
_FOLDER = re.compile(r"[0-9a-f]{32}")
_IMAGE = re.compile(r"[0-9a-f]{32}\.erofs")
_DELETED = "//deleted"
_PROTECTED = frozenset({"ro", "nosuid", "nodev"})


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
        NoSpaceError: the disk has no room for the directory.
        MountError: the kernel refused, or a file is missing.
    """
    with writing(f"make the place of the view {files.id}"):  # apart: here ENOSPC speaks of the disk, below of the table of mounts
        mountpoint.mkdir(mode=0o755, exist_ok=True)
    with mounting(f"mount the view {files.id} ({strategy.value})"), mounts.closing(os.open(mountpoint, _PLACE)) as place:
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
    remove_place(mountpoint)


def remove_place(mountpoint: Path) -> None:
    """Remove the directory of a view that is not mounted; one that cannot be removed does no harm, for a view can be mounted over it."""
    try:
        mountpoint.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning(
            "view_place_not_removed", path=str(mountpoint), reason=error.strerror, effect="none; remove it when no view is mounted there"
        )


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted exactly there; one system call."""
    try:
        with mounts.closing(os.open(mountpoint, _PLACE)) as place:
            return mount_place(place).is_root
    except (FileNotFoundError, NotADirectoryError):
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
    if _is_loop(mount):
        return Strategy.EROFS_LOOP
    return Strategy.EROFS_DIRECT if "directio" in mount.super_options else Strategy.EROFS_BUFFERED


def shown_view(mount: Mount, views: Path) -> str | None:
    """Which view (its id) a mount shows, wherever it is attached and wherever the state directory was then; None when it shows none.

    An EROFS mount names its image, directly or through its loop device; a bound directory names its place in its filesystem. The state
    directory may have been moved since, or lain on another disk, and the container that mounted may have seen it elsewhere. So only the
    last two components count: the directory of all views, and 32 hex digits, a hash of what the view shows. A folder must carry our three
    flags, too. Devices are not compared: a folder's may be that of a former disk, and btrfs tells stat(2) others than mountinfo.

    This takes nobody else's mount for ours. Such names in such a directory are made by csi-model alone; and should they be another
    csi-model's, then they are at the targets of its own volumes, which kubelet names to no other driver.
    """
    if mount.filesystem == "erofs":
        image = _image(mount)
        named = image is not None and image.parent.name == views.name and _IMAGE.fullmatch(image.name)
        return image.stem if image is not None and (named or _lies_in(image, views)) else None
    folder = _folder(mount)
    named = folder.parent.name == views.name and _FOLDER.fullmatch(folder.name)
    return folder.name if named and mount.options >= _PROTECTED else None


def shown_views(views: Path, places: Path) -> frozenset[str]:
    """The views (their ids) of the directory ``views`` that mounts show elsewhere than at their own place in ``places``.

    The kernel's word, for what no record tells of.

    Raises:
        MountError: the mount table cannot be read.
    """
    real = Path(os.path.realpath(views))
    with mounting("read the mount table"), mounts.closing(os.open(real, _PLACE)) as directory:
        return shown_elsewhere(read_mounts(), mount_place(directory).mount_id, real, places)


def shown_elsewhere(table: Iterable[Mount], holder: int, views: Path, places: Path) -> frozenset[str]:
    """The views among the mounts of ``table`` as ``shown_views`` says; ``holder`` is the id of the mount in which ``views`` lies.

    The holder is the kernel's answer, for several mounts may be stacked at one path. A view's place may be seen at several paths. And
    another driver on this node, or one with another state directory, may have views of the same names, so that views are told apart by
    where they lie. The holder is not in the table where it is what a chroot's "/" lies in.
    """
    table = tuple(table)
    below = next((mount for mount in table if mount.mount_id == holder and views.is_relative_to(mount.target)), None)
    found = []
    for mount in table:
        name = shown_view(mount, views)
        if name is not None and Path(mount.target).parts[-2:] != (places.name, name) and _shows_from(mount, views, below):
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


def _image(mount: Mount) -> Path | None:
    """The image of an EROFS mount, by the path that it had for whoever mounted it."""
    return backing_file(Path(mount.source).name) if _is_loop(mount) else Path(mount.source)


def _folder(mount: Mount) -> Path:
    """What a mount shows, by its path in its filesystem."""
    return Path(mount.root.removesuffix(_DELETED))


def _is_loop(mount: Mount) -> bool:
    return mount.source.startswith("/dev/loop")


def _lies_in(path: Path, views: Path) -> bool:
    # The kernel names a loop device's file by its real path, whatever symlinks lead to the state directory.
    return path.parent == views or os.path.realpath(path.parent) == os.path.realpath(views)


def _shows_from(mount: Mount, views: Path, below: Mount | None) -> bool:
    """Whether the view that the mount shows is one of the directory ``views``, which lies in the mount ``below``."""
    if mount.filesystem == "erofs":
        return _is_loop(mount) or _lies_in(Path(mount.source), views)
    if below is None:  # in its filesystem, the way to the chroot and from there the one that we know
        return str(_folder(mount).parent).endswith(str(views))
    return mount.device == below.device and _folder(mount).parent == Path(below.root) / views.relative_to(below.target)


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
