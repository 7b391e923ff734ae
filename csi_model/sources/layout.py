"""An OCI layout as a source (OCI image-spec, image-layout.md)."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from typing import TYPE_CHECKING, Self

from csi_model.errors import CorruptContentError, InvalidRequestError, NotFoundError, StoppedError, UnsupportedError
from csi_model.oci import mediatypes
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.document import MAX_DOCUMENT, parse_json
from csi_model.oci.manifest import Index, parse_document
from csi_model.oci.reference import LayoutReference
from csi_model.sources.extent import extent_end
from csi_model.sources.layoutfiles import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.sources.layoutfiles import LayoutFile, LayoutFiles

_REF_NAME = "org.opencontainers.image.ref.name"
_LISTED = 20


class LayoutSource:
    """See ``Source``. What it reads may change under it: sizes are checked here, digests by whoever reads a blob."""

    ranges = True
    authenticated = False

    def __init__(self, files: LayoutFiles, name: str) -> None:
        self._files = files
        self._name = name

    @classmethod
    def open_layout(cls, reference: LayoutReference) -> Self:
        """The layout that the reference names; nothing is read yet.

        Raises:
            InvalidRequestError: no filesystem of that kind can be had.
        """
        return cls(open_files(reference.url), str(LayoutReference(reference.url, None, None)))

    @property
    def name(self) -> str:
        """The layout's location."""
        return self._name

    def resolve(self, reference: AnyReference) -> Descriptor:
        """See the protocol. Without tag and digest: the only entry of index.json, or the one tagged ``latest``."""
        if not isinstance(reference, LayoutReference):
            msg = f"{reference} is not in the OCI layout {self.name}"
            raise InvalidRequestError(msg)
        self._check_version()
        entries = self._index().manifests
        if reference.digest:
            return self._by_digest(reference.digest, entries)
        return _by_tag(reference.tag, entries, self.name)

    def confirm(self, reference: AnyReference) -> None:
        """See the protocol; the manifest is read, for an index.json may list what is not there."""
        digest = self.resolve(reference).digest
        _check_digest(self._read(_blob_path(digest), f"manifest {digest}"), digest, self.name)

    def fetch_document(self, descriptor: Descriptor) -> bytes:
        """See the protocol."""
        body = self._read(_blob_path(descriptor.digest), f"manifest {descriptor.digest}")
        _check_size(len(body), descriptor, self.name)
        _check_digest(body, descriptor.digest, self.name)
        return body

    def open(self, descriptor: Descriptor, *, offset: int = 0, length: int | None = None) -> LayoutBlobReader:
        """See the protocol."""
        return LayoutBlobReader(self._files, self.name, descriptor, offset, extent_end(descriptor, offset, length))

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def _check_version(self) -> None:
        version = parse_json(self._read("oci-layout", "the file oci-layout"), f"oci-layout of {self.name}").get("imageLayoutVersion")
        if version != "1.0.0":
            msg = f"{self.name} is an OCI layout of version {str(version)[:40]!r}; 1.0.0 is supported"
            raise UnsupportedError(msg)

    def _index(self) -> Index:
        body = self._read("index.json", "its index.json")
        index = parse_document(body, media_type=mediatypes.OCI_INDEX, trusted=True)
        assert isinstance(index, Index)
        return index

    def _by_digest(self, digest: Digest, entries: Sequence[Descriptor]) -> Descriptor:
        for entry in entries:
            if entry.digest == digest:
                return entry
        # It may be an entry of an index that index.json lists.
        body = self._read(_blob_path(digest), f"manifest {digest}")
        _check_digest(body, digest, self.name)
        return Descriptor(parse_document(body, media_type=None, trusted=False).media_type, digest, len(body))

    def _read(self, path: str, what: str) -> bytes:
        try:
            file = self._files.open(path)
        except NotFoundError as error:
            msg = f"{self.name} has not got {what}: it does not exist; check the layout's directory"
            raise NotFoundError(msg) from error
        try:
            if file.size > MAX_DOCUMENT:
                msg = f"{what} of {self.name} has {file.size} bytes; at most {MAX_DOCUMENT} are read"
                raise InvalidRequestError(msg)
            buffer = memoryview(bytearray(file.size))
            return bytes(buffer[: file.read_at(buffer, 0)])
        finally:
            file.close()


class LayoutBlobReader:
    """Bytes ``[offset, end)`` of a blob; see ``BlobReader``."""

    def __init__(self, files: LayoutFiles, layout: str, blob: Descriptor, offset: int, end: int) -> None:
        self._files = files
        self._layout = layout
        self._blob = blob
        self._position = offset
        self._end = end
        self._file: LayoutFile | None = None
        self._lock = threading.Lock()
        self._closed = False

    def wait(self) -> None:
        """A file is always ready, or fails when it is read."""

    def readinto(self, buffer: memoryview) -> int:
        """See the protocol."""
        with self._reading():
            wanted = min(len(buffer), self._end - self._position)
            if not wanted:
                return 0
            count = self._opened().read_at(buffer[:wanted], self._position)
            self._position += count
        if count < wanted:
            msg = f"blob {self._blob.digest} of {self._layout} became shorter while it was read"
            raise CorruptContentError(msg)
        return count

    def close(self) -> None:
        """See the protocol, but that a read which hangs in the filesystem ends when that lets it."""
        self._closed = True
        self._let_go()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        self._check()
        try:
            with self._lock:
                yield
        finally:
            if self._closed:
                self._let_go()
        self._check()

    def _check(self) -> None:
        if self._closed:
            msg = "the transfer was stopped; ask again to go on"
            raise StoppedError(msg)

    def _let_go(self) -> None:
        """Close the file, unless a thread is reading from it: that one comes here itself when it is done."""
        if self._lock.acquire(blocking=False):
            try:
                file, self._file = self._file, None
                if file:
                    file.close()
            finally:
                self._lock.release()

    def _opened(self) -> LayoutFile:
        if self._file is None:
            try:
                file = self._files.open(_blob_path(self._blob.digest))
            except NotFoundError as error:
                msg = f"{self._layout} has not got blob {self._blob.digest}; the layout is incomplete"
                raise NotFoundError(msg) from error
            self._file = file
            _check_size(file.size, self._blob, self._layout)
        return self._file


def _by_tag(tag: str | None, entries: Sequence[Descriptor], layout: str) -> Descriptor:
    if tag is None and len(entries) == 1:
        return entries[0]
    wanted = tag or "latest"
    found = {entry.digest: entry for entry in entries if entry.annotations.get(_REF_NAME) == wanted}
    if len(found) > 1:
        msg = f"{layout} has {len(found)} manifests tagged {wanted!r}; name one by its digest: {', '.join(map(str, found))}"
        raise InvalidRequestError(msg)
    for entry in found.values():
        return entry
    tags = sorted({entry.annotations[_REF_NAME][:128] for entry in entries if _REF_NAME in entry.annotations})
    listed = ", ".join(repr(name) for name in tags[:_LISTED]) + (", …" if len(tags) > _LISTED else "")
    msg = f"{layout} has no manifest tagged {wanted!r}; it has {listed or 'no tags; name one by its digest'}"
    raise NotFoundError(msg)


def _blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _check_size(size: int, descriptor: Descriptor, layout: str) -> None:
    if size != descriptor.size:
        msg = f"{descriptor.digest} has {size} bytes in {layout}, but should have {descriptor.size}"
        raise CorruptContentError(msg)


def _check_digest(body: bytes, digest: Digest, layout: str) -> None:
    if hashlib.new(digest.algorithm, body).hexdigest() != digest.hex:
        msg = f"the bytes of {digest} in {layout} have another digest; the layout is damaged"
        raise CorruptContentError(msg)
