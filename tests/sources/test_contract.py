"""What every source does: the same suite over a registry and over OCI layouts on a disk and in memory."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Protocol

import fsspec
import pytest

from csi_model.errors import CorruptContentError, InvalidRequestError, NotFoundError, UnavailableError
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.oci.reference import parse_reference
from csi_model.registry.settings import HttpSettings
from csi_model.registry.transport import Transport
from csi_model.sources.layout import LayoutSource
from csi_model.sources.registry import RegistrySource
from tests.fakes.registry import MANIFEST, FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_model.oci.reference import AnyReference
    from csi_model.sources.protocol import BlobReader, Source

DATA = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(30_000))
_CONFIG = f'{{"mediaType": "application/vnd.oci.empty.v1+json", "digest": "{Digest.of(b"{}")}", "size": 2}}'
BODY = f'{{"schemaVersion": 2, "config": {_CONFIG}, "layers": []}}'.encode()


class World(Protocol):
    """Something to fill and a source that reads from it."""

    source: Source

    def add(self, data: bytes, *, name: Digest | None = None) -> None:
        """Store bytes, under their own digest or a false one."""

    def tag(self, name: str, manifest: Descriptor) -> None:
        """Let a tag name a manifest that was added."""

    def reference(self, suffix: str) -> AnyReference:
        """A reference such as ``:v1``."""


class RegistryWorld:
    def __init__(self, registry: FakeRegistry, transport: Transport) -> None:
        self._registry = registry
        reference = self.reference(":v1")
        self.source: Source = RegistrySource(transport, reference)  # type: ignore[arg-type]

    def add(self, data: bytes, *, name: Digest | None = None) -> None:
        digest = str(name or Digest.of(data))
        self._registry.blobs[digest] = data
        self._registry.manifests["llm/tiny", digest] = (MANIFEST, data)

    def tag(self, name: str, manifest: Descriptor) -> None:
        self._registry.manifests["llm/tiny", name] = self._registry.manifests["llm/tiny", str(manifest.digest)]

    def reference(self, suffix: str) -> AnyReference:
        return parse_reference(f"{self._registry.host}/llm/tiny{suffix}")


class LayoutWorld:
    def __init__(self, url: str) -> None:
        self._url = url
        self._filesystem, self._root = fsspec.core.url_to_fs(url.replace("oci-layout+", "").replace("oci-layout:", "file:"))
        self._entries: list[dict[str, object]] = []
        self._filesystem.makedirs(f"{self._root}/blobs/sha256", exist_ok=True)
        self._filesystem.pipe_file(f"{self._root}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        self._write_index()
        reference = self.reference(":v1")
        self.source: Source = LayoutSource.open_layout(reference)  # type: ignore[arg-type]

    def add(self, data: bytes, *, name: Digest | None = None) -> None:
        self._filesystem.pipe_file(f"{self._root}/blobs/sha256/{(name or Digest.of(data)).hex}", data)

    def tag(self, name: str, manifest: Descriptor) -> None:
        self._entries.append(
            {
                "mediaType": manifest.media_type,
                "digest": str(manifest.digest),
                "size": manifest.size,
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
        self._write_index()

    def reference(self, suffix: str) -> AnyReference:
        return parse_reference(f"{self._url}{suffix}")

    def _write_index(self) -> None:
        index = {"schemaVersion": 2, "manifests": self._entries}
        self._filesystem.pipe_file(f"{self._root}/index.json", json.dumps(index).encode())


@pytest.fixture(params=["registry", "directory", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Each kind of source in turn."""
    if request.param == "registry":
        transport = Transport(HttpSettings(loopback_plain_http=True, retries=1, backoff=0.001))
        with FakeRegistry() as registry:
            yield RegistryWorld(registry, transport)
            transport.close()
    elif request.param == "directory":
        yield LayoutWorld(f"oci-layout://{tmp_path}/layout")
    else:
        yield LayoutWorld(f"oci-layout+memory://{tmp_path}/layout")


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


def manifest(body: bytes) -> Descriptor:
    return Descriptor(MANIFEST, Digest.of(body), len(body))


def drain(reader: BlobReader, piece: int) -> bytes:
    buffer, out = memoryview(bytearray(piece)), bytearray()
    while True:
        reader.wait()
        count = reader.readinto(buffer)
        if not count:
            return bytes(out)
        out += buffer[:count]


def test_tag_to_bytes(world: World) -> None:
    """A tag leads to a descriptor, that to a manifest, and a descriptor to a blob."""
    world.add(BODY)
    world.add(DATA)
    world.tag("v1", manifest(BODY))
    found = world.source.resolve(world.reference(":v1"))
    assert (found.media_type, found.digest, found.size) == (MANIFEST, Digest.of(BODY), len(BODY))
    assert world.source.fetch_document(found) == BODY
    assert drain(world.source.open(blob(DATA)), 300_000) == DATA


def test_digest_without_tag(world: World) -> None:
    """A reference by digest needs no tag."""
    world.add(BODY)
    assert world.source.resolve(world.reference(f"@{Digest.of(BODY)}")).digest == Digest.of(BODY)


@pytest.mark.parametrize("suffix", [":absent", f"@{Digest.of(b'absent')}"])
def test_absent_manifest(world: World, suffix: str) -> None:
    """What is not there is NotFound."""
    world.add(BODY)
    world.tag("v1", manifest(BODY))
    with pytest.raises(NotFoundError):
        world.source.resolve(world.reference(suffix))
    with pytest.raises(NotFoundError):
        world.source.fetch_document(manifest(b"absent"))


def test_foreign_reference(world: World) -> None:
    """A source does not answer for another kind of place."""
    other = "oci-layout:///elsewhere" if isinstance(world, RegistryWorld) else "registry.example/llm/tiny"
    with pytest.raises(InvalidRequestError):
        world.source.resolve(parse_reference(other))


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], BODY.replace(b"2,", b"3,")], ids=["longer", "shorter", "flipped"])
def test_lying_manifest(world: World, body: bytes) -> None:
    """A manifest that is not what its digest and size say is refused."""
    world.add(body, name=Digest.of(BODY))
    with pytest.raises(CorruptContentError):
        world.source.fetch_document(manifest(BODY))


@pytest.mark.parametrize("piece", [1000, 65_536, 1 << 20])
@pytest.mark.parametrize(("offset", "length"), [(0, None), (1, None), (123_457, 500_000), (len(DATA) - 1, None), (len(DATA), None), (7, 0)])
def test_parts(world: World, piece: int, offset: int, length: int | None) -> None:
    """Exactly the bytes that were asked for come, whatever the size of the buffer."""
    world.add(DATA)
    reader = world.source.open(blob(DATA), offset=offset, length=length)
    assert drain(reader, piece) == DATA[offset : None if length is None else offset + length]
    reader.close()


def test_parts_of_one_blob_at_the_same_time(world: World) -> None:
    """Several readers of one blob do not disturb each other."""
    world.add(DATA)
    readers = [world.source.open(blob(DATA), offset=n * 240_000, length=240_000) for n in range(4)]
    buffers = [memoryview(bytearray(240_000)) for _ in readers]
    for start in range(0, 240_000, 60_000):
        for reader, buffer in zip(readers, buffers, strict=True):
            assert reader.readinto(buffer[start : start + 60_000]) == 60_000
    for reader in readers:
        reader.close()
    assert b"".join(buffers) == DATA


def test_parts_outside(world: World) -> None:
    """A part has to be inside its blob."""
    for offset, length in ((-1, 2), (0, len(DATA) + 1), (len(DATA) + 1, None)):
        with pytest.raises(InvalidRequestError):
            world.source.open(blob(DATA), offset=offset, length=length)


def test_empty_blob(world: World) -> None:
    """The empty blob is read without being there."""
    assert drain(world.source.open(blob(b"")), 10) == b""


def test_absent_blob(world: World) -> None:
    """A blob that is not there is NotFound when it is read, and its digest is named."""
    with pytest.raises(NotFoundError, match=Digest.of(DATA).short):
        drain(world.source.open(blob(DATA)), 10)


@pytest.mark.parametrize("data", [DATA + b"!", DATA[:-1]], ids=["longer", "shorter"])
def test_blob_of_another_size(world: World, data: bytes) -> None:
    """A blob longer or shorter than its descriptor is refused."""
    world.add(data, name=Digest.of(DATA))
    with pytest.raises(CorruptContentError):
        drain(world.source.open(blob(DATA)), 1 << 20)


def test_closed_reader(world: World) -> None:
    """A closed reader reads no more, and may be closed again."""
    world.add(DATA)
    reader = world.source.open(blob(DATA))
    reader.readinto(memoryview(bytearray(10)))
    reader.close()
    reader.close()
    with pytest.raises(UnavailableError):
        reader.readinto(memoryview(bytearray(10)))


def test_names_and_ranges(world: World) -> None:
    """A source has a name for messages, serves parts, and needed no credentials."""
    assert str(world.reference("")).startswith(world.source.name)
    assert world.source.ranges is not False
    assert not world.source.authenticated
    world.source.close()
