"""Pulling one layer: from a source to a verified, durable layer file, or to what resumes."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from csi_model.errors import BusyError, CorruptContentError, NoSpaceError
from csi_model.formats.placement import Compression
from csi_model.linux import pages
from csi_model.linux.disk import free_bytes
from csi_model.mount.strategy import WriteMode
from csi_model.pull.decode import MAGIC_BYTES, decoder, detect
from csi_model.pull.fetch import fetch, host_of
from csi_model.pull.guards import UNKNOWN, guard_of, ingest_name
from csi_model.pull.lane import Ahead, Lane
from csi_model.pull.pool import PIECE, BufferPool, Permits, Piece
from csi_model.pull.sink import LayerWriter
from csi_model.pull.sums import Hashes, LayerSums
from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.digest import Digest
    from csi_model.pull.stop import Stop
    from csi_model.sources.protocol import Source
    from csi_model.store.content import ContentStore
    from csi_model.store.ingest import Ingest
    from csi_model.tree.tar import TarEntry

log = structlog.get_logger(__name__)

_SMALL = 4 * PIECE
"""Layers up to this long are not worth a second thread."""

_SPACE_CHECK = 16 * PIECE


@dataclass(frozen=True, slots=True)
class LayerWant:
    """A layer that somebody needs: its blob, how to decode it, what it must decode to, and whether it is a tar to be indexed.

    A SHA-256 ``diff_id`` is compared by whoever wants the layer, with the content's digest: one manifest's lie about a blob must not
    fail the flight that another manifest shares. One under another algorithm is checked by the job itself.
    """

    descriptor: Descriptor
    compression: Compression = Compression.NONE
    diff_id: Digest | None = None
    index: bool = False


@dataclass(frozen=True, slots=True)
class LayerResult:
    """A layer file: its SHA-256, length, XXH3-128 of each piece, and the tar's entries where they were indexed on the way and are few."""

    content: Digest
    size: int
    pieces: bytes
    entries: tuple[TarEntry, ...] | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What the jobs of one process share."""

    pool: BufferPool
    decoders: Permits
    connections: int
    reserve: int
    crowded: Callable[[], bool]
    """Whether as many layers are in flight as there are cores."""


class Meter(Protocol):
    """Where a job tells how far it is, in bytes of the blob."""

    def begin(self, done: int) -> None:
        """(Re)start with ``done`` bytes behind it."""

    def add(self, count: int) -> None:
        """``count`` more bytes arrived."""

    def reuse(self, count: int) -> None:
        """``count`` more bytes, which an earlier attempt left on the disk."""


class Job:
    """One attempt after another at one layer, in the thread that calls ``run``."""

    def __init__(
        self,
        want: LayerWant,
        source: Source,
        content: ContentStore,
        *,
        mode: WriteMode,
        resources: Resources,
        stop: Stop,
        meter: Meter,
        apart: str | None = None,
        keep: int = 1 << 20,
    ) -> None:
        """``apart`` see ``ingest_name``; ``keep`` is how many bytes of memory the result's entries may take."""
        self._want = want
        self._layer = want.descriptor
        self._source = source
        self._content = content
        self._mode = mode
        self._resources = resources
        self._stop = stop
        self._meter = meter
        self._apart = apart
        self._keep = keep
        self._host = host_of(source)

    def run(self, fetched: Callable[[], None], record: Callable[[LayerResult, str | None], None]) -> LayerResult:
        """Pull, verify and commit the layer; ``fetched`` is called when its last byte is verified and only the disk is left.

        ``record`` is called with the result and whose it is (see ``guard_of``) before the content gets its name: a crash in between
        leaves a record without content, which says nothing, and never content of which nobody knows who may have it.

        Content that turns out wrong is thrown away and pulled once more from its beginning: what was resumed may have been damaged
        by a power failure, and what was delivered by a passing fault.

        Raises:
            CorruptContentError: wrong both times; nothing is kept.
            NoSpaceError: the disk is full; nothing is kept.
            UnsupportedError: it cannot be decoded; nothing is kept.
            UnavailableError and the source's other errors: what resumes is kept for the next attempt, which is the ingest of a raw layer.
        """
        if not self._layer.size:
            return self._empty(fetched, record)
        compression = self._compression()
        if compression is Compression.NONE and (adopted := self._adopted()) is not None:
            fetched()
            record(adopted, UNKNOWN)
            return adopted
        with self._content.ingest(self._layer.digest, ingest_name(self._source, compression, self._apart)) as ingest:
            try:
                result = self._attempt_twice(ingest, compression)
                fetched()
                record(result, guard_of(self._source))
                ingest.commit(result.content, result.size)
            except BaseException as error:
                if isinstance(error, NoSpaceError) or compression is not Compression.NONE:
                    ingest.discard()  # what was decoded so far does not resume
                raise
        return result

    def _adopted(self) -> LayerResult | None:
        """A raw layer that is content already though nothing is recorded of it: another layer's decoding, or the database was lost."""
        digest = self._layer.digest
        if digest.algorithm != "sha256" or not self._content.has(digest) or self._content.size(digest) != self._layer.size:
            return None
        sums = self._sums()
        self._reread(self._content.path(digest), self._layer.size, sums)
        if sums.hashes.digest("sha256") != digest:
            log.error("content on disk is damaged; pulling it again", content=str(digest))
            self._content.drop(digest)
            return None
        return self._result(sums)

    def _attempt_twice(self, ingest: Ingest, compression: Compression) -> LayerResult:
        attempt = self._decoded if compression is not Compression.NONE else self._plain
        try:
            return attempt(ingest, compression)
        except CorruptContentError as error:
            log.warning("layer content is wrong; pulling it once more from the beginning", blob=str(self._layer.digest), error=str(error))
        ingest.truncate(0)
        try:
            return attempt(ingest, compression)
        except CorruptContentError:
            ingest.discard()
            raise

    def _empty(self, fetched: Callable[[], None], record: Callable[[LayerResult, str | None], None]) -> LayerResult:
        """An empty blob, which some registries refuse to store, is made here."""
        sums = self._sums()
        sums.hashes.check(self._layer.digest, "an empty blob")
        if self._want.compression not in {Compression.NONE, Compression.DETECT}:
            msg = f"blob {self._layer.digest} is empty and so no {self._want.compression.value} stream; the model must be pushed again"
            raise CorruptContentError(msg)
        fetched()
        result = LayerResult(self._content.add(b""), 0, b"")
        record(result, None)
        return result

    def _compression(self) -> Compression:
        if self._want.compression is not Compression.DETECT:
            return self._want.compression
        wanted = min(MAGIC_BYTES, self._layer.size)
        head = bytearray(wanted)
        with closing(self._source.open(self._layer, offset=0, length=wanted)) as reader, self._stop.waking(reader.close):
            filled = 0
            while filled < wanted and (got := reader.readinto(memoryview(head)[filled:])):
                filled += got
        return detect(bytes(head))

    def _sums(self) -> LayerSums:
        algorithms = {digest.algorithm for digest in (self._layer.digest, self._want.diff_id) if digest is not None}
        return LayerSums(algorithms, index=self._want.index, keep=self._keep)

    def _beside(self) -> bool:
        return self._layer.size > _SMALL and not self._resources.crowded()

    def _fetch(self, offset: int, stop: Stop) -> Generator[Piece, None, None]:
        return fetch(
            self._source,
            self._layer,
            offset=offset,
            pool=self._resources.pool,
            stop=stop,
            connections=self._resources.connections,
        )

    def _plain(self, ingest: Ingest, _: Compression) -> LayerResult:
        """The blob is the layer file."""
        present = self._resumable(ingest)
        sums = self._sums()
        self._meter.begin(0)
        if present:
            self._reread(ingest.path, present, sums)
        with ExitStack() as stack:
            writer = stack.enter_context(closing(LayerWriter(ingest.path, self._mode, offset=present)))
            lanes = self._lanes(stack, sums, writer)
            for piece in stack.enter_context(closing(self._fetch(present, self._stop))):
                self._meter.add(piece.length)
                self._put(piece, lanes)
            _finish(lanes)
            sums.hashes.check(self._layer.digest, f"blob {self._layer.digest}")
            writer.finish()
        return self._result(sums)

    def _decoded(self, ingest: Ingest, compression: Compression) -> LayerResult:
        """The layer file is what the blob decodes to. Neither hash nor decoder outlives a crash, so it always begins anew."""
        ingest.truncate(0)
        sums = self._sums()
        blob = Hashes({self._layer.digest.algorithm})
        self._meter.begin(0)
        outputs = BufferPool(4)  # two for this layer, which is alone with them
        self._resources.decoders.acquire(self._host, self._stop)
        with ExitStack() as stack:
            stack.callback(self._resources.decoders.release, self._host)
            writer = stack.enter_context(closing(LayerWriter(ingest.path, self._mode, offset=0)))
            lanes = self._lanes(stack, sums, writer)
            inner = stack.enter_context(self._stop.child())
            encoded: Iterator[Piece] = stack.enter_context(closing(self._hashed(blob, inner)))
            if self._beside():
                with suppress(BusyError):  # no more threads now
                    ahead = Ahead(f"fetch-{self._layer.digest.short}", encoded, depth=2, drop=Piece.release)
                    stack.callback(ahead.close)
                    stack.callback(inner.set)  # before the thread is waited for, should the decoder give up
                    encoded = iter(ahead)
            self._decode(compression, encoded, outputs, lanes)
            _finish(lanes)
            blob.check(self._layer.digest, f"blob {self._layer.digest}")
            writer.finish()
        return self._result(sums)

    def _decode(self, compression: Compression, encoded: Iterator[Piece], outputs: BufferPool, lanes: tuple[Lane, ...]) -> None:
        offset = 0
        with closing(decoder(compression, encoded)) as source:
            while True:
                buffer = outputs.take(self._host, self._stop)
                try:
                    length = source.readinto(buffer.view)
                except BaseException:
                    outputs.give(buffer)
                    raise
                piece = Piece(outputs, buffer, offset=offset, length=length)
                if not length:
                    piece.release()
                    return
                self._put(piece, lanes)
                offset += length
                if offset % _SPACE_CHECK == 0:
                    self._check_space()

    def _hashed(self, blob: Hashes, stop: Stop) -> Generator[Piece, None, None]:
        with closing(self._fetch(0, stop)) as pieces:
            for piece in pieces:
                with piece.view as view:
                    blob.update(view)
                self._meter.add(piece.length)
                yield piece

    def _check_space(self) -> None:
        """What a blob decodes to is not known before; the reserve that was promised to the node is kept all the same."""
        place = self._content.path(self._layer.digest).parent
        with disk_errors(f"cannot look at the filesystem of {place}"):
            free = free_bytes(place)
        if free < self._resources.reserve:
            msg = (
                f"blob {self._layer.digest} decodes to more than the disk holds beside its reserve; "
                "free space with `csi-model rm`, or lower pull.freeSpaceReserve"
            )
            raise NoSpaceError(msg)

    def _resumable(self, ingest: Ingest) -> int:
        """Cut the ingest down to what a new request can go on from, and return its length.

        Direct writes may have padded its last block, so what is longer than the blob says nothing about its last piece.
        """
        length, size = ingest.length(), self._layer.size
        usable = size if length == size else min(length, size) // PIECE * PIECE
        if length:
            log.info("resuming", blob=str(self._layer.digest), present=usable, size=size)
        ingest.truncate(usable)
        return usable

    def _reread(self, path: Path, length: int, sums: LayerSums) -> None:
        """Hash what an earlier process left."""
        with disk_errors(f"cannot read {path}"):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for offset in range(0, length, PIECE):
                self._stop.check()
                wanted = min(PIECE, length - offset)
                buffer = self._resources.pool.take(self._host, self._stop)
                piece = Piece(self._resources.pool, buffer, offset=offset, length=wanted)
                try:
                    with disk_errors(f"cannot read {path}"), piece.view as view:
                        _read_fully(fd, view, offset)
                    sums.update(piece)
                finally:
                    piece.release()
                self._meter.reuse(wanted)
            if self._mode is WriteMode.DIRECT:
                pages.drop(fd)
        finally:
            os.close(fd)

    def _lanes(self, stack: ExitStack, sums: LayerSums, writer: LayerWriter) -> tuple[Lane, ...]:
        short = self._layer.digest.short
        lanes = (
            Lane(f"hash-{short}", sums.update),
            Lane(f"write-{short}", writer.write),
        )
        for lane in lanes:
            stack.callback(lane.close)
        return lanes

    def _put(self, piece: Piece, lanes: tuple[Lane, ...]) -> None:
        """Hand a piece to every lane; it goes back to its pool when the last is done with it."""
        beside = self._beside()
        try:
            for lane in lanes:
                lane.put(piece, beside=beside)
        finally:
            piece.release()

    def _result(self, sums: LayerSums) -> LayerResult:
        diff_id = self._want.diff_id
        if diff_id is not None and diff_id.algorithm != "sha256":
            sums.hashes.check(diff_id, f"layer {self._layer.digest}, decoded,")
        return LayerResult(sums.hashes.digest("sha256"), sums.length, sums.pieces, sums.entries())


def _finish(lanes: tuple[Lane, ...]) -> None:
    for lane in lanes:
        lane.finish()


def _read_fully(fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        got = os.preadv(fd, [view[done:]], offset + done)
        if not got:
            msg = f"the file ended at {offset + done}"
            raise OSError(msg)
        done += got
