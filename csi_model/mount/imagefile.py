"""Writing a view's EROFS image to its file, so that the file is there whole or not at all.

A temporary name in the same directory, the bytes, fsync, rename, fsync of the directory. A crash before the rename leaves a name that
``materialise.sweep_unfinished`` removes at start; a crash after it leaves the whole image, or, when the directory was not durable
yet, nothing. A lost image costs nothing: it is built again from content.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.linux.disk import fsync_directory
from csi_model.mount.copying import LayerFiles, unwatched
from csi_model.mount.failures import writing
from csi_model.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from csi_model.erofs.image import Copy, Image
    from csi_model.oci.digest import Digest

_STEP = 1 << 20
UNFINISHED = ".unfinished-"
"""Begins the name of everything in the views directory that no crash may leave in use."""


def write_image(image: Image, path: Path, layers: Mapping[Digest, Path], copied: Callable[[int], None] = unwatched) -> None:
    """Write the image to ``path``, durably and in one step; one that is there already is replaced.

    ``layers`` tells where the layer files lie that bytes are copied from; ``copied`` hears of them (see ``LayerFiles``).

    Raises:
        NoSpaceError: the disk is full.
        CorruptContentError: a layer file is shorter than the image says.
        MountError: the filesystem refused.
    """
    with writing(f"write the view's image {path.name}"):
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
        temporary = Path(name)
        try:
            try:
                fill_image(image, descriptor, layers, copied)
                os.fchmod(descriptor, 0o444)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            step("view.written")
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)
    step("view.renamed")


def holds_image(image: Image, path: Path, layers: Mapping[Digest, Path]) -> bool:
    """Whether the file at ``path`` is this image to the last byte, so that a node that comes back writes nothing, full disk or not.

    Raises:
        MountError: a file cannot be read.
    """
    with writing(f"look at the view's image {path.name}"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(descriptor).st_size != image.size:
                return False
            if any(os.pread(descriptor, len(data), offset) != data for offset, data in image.metadata):
                return False
            return all(_holds_copy(copy, descriptor, layers[copy.layer]) for copy in image.copies)
        finally:
            os.close(descriptor)


def _holds_copy(copy: Copy, descriptor: int, layer: Path) -> bool:
    source = os.open(layer, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for done in range(0, copy.length, _STEP):
            count = min(_STEP, copy.length - done)
            if os.pread(source, count, copy.offset + done) != os.pread(descriptor, count, copy.image_offset + done):
                return False
    finally:
        os.close(source)
    return True


def fill_image(image: Image, descriptor: int, layers: Mapping[Digest, Path], copied: Callable[[int], None] = unwatched) -> None:
    """Write the image's bytes into an empty file; says nothing of durability."""
    os.ftruncate(descriptor, image.size)
    for offset, data in image.metadata:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written  # noqa: PLW2901 -- a short write goes on where it ended
    with LayerFiles(layers, copied) as files:
        for copy in image.copies:
            files.copy(copy.layer, copy.offset, copy.length, descriptor, copy.image_offset)
