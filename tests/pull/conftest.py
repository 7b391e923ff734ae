"""A source in memory that stalls, lies and breaks on demand, and a store on the real disk."""

from __future__ import annotations

import gzip
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import zstandard

from csi_model.errors import UnavailableError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.pull.puller import LayerResult, LayerWant, Puller
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from csi_model.oci.reference import AnyReference


PATIENCE = 20.0

ENCODERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: lambda data: gzip.compress(data, 1),
    Compression.ZSTD: zstandard.compress,
    Compression.DETECT: zstandard.compress,
}


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@dataclass
class MemorySource:
    """Blobs by digest. What ``delivers`` holds for a digest is delivered instead of the truth."""

    name: str = "registry.example/llm/tiny"
    authenticated: bool = False
    ranges: bool = True
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    delivers: dict[Digest, list[bytes]] = field(default_factory=dict)
    """One entry for each opening at offset 0; the last one stays."""
    stalls_at: int | None = None
    """Readers block at this offset until ``go``, or until they are closed."""
    chunk: int = 1 << 20
    go: threading.Event = field(default_factory=threading.Event)
    opened: list[tuple[Digest, int, int]] = field(default_factory=list)
    delivered: int = 0
    pause: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    open_readers: int = 0
    most_readers: int = 0

    def add(self, data: bytes, *, algorithm: str = "sha256") -> Descriptor:
        """Offer ``data``."""
        digest = Digest.of(data) if algorithm == "sha256" else _sha512(data)
        self.blobs[digest] = data
        return Descriptor("application/octet-stream", digest, len(data))

    def resolve(self, reference: AnyReference) -> Descriptor:
        raise NotImplementedError

    def confirm(self, reference: AnyReference) -> None:
        raise NotImplementedError

    def fetch_document(self, descriptor: Descriptor) -> bytes:
        raise NotImplementedError

    def open(self, descriptor: Descriptor, *, offset: int = 0, length: int | None = None) -> MemoryReader:
        """Start to read."""
        with self.lock:
            data = self.blobs[descriptor.digest]
            lies = self.delivers.get(descriptor.digest)
            if lies:
                data = lies.pop(0) if offset == 0 and len(lies) > 1 else lies[0]
            end = len(data) if length is None else min(len(data), offset + length)
            self.opened.append((descriptor.digest, offset, end))
            self.open_readers += 1
            self.most_readers = max(self.most_readers, self.open_readers)
        return MemoryReader(self, data, offset, end)

    def close(self) -> None:
        """Nothing to close."""


class MemoryReader:
    """One pass over ``[position, end)``."""

    def __init__(self, source: MemorySource, data: bytes, position: int, end: int) -> None:
        self._source = source
        self._data = memoryview(data)
        self._position = position
        self._end = end
        self._closed = threading.Event()

    def wait(self) -> None:
        """Block at the source's stall."""
        if self._source.stalls_at is not None and self._position >= self._source.stalls_at:
            self._stall()

    def readinto(self, buffer: memoryview) -> int:
        """Deliver up to a chunk."""
        stalls_at = self._source.stalls_at
        if stalls_at is not None and self._position >= stalls_at and self._position < self._end:
            self._stall()
            stalls_at = None if self._source.go.is_set() else stalls_at
        limit = self._end if stalls_at is None or self._source.go.is_set() else min(self._end, max(stalls_at, self._position))
        count = min(len(buffer), limit - self._position, self._source.chunk)
        if self._source.pause and self._closed.wait(self._source.pause):
            self._gone()
        buffer[:count] = self._data[self._position : self._position + count]
        self._position += count
        with self._source.lock:
            self._source.delivered += count
        return count

    def close(self) -> None:
        """Let go; a blocked read ends."""
        if not self._closed.is_set():
            self._closed.set()
            with self._source.lock:
                self._source.open_readers -= 1

    def _stall(self) -> None:
        while not self._source.go.wait(0.01):
            if self._closed.is_set():
                self._gone()

    def _gone(self) -> None:
        msg = "the connection was closed"
        raise UnavailableError(msg)


def _sha512(data: bytes) -> Digest:
    import hashlib

    return Digest("sha512", hashlib.sha512(data).hexdigest())


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state", writable=True) as opened:
        yield opened


@pytest.fixture
def pulling(store: Store) -> Iterator[Callable[..., Puller]]:
    """Pullers into the store, which must leave no thread, buffer or decoder behind."""
    made = list[Puller]()

    def make(**settings: float) -> Puller:
        made.append(Puller(store, **{"free_space_reserve": 0} | settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        assert each.close(5), "threads are left"
        assert each._resources.pool.lent() == 0, "buffers are lost"
        assert each._resources.decoders.held() == 0


def pull(puller: Puller, source: MemorySource, *wants: LayerWant, mode: WriteMode = WriteMode.BUFFERED) -> tuple[LayerResult, ...]:
    """Pull and wait for all of it."""
    with puller.pull(source, wants, write_mode=mode) as pulling:
        return pulling.wait(PATIENCE)


def left(store: Store) -> list[str]:
    """The unfinished ingests."""
    return sorted(path.name for path in (store.root / "ingest").iterdir())
