"""Target paths: where kubelet (or a person) wants to see a view.

A target is checked before anything touches it: below its root, no symlink in any component. All work goes through a descriptor of its
parent directory, so that nobody can swap a component in between. Nothing here ever deletes more than one empty directory.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from csi_model.errors import ConflictError, InvalidRequestError, MountError, NoSpaceError, UnsupportedError
from csi_model.linux import mounts
from csi_model.linux.mountinfo import Mount, mounts_at
from csi_model.linux.paths import mount_place, open_beneath
from csi_model.mount.failures import explain, mounting
from csi_model.mount.superblock import PROTECTION
from csi_model.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_PROTECTED = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV
_LONGEST, _LONGEST_NAME = 4095, 255
"""Bytes of a path and of a component that the kernel takes (PATH_MAX, less its end, and NAME_MAX)."""
BUSY_PATIENCE = 2.0
_BUSY_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Target:
    """A checked target path: ``root``, which the operator trusts, its own links resolved, and the components below it.

    ``path`` is the whole, as mountinfo shows it.
    """

    root: Path
    below: Path
    path: Path = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.root / self.below)

    @classmethod
    def parse(cls, text: str, *, root: Path) -> Self:
        """Check a target path against the root below which targets may lie; symlinks are looked for when it is used.

        Raises:
            InvalidRequestError: relative, not below the root, with `..`, or longer than the kernel takes.
        """
        shown = repr(text[:200])
        if not text.startswith("/") or "\0" in text:
            msg = f"the target path {shown} is not absolute"
            raise InvalidRequestError(msg)
        if ".." in text.split("/"):
            msg = f"the target path {shown} contains '..'; name the directory itself"
            raise InvalidRequestError(msg)
        if len(os.fsencode(text)) > _LONGEST or any(len(os.fsencode(name)) > _LONGEST_NAME for name in text.split("/")):
            msg = f"the target path {shown} is longer than {_LONGEST} bytes, or one of its components than {_LONGEST_NAME}"
            raise InvalidRequestError(msg)
        path, above = os.path.normpath(f"/{text.lstrip('/')}"), f"{root}/".replace("//", "/")
        if not path.startswith(above) or path == above:
            msg = f"the target path {shown} is not below {root}; is the driver's kubelet root configured as kubelet's?"
            raise InvalidRequestError(msg)
        # The root itself may be reached through a symlink that the node's owner made; mountinfo knows it by its real name.
        return cls(Path(os.path.realpath(root)), Path(path.removeprefix(above)))

    def __str__(self) -> str:
        return str(self.path)


def what_is_mounted(target: Target) -> tuple[Mount, ...]:
    """The mounts stacked at the target, lowest first; none when it is no mount point, or is not there.

    Raises:
        InvalidRequestError: a component is a symlink or no directory.
    """
    try:
        with _parent(target) as parent, mounts.closing(open_beneath(parent, target.below.name, _DIRECTORY)) as descriptor:
            # One statx answers the common question; the list of all mounts is read only when something is there.
            return mounts_at(target.path) if mount_place(descriptor).is_root else ()
    except FileNotFoundError:
        return ()


def attach(source: Path, target: Target) -> None:
    """Make the view that is mounted at ``source`` appear at the target, read-only, nosuid and nodev from its first moment.

    The clone of the source's mount gets its flags, and leaves the source's peer group, before any path shows it. The target's
    directory is made when missing (its parent must exist) and is left as it was on failure.

    Raises:
        InvalidRequestError: the parent is missing, or a component is a symlink or no directory.
        ConflictError: something is mounted there already, or the directory is not empty.
        UnsupportedError: the kernel cannot make the clone read-only and the source is not.
        NoSpaceError: the disk has no room for the directory.
        MountError: nothing is mounted at ``source``, or the kernel refused.
    """
    with _protected_clone(source) as clone:
        try:
            with _parent(target) as parent:
                _attach_below(parent, clone, target)
        except FileNotFoundError as error:
            msg = f"cannot publish at {target}: its parent directory must be there"
            raise InvalidRequestError(msg) from error
        except OSError as error:
            msg = f"cannot mount {source} at {target}: {explain(error)}"
            raise MountError(msg) from error
    step("publish.attached")


def detach(target: Target, *, ours: Callable[[Mount], bool]) -> None:
    """Take away every mount of ours at the target, look again, and remove the directory. All done already is success.

    Args:
        target: where.
        ours: tells our mounts from others'; when one of the stack is not, nothing is touched.

    Raises:
        ConflictError: somebody else's mount is there, or the directory holds files of its own.
        InvalidRequestError: a component is a symlink or no directory.
        MountError: still busy after ``BUSY_PATIENCE`` seconds, or the kernel refused.
    """
    try:
        with _parent(target) as parent:
            _unmount_all(parent, target, ours)
            step("unpublish.detached")
            os.rmdir(target.below.name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            msg = f"{target} holds files that csi-model did not put there; it was left untouched, move them away"
            raise ConflictError(msg) from error
        msg = f"cannot unmount {target}: {error.strerror}; it will be tried again"
        raise MountError(msg) from error
    step("unpublish.removed")


def unmount_patiently(path: Path | str) -> None:
    """Unmount the topmost mount, waiting a moment while the kernel says EBUSY, as it may just after a reader's exit.

    ``OSError`` (EBUSY) after ``BUSY_PATIENCE`` seconds.
    """
    end = time.monotonic() + BUSY_PATIENCE
    while True:
        try:
            mounts.unmount(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise
            time.sleep(_BUSY_PAUSE)
        else:
            return


def _unmount_all(parent: int, target: Target, ours: Callable[[Mount], bool]) -> None:
    while stack := _stack(parent, target):
        foreign = next((mount for mount in stack if not ours(mount)), None)
        if foreign:
            msg = f"{target} carries a mount that is not ours ({foreign.filesystem} {foreign.source}); it was left untouched"
            raise ConflictError(msg)
        unmount_patiently(f"/proc/self/fd/{parent}/{target.below.name}")


def _stack(parent: int, target: Target) -> tuple[Mount, ...]:
    with mounts.closing(open_beneath(parent, target.below.name, os.O_PATH)) as descriptor:
        return mounts_at(target.path) if mount_place(descriptor).is_root else ()


@contextmanager
def _parent(target: Target) -> Iterator[int]:
    """A descriptor of the target's parent directory, reached without following symlinks below the root."""
    try:
        with mounts.closing(os.open(target.root, _DIRECTORY | os.O_CLOEXEC)) as root:
            parent = open_beneath(root, target.below.parent, _DIRECTORY)
    except OSError as error:
        _refuse_detours(error, target)
        raise
    with mounts.closing(parent):
        try:
            yield parent
        except OSError as error:
            _refuse_detours(error, target)
            raise


def _refuse_detours(error: OSError, target: Target) -> None:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        msg = f"the target path {target} leads through a symlink or a plain file, which is refused; name the real directory"
        raise InvalidRequestError(msg) from error


def _make_directory(parent: int, target: Target) -> bool:
    try:
        os.mkdir(target.below.name, 0o750, dir_fd=parent)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:  # speaks of the disk that kubelet's directories lie on, not of mounts
            msg = f"there is no room to make the directory {target}; free space on the disk that holds it"
            raise NoSpaceError(msg) from error
        raise
    return True


def _demand_free(place: int, target: Target) -> None:
    if mount_place(place).is_root:
        msg = f"something is mounted at {target} already; unmount it first"
        raise ConflictError(msg)
    with os.scandir(f"/proc/self/fd/{place}") as entries:
        if next(entries, None):
            msg = f"{target} is a directory with files in it, which a mount would hide; move them away"
            raise ConflictError(msg)


@contextmanager
def _protected_clone(source: Path) -> Iterator[int]:
    with mounting(f"show the view at {source}"):
        with mounts.closing(os.open(source, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as view:
            # Held by its descriptor: were the view unmounted now, this would still be the view, and never the empty directory below.
            if not mount_place(view).is_root:
                msg = f"no view is mounted at {source}"
                raise MountError(msg)
            clone = mounts.clone_tree(view)
        with mounts.closing(clone):
            _protect(clone, source)
            yield clone


def _attach_below(parent: int, clone: int, target: Target) -> None:
    created = _make_directory(parent, target)
    step("publish.created")
    try:
        with mounts.closing(open_beneath(parent, target.below.name, _DIRECTORY)) as place:
            if not created:
                _demand_free(place, target)
            mounts.attach_mount(clone, place, path=target)
    except BaseException:
        if created:
            os.rmdir(target.below.name, dir_fd=parent)
        raise


def _protect(clone: int, source: Path) -> None:
    try:
        mounts.protect(clone, PROTECTION)
    except OSError as error:
        # Before Linux 5.12 a clone's flags cannot be changed while it is detached: it must have inherited them.
        if error.errno != errno.ENOSYS:
            raise
        if os.statvfs(f"/proc/self/fd/{clone}").f_flag & _PROTECTED != _PROTECTED:
            msg = f"this kernel (before 5.12) cannot make a clone of {source} read-only, and {source} is not mounted read-only itself"
            raise UnsupportedError(msg) from error
