from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, DeniedError, InvalidRequestError, NotFoundError, UnsupportedError
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.oci.document import MAX_DOCUMENT
from csi_model.oci.reference import LayoutReference, parse_reference
from csi_model.sources.layout import LayoutSource
from csi_model.sources.layoutfiles import RemoteFiles, open_files

if TYPE_CHECKING:
    from collections.abc import Sequence

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = f'{{"mediaType": "application/vnd.oci.empty.v1+json", "digest": "{Digest.of(b"{}")}", "size": 2}}'
BODY = f'{{"schemaVersion": 2, "config": {_CONFIG}, "layers": []}}'.encode()
REF_NAME = "org.opencontainers.image.ref.name"


def entry(body: bytes, tag: str | None = None) -> dict[str, object]:
    """An entry of index.json."""
    made: dict[str, object] = {"mediaType": MANIFEST, "digest": str(Digest.of(body)), "size": len(body)}
    return made | ({"annotations": {REF_NAME: tag}} if tag else {})


def layout(root: Path, entries: Sequence[dict[str, object]], *blobs: bytes) -> Path:
    """Write an OCI layout."""
    (root / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(entries)}))
    for data in blobs:
        (root / "blobs/sha256" / Digest.of(data).hex).write_bytes(data)
    return root


def resolve(root: Path, suffix: str = "") -> Descriptor:
    reference = parse_reference(f"oci-layout://{root}{suffix}")
    assert isinstance(reference, LayoutReference)
    return LayoutSource.open_layout(reference).resolve(reference)


def test_only_entry(tmp_path: Path) -> None:
    """Without a tag the only entry is meant, whatever it is called."""
    assert resolve(layout(tmp_path, [entry(BODY, "v7")])).digest == Digest.of(BODY)
    assert resolve(layout(tmp_path, [entry(BODY)])).digest == Digest.of(BODY)


def test_latest_among_several(tmp_path: Path) -> None:
    """Without a tag, and with several entries, latest is meant."""
    root = layout(tmp_path, [entry(b"1", "v1"), entry(BODY, "latest")])
    assert resolve(root).digest == Digest.of(BODY)
    assert resolve(root, ":v1").digest == Digest.of(b"1")


def test_absent_tag_lists_the_others(tmp_path: Path) -> None:
    """The message of a missing tag helps to find the right one."""
    with pytest.raises(NotFoundError, match=r"no manifest tagged 'latest'; it has 'v1', 'v2'"):
        resolve(layout(tmp_path, [entry(b"2", "v2"), entry(b"1", "v1")]))
    with pytest.raises(NotFoundError, match="no tags"):
        resolve(layout(tmp_path, [entry(b"2"), entry(b"1")]), ":v1")


def test_ambiguous_tag(tmp_path: Path) -> None:
    """Two manifests under one tag are not chosen from by chance; the same one twice is one."""
    with pytest.raises(InvalidRequestError, match="2 manifests tagged 'v1'"):
        resolve(layout(tmp_path, [entry(b"1", "v1"), entry(b"2", "v1")]), ":v1")
    assert resolve(layout(tmp_path, [entry(b"1", "v1"), entry(b"1", "v1")]), ":v1").digest == Digest.of(b"1")


def test_digest_below_the_index(tmp_path: Path) -> None:
    """A manifest that index.json does not list is found by its digest, verified, and its type told from its content."""
    root = layout(tmp_path, [entry(b"index")], BODY)
    assert resolve(root, f"@{Digest.of(BODY)}") == Descriptor(MANIFEST, Digest.of(BODY), len(BODY))
    (root / "blobs/sha256" / Digest.of(BODY).hex).write_bytes(BODY + b" ")
    with pytest.raises(CorruptContentError, match="damaged"):
        resolve(root, f"@{Digest.of(BODY)}")


def test_a_digest_that_is_only_listed_is_not_confirmed(tmp_path: Path) -> None:
    """What index.json lists counts for nothing without the manifest's own bytes."""
    reference = parse_reference(f"oci-layout://{tmp_path}@{Digest.of(BODY)}")
    source = LayoutSource(open_files(f"file://{layout(tmp_path, [entry(BODY)])}"), "layout")
    with pytest.raises(NotFoundError):
        source.confirm(reference)
    path = tmp_path / "blobs/sha256" / Digest.of(BODY).hex
    path.write_bytes(BODY.swapcase())
    with pytest.raises(CorruptContentError):
        source.confirm(reference)
    path.write_bytes(BODY)
    source.confirm(reference)


def test_not_a_layout(tmp_path: Path) -> None:
    """A directory without the file oci-layout, or with one of another version, is refused by name."""
    with pytest.raises(NotFoundError, match="oci-layout"):
        resolve(tmp_path)
    (layout(tmp_path, [entry(BODY)]) / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(UnsupportedError, match=r"2\.0\.0"):
        resolve(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schemaVersion": 2, "manifests": 3}', '{"schemaVersion": 2, "manifests": [{}]}'])
def test_broken_index(tmp_path: Path, text: str) -> None:
    """A broken index.json is refused."""
    (layout(tmp_path, []) / "index.json").write_text(text)
    with pytest.raises(InvalidRequestError):
        resolve(tmp_path)


def test_huge_index(tmp_path: Path) -> None:
    """Over 4 MiB nothing is read."""
    (layout(tmp_path, []) / "index.json").write_bytes(b" " * (MAX_DOCUMENT + 1))
    with pytest.raises(InvalidRequestError, match="at most"):
        resolve(tmp_path)


def test_links_stay_inside(tmp_path: Path) -> None:
    """A blob that is a link to elsewhere in the layout is read; one that leads out of it is refused, by file and by directory."""
    root = layout(tmp_path / "layout", [entry(BODY)], b"inside")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / Digest.of(b"outside").hex).write_bytes(b"outside")
    blobs = root / "blobs/sha256"
    (blobs / Digest.of(b"inside").hex).rename(root / "moved")
    (blobs / Digest.of(b"inside").hex).symlink_to(root / "moved")
    (blobs / Digest.of(b"outside").hex).symlink_to(outside / Digest.of(b"outside").hex)
    files = open_files(f"file://{root}")
    file = files.open(f"blobs/sha256/{Digest.of(b'inside').hex}")
    buffer = memoryview(bytearray(10))
    assert bytes(buffer[: file.read_at(buffer, 0)]) == b"inside"
    file.close()
    with pytest.raises(DeniedError, match="not a file inside"):
        files.open(f"blobs/sha256/{Digest.of(b'outside').hex}")
    (root / "blobs/sha512").symlink_to(outside)
    with pytest.raises(DeniedError, match="not a file inside"):
        files.open(f"blobs/sha512/{Digest.of(b'outside').hex}")


def test_layout_that_is_itself_a_link(tmp_path: Path) -> None:
    """The layout's own directory may be reached over a link."""
    layout(tmp_path / "real", [entry(BODY)])
    (tmp_path / "link").symlink_to("real")
    assert resolve(tmp_path / "link").digest == Digest.of(BODY)


def test_special_files(tmp_path: Path) -> None:
    """A FIFO or a directory in place of a file is refused, and never waited for."""
    root = layout(tmp_path, [entry(BODY)])
    os.mkfifo(root / "fifo")
    for name in ("fifo", "blobs"):
        with pytest.raises(DeniedError):
            open_files(f"file://{root}").open(name)


def test_blob_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """A blob that becomes shorter under the reader is Corrupt, not a short model."""
    data = bytes(100_000)
    root = layout(tmp_path, [], data)
    source = LayoutSource(open_files(f"file://{root}"), "here")
    reader = source.open(Descriptor("x", Digest.of(data), len(data)))
    assert reader.readinto(memoryview(bytearray(50_000))) == 50_000
    os.truncate(root / "blobs/sha256" / Digest.of(data).hex, 60_000)
    with pytest.raises(CorruptContentError, match="shorter"):
        reader.readinto(memoryview(bytearray(50_000)))
    reader.close()


def test_open_files_are_closed(tmp_path: Path) -> None:
    """Neither a finished read nor a refused file leaves a descriptor open."""
    root = layout(tmp_path, [entry(BODY)], b"data")
    (root / "blobs/sha256" / Digest.of(b"other").hex).write_bytes(b"wrong size")
    source = LayoutSource(open_files(f"file://{root}"), "here")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for data, error in ((b"data", None), (b"other", CorruptContentError), (b"absent", NotFoundError)):
        reader = source.open(Descriptor("x", Digest.of(data), len(data)))
        if error:
            with pytest.raises(error):
                reader.readinto(memoryview(bytearray(10)))
        else:
            assert reader.readinto(memoryview(bytearray(10))) == 4
        reader.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_filesystems_that_cannot_be_had() -> None:
    """An unknown filesystem, or a chain of them, is a bad request."""
    for url in ("nosuch://bucket/dir", "zip://a::file:///etc/x.zip"):
        with pytest.raises(InvalidRequestError):
            RemoteFiles(url)
