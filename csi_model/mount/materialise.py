"""Views written out as plain files: hard links to whole raw layers, copies of everything else.

    views/<id>/                 a finished tree
    views/.unfinished-XXXXXXXX/  one being written, or being removed

Crash points. Everything is written below an unfinished name: files and directories are synced after their last byte, entry and
attribute, and only then the top is renamed to its final name and ``views/`` fsynced. So a crash before the rename
leaves an unfinished name, which ``sweep_unfinished`` removes at start; after it, a tree whose every byte was durable before it had
its name, or, if ``views/`` was not durable yet, the unfinished name again. Removal renames first, so that no tree is ever half there
under its final name.

Nothing can be written or removed outside the tree: every name is one component below a directory descriptor that was opened without
following symlinks, and the symlinks of the view are only ever created, never used.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import MountError
from csi_model.linux.disk import fsync_directory, sync_filesystem
from csi_model.linux.mounts import closing
from csi_model.linux.paths import mount_place, open_beneath
from csi_model.mount.copying import LayerFiles, unwatched
from csi_model.mount.failures import writing
from csi_model.mount.imagefile import UNFINISHED
from csi_model.mount.strategy import is_whole_layer
from csi_model.steps import step
from csi_model.tree.nodes import Directory, Extent, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from csi_model.oci.digest import Digest

log = structlog.get_logger(__name__)

_FEW = 16
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Too many links to one inode; a filesystem without hard links, or another filesystem.
_NO_LINK = {errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP}


def materialise(root: Directory, path: Path, layers: Mapping[Digest, Path], copied: Callable[[int], None] = unwatched) -> None:
    """Write the tree out as the directory ``path``, durably and in one step. ``layers`` tells where the layer files lie.

    ``copied`` hears of what is copied (see ``LayerFiles``); when it raises, nothing is left behind.

    Raises:
        NoSpaceError: the disk is full.
        CorruptContentError: a layer file is shorter than the tree says.
        MountError: the filesystem refused, or ``path`` is there already.
    """
    if path.exists():  # rename(2) would silently replace an empty directory
        msg = f"cannot write the view {path.name}: {path} is there already"
        raise MountError(msg)
    with writing(f"write the view {path.name}"):
        temporary = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
        try:
            with closing(os.open(temporary, _OPEN_DIRECTORY | os.O_CLOEXEC)) as top, LayerFiles(layers, copied) as files:
                _Writer(top, files, {layer: file.stat().st_size for layer, file in layers.items()}).write(root)
            step("view.written")
            temporary.rename(path)
        except BaseException:
            _remove_tree(temporary)
            raise
        fsync_directory(path.parent)
    step("view.renamed")


def links_hold(root: Directory, path: Path, layers: Mapping[Digest, Path]) -> bool:
    """Whether each whole raw layer of the tree is, in the folder ``path``, the very file that lies in the store now.

    A link to content that was found damaged, removed and pulled again still holds the damaged bytes.

    Raises:
        MountError: the filesystem refused.
    """
    with writing(f"look at the view {path.name}"):
        stored = {layer: file.stat() for layer, file in layers.items()}
        sizes = {layer: status.st_size for layer, status in stored.items()}
        for folder, directory in _walk(root):
            for name, node in directory.children.items():
                if isinstance(node, File) and node.segments and is_whole_layer(node, sizes):
                    (segment,) = node.segments
                    assert isinstance(segment, Extent)
                    try:
                        found = (path / folder / os.fsdecode(name)).lstat()
                    except FileNotFoundError:
                        return False
                    if (found.st_dev, found.st_ino) != (stored[segment.layer].st_dev, stored[segment.layer].st_ino):
                        return False
    return True


def bytes_to_copy(root: Directory, sizes: Mapping[Digest, int]) -> int:
    """How much of the tree is written out rather than linked, where hard links can be had; ``sizes`` are the layer files'."""
    files = {id(node): node for _, directory in _walk(root) for node in directory.children.values() if isinstance(node, File)}
    return sum(
        segment.length
        for file in files.values()
        if not is_whole_layer(file, sizes)
        for segment in file.segments
        if isinstance(segment, Extent)
    )


def remove_view(path: Path) -> None:
    """Remove a materialised view, a direct child of the views directory; one that is not there is fine.

    Links are removed, never followed, and a mount point inside (there should be none) stops it.

    Raises:
        MountError: something is mounted at it or in it, or the filesystem refused.
    """
    with writing(f"remove the view {path.name}"):
        try:
            with closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as top:
                if mount_place(top).is_root:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            doomed = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
            path.rename(doomed)
        except FileNotFoundError:
            return
        _remove_tree(doomed)


def sweep_unfinished(views: Path) -> tuple[str, ...]:
    """Remove what a crash left unfinished in the views directory; returns the names. Only at start, when nobody is writing.

    What cannot be removed is logged and left for the next start.

    Raises:
        MountError: the directory cannot be read.
    """
    with writing("find unfinished views"):
        names = sorted(entry.name for entry in views.iterdir() if entry.name.startswith(UNFINISHED))
    return tuple(name for name in names if _swept(views / name))


def _swept(path: Path) -> bool:
    try:
        if path.is_dir() and not path.is_symlink():
            _remove_tree(path)
        else:
            path.unlink()
    except OSError as error:
        log.warning("unfinished_view_not_removed", path=str(path), reason=str(error), effect="its bytes stay on the disk")
        return False
    return True


class _Writer:
    """Writes one tree below the directory ``top``, and makes it durable."""

    def __init__(self, top: int, files: LayerFiles, sizes: Mapping[Digest, int]) -> None:
        self._top = top
        self._files = files
        self._sizes = sizes
        self._written: dict[int, Path] = {}

    def write(self, root: Directory) -> None:
        # Paths are opened anew from the top for every directory: no recursion and no descriptor per level, however deep the tree.
        directories = list(_walk(root))
        for path, directory in directories:
            with self._opened(path) as here:
                for name, node in directory.children.items():
                    self._write_node(here, path, name, node)
        for path, directory in reversed(directories):
            self._finish_directory(path, directory)
        self._make_durable([path for path, _ in reversed(directories)])

    def _make_durable(self, directories: list[Path]) -> None:
        """Sync files, then directories from the deepest up; each sync waits for the disk, so that beyond a few one for all is sooner.

        That one also writes what others have dirty on this filesystem, which is why it is not always taken.
        """
        if len(self._written) + len(directories) > _FEW:
            sync_filesystem(self._top)
            return
        for path in (*self._written.values(), *directories):
            with closing(open_beneath(self._top, path, os.O_RDONLY)) as descriptor:
                os.fsync(descriptor)

    def _write_node(self, here: int, path: Path, name: bytes, node: Directory | File | Symlink) -> None:
        if name in {b"", b".", b".."} or b"/" in name:
            msg = f"the tree holds the name {name!r}, which is no single component"
            raise MountError(msg)
        if isinstance(node, Directory):
            os.mkdir(name, 0o700, dir_fd=here)
        elif isinstance(node, Symlink):
            os.symlink(node.target, name, dir_fd=here)
            os.chown(name, node.uid, node.gid, dir_fd=here, follow_symlinks=False)
            os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=here, follow_symlinks=False)
        elif not self._link(here, name, node):
            self._copy(here, name, node)
            self._written[id(node)] = path / os.fsdecode(name)

    def _link(self, here: int, name: bytes, node: File) -> bool:
        """Give the name to bytes that are on disk already: another name of this file, or a whole layer."""
        try:
            if id(node) in self._written:
                os.link(self._written[id(node)], name, src_dir_fd=self._top, dst_dir_fd=here, follow_symlinks=False)
                return True
            if is_whole_layer(node, self._sizes):
                (segment,) = node.segments
                assert isinstance(segment, Extent)
                os.link(self._files.path(segment.layer), name, dst_dir_fd=here, follow_symlinks=False)
                return True
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        return False

    def _copy(self, here: int, name: bytes, node: File) -> None:
        with closing(os.open(name, _CREATE, 0o600, dir_fd=here)) as file:
            position = 0
            for segment in node.segments:
                if isinstance(segment, Extent):
                    self._files.copy(segment.layer, segment.offset, segment.length, file, position)
                position += segment.length  # a hole stays one
            os.ftruncate(file, node.size)
            os.fchown(file, node.uid, node.gid)
            os.fchmod(file, node.mode)
            os.utime(file, ns=(node.mtime_ns, node.mtime_ns))

    def _finish_directory(self, path: Path, directory: Directory) -> None:
        # After its last entry, which would change the mtime again; and a mode without write permission stops not even root.
        with self._opened(path) as here:
            os.fchown(here, directory.uid, directory.gid)
            os.fchmod(here, directory.mode)
            os.utime(here, ns=(directory.mtime_ns, directory.mtime_ns))

    def _opened(self, path: Path) -> AbstractContextManager[int]:
        return closing(open_beneath(self._top, path, _OPEN_DIRECTORY))


def _walk(root: Directory) -> Iterator[tuple[Path, Directory]]:
    """Every directory with its path, parents before children."""
    waiting = [(Path(), root)]
    while waiting:
        path, directory = waiting.pop()
        yield path, directory
        for name, node in directory.children.items():
            if isinstance(node, Directory):
                waiting.append((path / os.fsdecode(name), node))


def _remove_tree(path: Path) -> None:
    """Remove a directory of ours and all in it; a mount in it fails with EBUSY, before anything behind it is touched."""
    with closing(os.open(path, _OPEN_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as top:
        directories = [Path()]
        for directory in directories:  # grows while it is walked: parents before children
            with closing(open_beneath(top, directory, _OPEN_DIRECTORY)) as here:
                if directory.parts and mount_place(here).is_root:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path / directory))
                with os.scandir(here) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                directories.extend(directory / name for name, is_directory in found if is_directory)
                for name, is_directory in found:
                    if not is_directory:
                        os.unlink(name, dir_fd=here)
        for directory in reversed(directories[1:]):
            os.rmdir(directory, dir_fd=top)
    path.rmdir()
