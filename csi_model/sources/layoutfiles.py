"""The files of an OCI layout: on a local disk, or on any filesystem that fsspec knows.

A local layout is confined to its directory: a symbolic link may lead elsewhere inside it, never out of it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import fsspec

from csi_model.errors import CsiModelError, DeniedError, InvalidRequestError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


class LayoutFile(Protocol):
    """One open file."""

    @property
    def size(self) -> int:
        """Its length when it was opened."""

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset``; fewer bytes only at the end of the file.

        Raises:
            UnavailableError: the filesystem failed.
        """

    def close(self) -> None:
        """Let go of it."""


class LayoutFiles(Protocol):
    """A directory of files named by relative paths."""

    def open(self, path: str) -> LayoutFile:
        """Open a file to read.

        Raises:
            NotFoundError, DeniedError, UnavailableError.
        """


class LocalFiles:
    """A directory on this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, path: str) -> _LocalFile:
        """See ``LayoutFiles``; refuses what is no regular file, and links that lead out of the directory."""
        name = self._root / path
        with _translated(str(name)):
            # Without O_NONBLOCK, opening a FIFO would wait for a writer.
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                size = self._confined_size(descriptor, name)
            except BaseException:
                os.close(descriptor)
                raise
        return _LocalFile(descriptor, size, str(name))

    def _confined_size(self, descriptor: int, name: Path) -> int:
        status = os.fstat(descriptor)
        # Where the open file really is: a check of the name beforehand could be overtaken by a rename.
        really = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not really.is_relative_to(self._root.resolve()) or not stat.S_ISREG(status.st_mode):
            msg = f"{name} is not a file inside the OCI layout {self._root}; refused"
            raise DeniedError(msg)
        return status.st_size


class _LocalFile:
    def __init__(self, descriptor: int, size: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.size = size

    def read_at(self, buffer: memoryview, offset: int) -> int:
        filled = 0
        with _translated(self._name):
            while filled < len(buffer) and (count := os.preadv(self._descriptor, [buffer[filled:]], offset + filled)):
                filled += count
        return filled

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RemoteFiles:
    """A directory on a filesystem of fsspec."""

    def __init__(self, url: str) -> None:
        if "::" in url:
            msg = "chains of filesystems (::) are not allowed; name the layout's own directory"
            raise InvalidRequestError(msg)
        self._url = url
        with _translated(url):
            try:
                self._filesystem, self._root = fsspec.core.url_to_fs(url)
            except ValueError as error:
                msg = f"{url} names a kind of filesystem that fsspec does not know"
                raise InvalidRequestError(msg) from error

    def open(self, path: str) -> _RemoteFile:
        """See ``LayoutFiles``."""
        with _translated(f"{self._url}/{path}"):
            # Without a cache of its own: our reads are large, and in order.
            file = self._filesystem.open(f"{str(self._root).rstrip('/')}/{path}", "rb", cache_type="none")
            try:
                size = file.seek(0, os.SEEK_END)
            except BaseException:
                file.close()
                raise
        return _RemoteFile(file, int(size), f"{self._url}/{path}")


class _RemoteFile:
    def __init__(self, file: fsspec.spec.AbstractBufferedFile, size: int, name: str) -> None:
        self._file = file
        self._name = name
        self.size = size

    def read_at(self, buffer: memoryview, offset: int) -> int:
        filled = 0
        with _translated(self._name):
            if self._file.tell() != offset:
                self._file.seek(offset)
            while filled < len(buffer) and (count := self._file.readinto(buffer[filled:])):
                filled += count
        return filled

    def close(self) -> None:
        with _translated(self._name):
            self._file.close()


def open_files(url: str) -> LayoutFiles:
    """The files below an fsspec URL.

    Raises:
        InvalidRequestError, UnavailableError: no such kind of filesystem, or it cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme in {"file", "local"} and not parts.netloc:
        return LocalFiles(Path(parts.path))
    return RemoteFiles(url)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Every filesystem raises errors of its own; they become ours here."""
    try:
        yield
    except CsiModelError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{what} does not exist"
        raise NotFoundError(msg) from error
    except PermissionError as error:
        msg = f"{what} may not be read"
        raise DeniedError(msg) from error
    except ImportError as error:
        msg = f"{what} needs a Python package that is not installed: {error}"
        raise InvalidRequestError(msg) from error
    except Exception as error:
        # The type alone: the text of a cloud library's error may hold a signed URL.
        msg = f"{what} cannot be read ({type(error).__name__})"
        raise UnavailableError(msg) from error
