"""Sums: everything that is computed from bytes on their way into a layer file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import structlog
import xxhash

from csi_model.errors import CorruptContentError, CsiModelError
from csi_model.oci.digest import Digest
from csi_model.tree.tar import TarIndexer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from csi_model.pull.pool import Piece
    from csi_model.tree.tar import TarEntry

log = structlog.get_logger(__name__)


class Hashes:
    """Digests of one stream of bytes under each of the algorithms that somebody named."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        for digest in self._hashes.values():
            digest.update(data)

    def digest(self, algorithm: str) -> Digest:
        """The digest of all bytes so far."""
        return Digest(algorithm, self._hashes[algorithm].hexdigest())

    def check(self, expected: Digest, what: str) -> None:
        """Compare with what a manifest or config says.

        Raises:
            CorruptContentError: they differ.
        """
        found = self.digest(expected.algorithm)
        if found != expected:
            msg = f"{what} should be {expected} but its bytes are {found}; the registry or the network delivered something else"
            raise CorruptContentError(msg)


class LayerSums:
    """Digests, piece checksums and the tar index of a layer file, fed with its pieces in order."""

    def __init__(self, algorithms: Iterable[str], *, index: bool, keep: int) -> None:
        """``keep`` is how many bytes of memory the index may take; a larger one is not made here."""
        self.hashes = Hashes({"sha256", *algorithms})
        self._pieces: list[bytes] = []
        self._indexer = TarIndexer() if index else None
        self._keep = keep
        self.length = 0

    def update(self, piece: Piece) -> None:
        """Take the next piece; all but the last are ``PIECE`` long."""
        with piece.view as view:
            self.hashes.update(view)
            self._pieces.append(xxhash.xxh3_128_digest(view))
            self._index(view)
        self.length += piece.length

    @property
    def pieces(self) -> bytes:
        """XXH3-128 of each piece, 16 bytes each."""
        return b"".join(self._pieces)

    def entries(self) -> tuple[TarEntry, ...] | None:
        """The tar's entries; None when they were not asked for, are too many to keep, or the bytes are no tar that we read.

        A bad tar is no reason to fail here: the bytes are what the manifest says, and who wants the entries scans the file and gets
        the error with the view that it spoils.
        """
        if self._indexer is None:
            return None
        try:
            return self._indexer.finish()
        except CsiModelError as error:
            log.info("layer is not a tar that can be indexed", error=str(error))
            return None

    def _index(self, view: memoryview) -> None:
        if self._indexer is None:
            return
        try:
            self._indexer.feed(view)
        except CsiModelError as error:
            log.info("layer is not a tar that can be indexed", error=str(error))
            self._indexer = None
        else:
            if self._indexer.weight > self._keep:
                self._indexer = None
