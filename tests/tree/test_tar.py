"""Archives indexed from a stream and from a file, against Python's tarfile and GNU tar."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_model.errors import CorruptContentError
from csi_model.tree.tar import Kind, Segment, TarIndexer, scan
from tests.tree.archives import END, block, content, extended, info, padded, record, scanned, streamed, tar_of

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARD_LINK,
    tarfile.CHRTYPE: Kind.SPECIAL,
    tarfile.BLKTYPE: Kind.SPECIAL,
    tarfile.FIFOTYPE: Kind.SPECIAL,
}
_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150).filter(
    lambda name: name.strip("/") == name
)
_MEMBERS = st.builds(
    info,
    _NAMES,
    st.sampled_from(sorted(_KINDS)),
    size=st.integers(0, 1500),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime=st.integers(0, 8**12) | st.floats(0, 2e9, allow_nan=False).map(lambda t: round(t, 3)),
    linkname=_NAMES,
)


def _written(members: list[tarfile.TarInfo], form: int) -> bytes:
    for member in members:
        if not member.isreg():
            member.size = 0
        if form == tarfile.GNU_FORMAT:
            member.mtime = int(member.mtime)
    return tar_of(*members, form=form)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(_MEMBERS, max_size=6), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(members: list[tarfile.TarInfo], form: int, chunk: int) -> None:
    """Names, kinds, modes, owners, times, links, sizes and offsets agree with an independent reader, streamed or scanned."""
    data = _written(members, form)
    entries = scanned(data)
    assert streamed(data, chunk) == entries
    with tarfile.open(fileobj=io.BytesIO(data + END)) as reader:
        expected = reader.getmembers()
    assert len(entries) == len(expected)
    for entry, member in zip(entries, expected, strict=True):
        assert entry.kind is _KINDS[member.type]
        assert entry.name.decode().rstrip("/") == member.name
        assert (entry.mode, entry.uid, entry.gid) == (member.mode & 0o777, member.uid, member.gid)
        assert abs(entry.mtime_ns - member.mtime * 10**9) < 1000
        assert entry.size == member.size
        if entry.size:
            assert entry.segments == (Segment(member.size, member.offset_data),)
        if entry.kind in (Kind.SYMLINK, Kind.HARD_LINK):
            assert entry.link.decode() == member.linkname


def test_every_chunk_size_gives_the_same_entries() -> None:
    """The pieces of a stream may end anywhere: inside headers, extended headers, maps and padding."""
    data = (
        tar_of(info("n" * 180, size=700, mtime=1.5), info("d/", tarfile.DIRTYPE), info("l", tarfile.SYMTYPE, linkname="t" * 150))
        + extended(b"x", record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9999"))
        + block(size=b"%011o\0" % 1024)
        + padded(b"1\n50\n512\n")
        + padded(b"s" * 512)
        + END
    )
    expected = scanned(data)
    assert len(expected) == 4
    for chunk in range(1, len(data) + 1, 7):
        assert streamed(data, chunk) == expected


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what makes tar writers use their extensions."""
    root = tmp_path_factory.mktemp("model")
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).write_bytes(b"long")
    (root / "empty").touch()
    (root / "weights").write_bytes(random.Random(1).randbytes(100_000))
    (root / "setuid").write_bytes(b"x")
    (root / "setuid").chmod(0o4755)
    (root / "link").symlink_to("t" * 200)
    (root / "hard").hardlink_to(root / "weights")
    (root / "dätei").write_bytes("ümlaut".encode())
    os.mkfifo(root / "fifo")
    # More regions than an old GNU header (4) and one extension (21) hold.
    for name, regions in (("sparse", 60), ("few", 2)):
        with (root / name).open("wb") as out:
            for i in range(regions):
                out.seek(i * 65536 + 8192)
                out.write(random.Random(i).randbytes(4096))
            out.truncate(regions * 65536 + 777)
    with (root / "zeros").open("wb") as out:
        out.truncate(1 << 20)
    return root


@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=gnu", "--sparse"],
        ["--format=oldgnu", "--sparse"],
        ["--format=posix"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0"],
    ],
    ids=" ".join,
)
def test_what_gnu_tar_writes_reads_back(model: Path, options: list[str]) -> None:
    """Every file of an archive by GNU tar, sparse ones in all four formats included, has the bytes, mode, time and links of the original."""
    data = subprocess.run(["tar", "-C", model, *options, "-cf", "-", "."], check=True, capture_output=True).stdout
    entries = scanned(data)
    assert streamed(data, 4096 + 1) == entries
    found = {}
    for entry in entries:
        path = model / entry.name.decode()
        found[path] = entry
        status = path.lstat()
        assert (entry.uid, entry.gid) == (status.st_uid, status.st_gid)
        if entry.kind is Kind.FILE:
            assert content(data, entry) == path.read_bytes()
            assert entry.size == status.st_size
            assert entry.mode == status.st_mode & 0o777
        elif entry.kind is Kind.SYMLINK:
            assert entry.link == os.fsencode(path.readlink())
        elif entry.kind is Kind.HARD_LINK:
            assert (model / entry.link.decode()).samefile(path)
        fraction = status.st_mtime_ns if "--format=posix" in options else status.st_mtime_ns // 10**9 * 10**9
        assert entry.mtime_ns == fraction
    assert found.keys() == {model, *model.rglob("*")}
    if "--sparse" in options:
        sparse = found[model / "sparse"]
        assert sum(s.length for s in sparse.segments if s.offset is None) > sparse.size // 2
        assert found[model / "zeros"].segments == (Segment(1 << 20),)
        assert len(found[model / "sparse"].segments) >= 120


def test_ustar_by_gnu_tar(tmp_path: Path) -> None:
    """A ustar archive, whose long paths are split in prefix and name, reads back."""
    path = tmp_path / ("a" * 80) / ("b" * 80)
    path.parent.mkdir()
    path.write_bytes(b"x" * 513)
    data = subprocess.run(["tar", "-C", tmp_path, "--format=ustar", "-cf", "-", "."], check=True, capture_output=True).stdout
    (entry,) = (e for e in scanned(data) if e.kind is Kind.FILE)
    assert entry.name.decode() == f"./{'a' * 80}/{'b' * 80}"
    assert content(data, entry) == b"x" * 513


def test_scan_reads_little_of_large_files() -> None:
    """Of an archive of large files a scan reads no more than a few kilobytes a file."""
    one = block(size=b"%011o\0" % (1 << 20)) + bytes(1 << 20)
    data = one * 20 + END
    read = 0

    def reader(offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return data[offset : offset + length]

    assert len(scan(reader, len(data))) == 20
    assert read <= 20 * 4096 + (1 << 16)


def test_a_short_read_is_a_truncated_archive() -> None:
    """A file that turns out shorter than it was said to be is refused."""
    data = block(size=b"00000000005\0") + padded(b"hello") + block(b"g")
    with pytest.raises(CorruptContentError):
        scan(lambda offset, length: data[:1100][offset : offset + length], len(data))


class _Untouched(bytes):
    """Bytes that nobody may look at."""

    def __getitem__(self, key: object) -> NoReturn:
        raise AssertionError(key)


def test_contents_are_passed_over() -> None:
    """A file's bytes are never looked at, however many there are."""
    indexer = TarIndexer()
    indexer.feed(block(size=b"%011o\0" % (8**11 - 512)))
    piece = _Untouched(1 << 22)
    for _ in range(2048 - 1):
        indexer.feed(piece)


def test_every_byte_is_read_once() -> None:
    """Of an archive of ten thousand small files no byte is asked for twice, but for the headers at the windows' ends."""
    data = b"".join(block(b"models/file%d" % i, size=b"%011o\0" % 700) + bytes(1024) for i in range(10_000)) + END
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return data[offset : offset + length]

    assert len(scan(read, len(data))) == 10_000
    assert sum(asked) < 1.1 * len(data)
